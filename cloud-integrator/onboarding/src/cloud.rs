//! The calls of AWS IoT Core that onboarding makes. Each may be made twice.

use aws_sdk_iot::Client;
use aws_sdk_iot::config::Builder;
use aws_sdk_iot::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_iot::types::{AttributePayload, CertificateStatus};
use bytes::Bytes;
use cloud_integrator::{
    AwsAccess, AwsFailure, AwsSink, AwsTarget, AwsTransport, Failure, FailureClass, InvalidAws,
    failure_of,
};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::settings::OnboardingSettings;
use crate::store::KeyPair;

/// A certificate that AWS has made.
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) arn: String,
    pub(crate) pair: KeyPair,
}

/// The account.
pub(crate) struct Cloud {
    access: AwsAccess,
    settings: OnboardingSettings,
    endpoint: Option<String>,
    client: Mutex<Option<Client>>,
    data_plane: AwsSink,
}

impl Cloud {
    pub(crate) fn new(access: AwsAccess, settings: OnboardingSettings) -> Result<Self, InvalidAws> {
        let role = settings.role.as_ref();
        let target = AwsTarget {
            region: settings.region.clone(),
            endpoint: settings.data_endpoint.clone(),
            transport: AwsTransport::Sdk {
                role_arn: role.map(|role| role.arn().to_owned()),
                external_id: role.and_then(|role| role.external_id()).map(ToOwned::to_owned),
            },
            ..AwsTarget::default()
        };
        let data_plane = AwsSink::new(&access, &target)?;
        let endpoint = settings.control_endpoint.as_deref();
        let endpoint = endpoint.map(|text| access.endpoint(text, &settings.region)).transpose()?;
        Ok(Self { access, settings, endpoint, client: Mutex::default(), data_plane })
    }

    async fn client(&self) -> Client {
        let mut made = self.client.lock().await;
        if let Some(client) = &*made {
            return client.clone();
        }
        let settings = &self.settings;
        let config = self.access.config(&settings.region, settings.role.as_ref()).await;
        let mut builder = Builder::from(&config);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint_url(endpoint.clone());
        }
        made.insert(Client::from_conf(builder.build())).clone()
    }

    /// What failed; credentials that do are asked for again at the next call.
    async fn failed<E>(&self, error: &SdkError<E>) -> AwsFailure
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let failed = failure_of(error);
        if failed.is_of_credentials() {
            *self.client.lock().await = None;
        }
        failed
    }

    /// The host of the data plane.
    pub(crate) async fn data_endpoint(&self) -> Result<String, AwsFailure> {
        let asked =
            self.client().await.describe_endpoint().endpoint_type("iot:Data-ATS").send().await;
        match asked {
            Ok(answer) => answer.endpoint_address.ok_or_else(|| incomplete("an endpoint")),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    /// Keys and a certificate, not active.
    pub(crate) async fn create_certificate(&self) -> Result<Made, AwsFailure> {
        let asked =
            self.client().await.create_keys_and_certificate().set_as_active(false).send().await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => return Err(self.failed(&error).await),
        };
        let key = answer.key_pair.and_then(|pair| pair.private_key);
        match (answer.certificate_id, answer.certificate_arn, answer.certificate_pem, key) {
            (Some(id), Some(arn), Some(certificate), Some(key)) => {
                let private_key = Zeroizing::new(key);
                Ok(Made { id, arn, pair: KeyPair { certificate, private_key } })
            }
            _ => Err(incomplete("a certificate")),
        }
    }

    pub(crate) async fn create_thing(&self, name: &str) -> Result<(), AwsFailure> {
        let attributes = self.settings.attributes.clone();
        let payload =
            AttributePayload::builder().set_attributes(Some(attributes.into_iter().collect()));
        let asked = self
            .client()
            .await
            .create_thing()
            .thing_name(name)
            .set_thing_type_name(self.settings.thing_type.clone())
            .attribute_payload(payload.build())
            .send()
            .await;
        match asked {
            Ok(_) => Ok(()),
            Err(error) => match self.failed(&error).await {
                // With other attributes or another type: then it is the customer's own.
                failed if is(&failed, "ResourceAlreadyExistsException") => Ok(()),
                failed => Err(failed),
            },
        }
    }

    /// Attaches the policy to the certificate; makes the policy if there is none.
    pub(crate) async fn attach_policy(&self, certificate_arn: &str) -> Result<(), AwsFailure> {
        match self.attach_existing_policy(certificate_arn).await {
            Err(failed) if is(&failed, "ResourceNotFoundException") => {}
            other => return other,
        }
        self.create_policy(certificate_arn).await?;
        self.attach_existing_policy(certificate_arn).await
    }

    async fn attach_existing_policy(&self, certificate_arn: &str) -> Result<(), AwsFailure> {
        let name = self.settings.policy_name.clone();
        let client = self.client().await;
        let asked = client.attach_policy().policy_name(name).target(certificate_arn).send().await;
        match asked {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    async fn create_policy(&self, certificate_arn: &str) -> Result<(), AwsFailure> {
        let name = self.settings.policy_name.clone();
        let document = policy(certificate_arn).ok_or_else(|| incomplete("the ARN"))?;
        let client = self.client().await;
        let asked = client.create_policy().policy_name(name).policy_document(document).send().await;
        match asked {
            Ok(_) => Ok(()),
            Err(error) => match self.failed(&error).await {
                // Another SIM was faster.
                failed if is(&failed, "ResourceAlreadyExistsException") => Ok(()),
                failed => Err(failed),
            },
        }
    }

    pub(crate) async fn attach_thing(&self, name: &str, arn: &str) -> Result<(), AwsFailure> {
        let client = self.client().await;
        let asked = client.attach_thing_principal().thing_name(name).principal(arn).send().await;
        match asked {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    pub(crate) async fn switch(&self, certificate_id: &str, on: bool) -> Result<(), AwsFailure> {
        let status = if on { CertificateStatus::Active } else { CertificateStatus::Inactive };
        let client = self.client().await;
        let asked = client
            .update_certificate()
            .certificate_id(certificate_id)
            .new_status(status)
            .send()
            .await;
        match asked {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    pub(crate) async fn announce(&self, message: String) -> Result<(), AwsFailure> {
        match &self.settings.registration_topic {
            Some(topic) => self.data_plane.publish(topic, Bytes::from(message), None).await,
            None => Ok(()),
        }
    }
}

fn is(failed: &AwsFailure, code: &str) -> bool {
    failed.code.as_deref() == Some(code)
}

fn incomplete(what: &str) -> AwsFailure {
    let text = format!("aws answered without {what}");
    AwsFailure { failure: Failure::new(FailureClass::Status, text), code: None, after: None }
}

/// The documented policy, for the partition, region and account of a certificate: a device
/// connects under the name of its Thing, and uses the topics below that name.
fn policy(certificate_arn: &str) -> Option<String> {
    let (account, _) = certificate_arn.rsplit_once(":cert/")?;
    let thing = "${iot:Connection.Thing.ThingName}";
    let allow = |actions: &[&str], resource: String| serde_json::json!({"Effect": "Allow", "Action": actions, "Resource": resource});
    let document = serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [
            allow(&["iot:Connect"], format!("{account}:client/{thing}")),
            allow(&["iot:Publish", "iot:Receive"], format!("{account}:topic/{thing}/*")),
            allow(&["iot:Subscribe"], format!("{account}:topicfilter/{thing}/*")),
        ],
    });
    Some(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_of_the_account_of_the_certificate() {
        let document = policy("arn:aws-cn:iot:cn-north-1:123456789012:cert/abc").unwrap();
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let resources: Vec<_> = (0..3)
            .map(|index| document["Statement"][index]["Resource"].as_str().unwrap().to_owned())
            .collect();
        let account = "arn:aws-cn:iot:cn-north-1:123456789012";
        let thing = "${iot:Connection.Thing.ThingName}";
        assert_eq!(
            resources,
            [
                format!("{account}:client/{thing}"),
                format!("{account}:topic/{thing}/*"),
                format!("{account}:topicfilter/{thing}/*"),
            ]
        );
        assert_eq!(policy("nothing"), None);
    }
}
