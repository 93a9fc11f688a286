//! What failed at AWS, and who has to act.
//!
//! AWS says it by a status and a code; the codes for credentials come from the signature's check
//! in front of every service, the others from the service.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::sink::{ANSWER_CHARS_MAX, Answer, Failure, FailureClass};
use crate::webhook::explain;

/// Of a cause that comes from below, so much is shown.
const CAUSE_CHARS_MAX: usize = 300;
/// The longest wait that an answer may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// Why a call at AWS failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsFailure {
    /// What happened.
    pub failure: Failure,
    /// The code of the error, where AWS sent one.
    pub code: Option<String>,
    /// The wait that AWS asked for.
    pub after: Option<Duration>,
}

impl AwsFailure {
    /// Whether other credentials may be the way out: these are not known any more, over, or could
    /// not be had. That they may not do something says nothing against them.
    pub fn is_of_credentials(&self) -> bool {
        let Failure { class: FailureClass::Credentials, answer, .. } = &self.failure else {
            return false;
        };
        match self.code.as_deref() {
            Some(code) => is_over(code) || is_of_signature(code) || is_unknown(code),
            None => answer.is_none(),
        }
    }
}

/// What happened, told from an error of the SDK.
pub fn failure_of<E>(error: &SdkError<E, HttpResponse>) -> AwsFailure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let plain = |failure| AwsFailure { failure, code: None, after: None };
    if let Some(cause) = cause::<CredentialsError>(error) {
        return plain(of_credentials(cause));
    }
    match error {
        SdkError::ServiceError(context) => {
            let (code, message) = (context.err().code(), context.err().message());
            of_answer(context.raw(), code, message)
        }
        SdkError::ResponseError(context) => of_answer(context.raw(), None, None),
        SdkError::TimeoutError(_) => {
            plain(Failure::new(FailureClass::Timeout, "aws did not answer in time"))
        }
        SdkError::DispatchFailure(_) => plain(of_transport(error)),
        other => plain(Failure::new(FailureClass::Request, innermost(other))),
    }
}

fn of_answer(answer: &HttpResponse, code: Option<&str>, message: Option<&str>) -> AwsFailure {
    let status = answer.status().as_u16();
    let message = message.unwrap_or_default();
    let (class, advice) = judge(status, code.unwrap_or_default(), message);
    // AWS shows then what it would have signed, with the token of the session.
    let is_secret = code.is_some_and(is_of_signature);
    let said = match code {
        Some(code) if is_secret || message.is_empty() => format!(", {code}"),
        Some(code) => format!(", {code}: {}", shortened(message)),
        None => String::new(),
    };
    let body = answer.body().bytes().filter(|_| !is_secret).unwrap_or_default();
    let text = String::from_utf8_lossy(body).chars().take(ANSWER_CHARS_MAX).collect();
    let seconds = answer.headers().get("retry-after").and_then(|text| text.trim().parse().ok());
    AwsFailure {
        failure: Failure {
            class,
            text: format!("{advice} (aws answered {status}{said})"),
            answer: Some(Answer { code: status, text }),
        },
        code: code.map(ToOwned::to_owned),
        after: seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
    }
}

fn is_over(code: &str) -> bool {
    matches!(code, "ExpiredTokenException" | "ExpiredToken" | "TokenRefreshRequired")
}

fn is_unknown(code: &str) -> bool {
    matches!(
        code,
        "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "MissingAuthenticationTokenException"
            | "MissingAuthenticationToken"
            | "IncompleteSignatureException"
    )
}

fn is_of_signature(code: &str) -> bool {
    matches!(code, "InvalidSignatureException" | "SignatureDoesNotMatch")
}

const CLOCK: &str = "the clocks of the gateway and of aws differ by more than 5 minutes";

/// Who has to act, and on what.
fn judge(status: u16, code: &str, message: &str) -> (FailureClass, &'static str) {
    use FailureClass::{Credentials, Refused, Status, Throttled, TooLarge};
    let is_late = message.contains("Signature expired") || message.contains("not yet current");
    match (status, code) {
        (_, code) if is_over(code) => (Credentials, "the credentials have expired"),
        (_, "RequestTimeTooSkewed" | "RequestInTheFuture" | "RequestExpired") => {
            (Credentials, CLOCK)
        }
        (_, code) if is_of_signature(code) && is_late => (Credentials, CLOCK),
        (_, code) if is_of_signature(code) => {
            (Credentials, "the secret access key does not belong to the access key")
        }
        (_, code) if is_unknown(code) => (Credentials, "aws does not know the access key"),
        (_, "ThrottlingException" | "Throttling" | "TooManyRequestsException") | (429, _) => {
            (Throttled, "aws asks for fewer requests; its quotas can be raised")
        }
        (503, _) => (Throttled, "aws is not available at present"),
        (_, "RequestEntityTooLargeException") | (413, _) => {
            (TooLarge, "the event is larger than aws takes")
        }
        (401 | 403, _) => {
            (Credentials, "access is denied: the role or user may not do this in this region")
        }
        (404, _) => (Status, "aws knows no such resource: region or endpoint may be another"),
        (400, _) => (Refused, "aws does not take the event"),
        _ => (Status, "aws failed to take the event"),
    }
}

fn of_credentials(error: &CredentialsError) -> Failure {
    let of = |text: String| Failure::new(FailureClass::Credentials, text);
    let assume = cause::<SdkError<AssumeRoleError, HttpResponse>>(error);
    if let Some(code) = assume.and_then(ProvideErrorMetadata::code) {
        let message = assume.and_then(ProvideErrorMetadata::message).unwrap_or_default();
        return of(format!("the role cannot be assumed: {code}: {}", shortened(message)));
    }
    if cause::<reqwest::Error>(error).is_some() {
        let below = of_transport(error);
        let text = format!("no credentials: they cannot be asked for: {}", below.text);
        return Failure::new(below.class, text);
    }
    match error {
        CredentialsError::CredentialsNotLoaded(_) => of("no credentials for aws were found in \
             environment, profile, container or metadata of the instance"
            .to_owned()),
        CredentialsError::ProviderTimedOut(late) => {
            let seconds = late.timeout_duration().as_secs();
            of(format!("no credentials for aws came within {seconds} s"))
        }
        other => of(format!("no credentials for aws: {}", innermost(other))),
    }
}

/// What is between the gateway and AWS.
fn of_transport(error: &(dyn Error + 'static)) -> Failure {
    match cause::<reqwest::Error>(error) {
        Some(error) => explain(error),
        None => Failure::new(FailureClass::Transport, innermost(error)),
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The first error of a type among the causes.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref::<T>())
}

/// The innermost cause says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    shortened(&chain(error).last().map(ToString::to_string).unwrap_or_default())
}

fn shortened(text: &str) -> String {
    text.chars().take(CAUSE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_says_who_has_to_act() {
        use FailureClass::{Credentials, Refused, Status, Throttled, TooLarge};
        for (status, code, class) in [
            (403, "ForbiddenException", Credentials),
            (403, "", Credentials),
            (401, "UnauthorizedException", Credentials),
            (403, "ExpiredTokenException", Credentials),
            (400, "ExpiredTokenException", Credentials),
            (403, "UnrecognizedClientException", Credentials),
            (403, "InvalidSignatureException", Credentials),
            (429, "ThrottlingException", Throttled),
            (400, "ThrottlingException", Throttled),
            (503, "ServiceUnavailableException", Throttled),
            (413, "RequestEntityTooLargeException", TooLarge),
            (400, "InvalidRequestException", Refused),
            (404, "ResourceNotFoundException", Status),
            (500, "InternalFailureException", Status),
        ] {
            assert_eq!(judge(status, code, "").0, class, "{status} {code}");
        }
        let late = "Signature expired: 20260101T000000Z is now earlier than 20260101T000500Z";
        assert_eq!(judge(403, "InvalidSignatureException", late), (Credentials, CLOCK));
    }
}
