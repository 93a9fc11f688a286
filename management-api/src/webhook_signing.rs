//! The keys that the requests of a webhook are signed with: shown, replaced, ended.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cloud_integrator::{
    Integration, InvalidIntegration, ShownKey, Signing, SigningError, SigningKind, Target,
    WebhookError,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::ManagementApi;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Id, JsonBody};
use crate::integration_errors::change_error;
use crate::integrations::of_kind;
use crate::sims::now;

/// How long a replaced key goes on where the customer does not say.
const KEEP_HOURS_DEFAULT: u32 = 24;
/// The longest that a replaced key goes on: as long as events wait by default.
const KEEP_HOURS_MAX: u32 = 168;

/// What the requests of a webhook are signed with.
#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookSigning {
    /// Whether requests are signed.
    signed: bool,
    /// What the receiver needs to check signatures, the newest first.
    keys: Vec<WebhookKey>,
}

/// What a receiver needs to check signatures of one key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookKey {
    /// `hmac` (signatures `v1`) or `ed25519` (`v1a`).
    #[schema(example = "hmac")]
    kind: &'static str,
    /// The shared secret (`whsec_`), or the public key (`whpk_`).
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=")]
    key: String,
    /// Until when requests carry its signature, in UTC, where another key has replaced it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_time: Option<String>,
}

/// A new key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SigningRotation {
    /// The kind of the new key.
    kind: KeyKind,
    /// How long the signature of the old key is sent too; default 24.
    #[schema(minimum = 0, maximum = 168)]
    keep_old_for_hours: Option<u32>,
    /// A secret (`whsec_`) or a private key (`whsk_`) of the customer's own; without it a new one
    /// is made.
    secret: Option<String>,
}

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyKind {
    /// A secret that the receiver shares.
    Hmac,
    /// A key pair, of which the receiver knows the public key.
    Ed25519,
}

impl From<KeyKind> for SigningKind {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Hmac => Self::Hmac,
            KeyKind::Ed25519 => Self::Ed25519,
        }
    }
}

impl From<ShownKey> for WebhookKey {
    fn from(shown: ShownKey) -> Self {
        let ShownKey { kind, text, until } = shown;
        let kind = match kind {
            SigningKind::Hmac => "hmac",
            SigningKind::Ed25519 => "ed25519",
        };
        Self { kind, key: text.to_string(), ends_time: until.map(|until| until.to_string()) }
    }
}

/// What a receiver needs to check the signatures of a webhook.
#[utoipa::path(
    get, path = "/simgate/v1/integrations/{integrationId}/signing",
    operation_id = "getSigning", tag = "simgate",
    params(("integrationId" = String, Path, description = "The webhook's id.")),
    responses((status = 200, description = "The keys.", body = WebhookSigning))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<WebhookSigning>, ApiError> {
    signing_of(of_kind(&api, &id, "WEBHOOK").await?).map(Json)
}

/// Sign the requests of a webhook with a new key. For a while they carry a signature of the old
/// one too.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/{integrationId}/signing/rotate",
    operation_id = "rotateSigning", tag = "simgate",
    params(("integrationId" = String, Path, description = "The webhook's id.")),
    request_body = SigningRotation,
    responses(
        (status = 200, description = "The keys as they are now.", body = WebhookSigning),
        (status = 409, description = "Too many old keys go on.", body = ErrorBody),
    )
)]
pub(crate) async fn rotate(
    State(api): State<ManagementApi>,
    Id(id): Id,
    JsonBody(rotation): JsonBody<SigningRotation>,
) -> Result<Json<WebhookSigning>, ApiError> {
    let keep = keep_old_for(rotation.keep_old_for_hours)?;
    let new = match &rotation.secret {
        Some(secret) => own_key(rotation.kind, secret)?,
        None => new_key(rotation.kind.into())?,
    };
    of_kind(&api, &id, "WEBHOOK").await?;
    let replace = move |signing: &Signing| signing.rotate(new, now(), keep);
    edit(&api, &id, replace).await.and_then(signing_of).map(Json)
}

/// Sign the requests of a webhook no more.
#[utoipa::path(
    delete, path = "/simgate/v1/integrations/{integrationId}/signing",
    operation_id = "deleteSigning", tag = "simgate",
    params(("integrationId" = String, Path, description = "The webhook's id.")),
    responses((status = 204, description = "Requests are not signed from now on."))
)]
pub(crate) async fn delete(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    of_kind(&api, &id, "WEBHOOK").await?;
    edit(&api, &id, |_: &Signing| Ok(Signing::default())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A new key of our own making.
pub(crate) fn new_key(kind: SigningKind) -> Result<Signing, ApiError> {
    let made = match kind {
        SigningKind::Hmac => Signing::hmac(),
        SigningKind::Ed25519 => Signing::ed25519(),
    };
    made.map_err(|error| ApiError::internal("making a key", error))
}

/// A key of the customer's own, of the kind that was announced.
fn own_key(kind: KeyKind, secret: &str) -> Result<Signing, ApiError> {
    let allowed = match kind {
        KeyKind::Hmac => "whsec_ and base64 of 24 to 64 bytes",
        KeyKind::Ed25519 => "whsk_ and base64 of a seed of 32 bytes, or of 64 with its public key",
    };
    let refuse = |message: String| ApiError::field("secret", message, allowed);
    let own = Signing::from_secret(secret).map_err(|error| refuse(error.to_string()))?;
    let shown = own.secrets(now()).map_err(|error| refuse(error.to_string()))?;
    if shown.iter().any(|key| key.kind != kind.into()) {
        return Err(refuse("the secret is of the other kind".to_owned()));
    }
    Ok(own)
}

fn keep_old_for(hours: Option<u32>) -> Result<Duration, ApiError> {
    match hours.unwrap_or(KEEP_HOURS_DEFAULT) {
        hours @ 0..=KEEP_HOURS_MAX => Ok(Duration::from_secs(u64::from(hours) * 3_600)),
        other => {
            let message = format!("{other} hours");
            Err(ApiError::field("keepOldForHours", message, format!("0 to {KEEP_HOURS_MAX}")))
        }
    }
}

async fn edit(
    api: &ManagementApi,
    id: &str,
    change: impl FnOnce(&Signing) -> Result<Signing, SigningError> + Send + 'static,
) -> Result<Integration, ApiError> {
    let edit = move |integration: &mut Integration| {
        let kind = integration.target.kind();
        let Target::Webhook(webhook) = &mut integration.target else {
            return Err(InvalidIntegration::Kind { kind, what: "signatures" });
        };
        webhook.signing = change(&webhook.signing).map_err(WebhookError::from)?;
        Ok(())
    };
    api.services().integrations.edit(id, edit).await.map_err(change_error)
}

fn signing_of(integration: Integration) -> Result<WebhookSigning, ApiError> {
    let Target::Webhook(webhook) = integration.target else {
        return Err(ApiError::not_found("webhook", integration.id));
    };
    let shown = webhook.signing.secrets(now());
    let shown = shown.map_err(|error| ApiError::internal("showing keys", error))?;
    let keys: Vec<WebhookKey> = shown.into_iter().map(WebhookKey::from).collect();
    Ok(WebhookSigning { signed: !keys.is_empty(), keys })
}
