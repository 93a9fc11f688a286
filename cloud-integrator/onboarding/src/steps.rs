//! The way of one SIM, step by step.

use std::time::SystemTime;

use cloud_integrator::{AwsFailure, FailureClass};
use serde_json::json;
use thiserror::Error;
use vocabulary::{Iccid, Timestamp};

use crate::onboarding::Inner;
use crate::store::{Device, Step, StoreError};

/// Why a SIM got no further.
#[derive(Debug, Error)]
pub(crate) enum Hindrance {
    /// AWS, or the way there.
    #[error("{}", .0.failure)]
    Aws(AwsFailure),
    /// AWS does not take the message about the SIM, which is made for it already.
    #[error("{}", .0.failure)]
    Message(AwsFailure),
    /// Ourselves.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AwsFailure> for Hindrance {
    fn from(failure: AwsFailure) -> Self {
        Self::Aws(failure)
    }
}

impl Hindrance {
    /// Whether it meets every SIM alike.
    pub(crate) fn is_of_all(&self) -> bool {
        match self {
            Self::Store(_) => true,
            // A role may do all but publish to this one topic. What every SIM meets, others tell
            // by their earlier steps.
            Self::Message(_) => false,
            Self::Aws(failed) => !matches!(
                failed.failure.class,
                FailureClass::Request
                    | FailureClass::Status
                    | FailureClass::Refused
                    | FailureClass::TooLarge
                    | FailureClass::Gone
            ),
        }
    }
}

impl Inner {
    /// Does all steps that are left for a SIM. Each is recorded before the next begins.
    pub(crate) async fn onboard(&self, iccid: Iccid) -> Result<(), Hindrance> {
        self.know_endpoint().await?;
        loop {
            let Some(device) = self.stored(move |store| store.find(iccid)).await? else {
                return Ok(());
            };
            let next = match device.step {
                Step::Certificate => {
                    self.make_certificate(iccid).await?;
                    continue;
                }
                Step::Thing => {
                    self.cloud.create_thing(&iccid.to_string()).await?;
                    Step::Policy
                }
                Step::Policy => {
                    self.cloud.attach_policy(&device.certificate_arn).await?;
                    Step::Principal
                }
                Step::Principal => {
                    let name = iccid.to_string();
                    self.cloud.attach_thing(&name, &device.certificate_arn).await?;
                    Step::Switch
                }
                Step::Switch => {
                    self.cloud.switch(&device.certificate_id, device.wanted_active).await?;
                    Step::Announce
                }
                Step::Announce => {
                    let message = registration(&device);
                    self.cloud.announce(message).await.map_err(Hindrance::Message)?;
                    Step::Done
                }
                Step::Done => return Ok(()),
            };
            self.stored(move |store| store.advance(&device, next)).await?;
        }
    }

    async fn make_certificate(&self, iccid: Iccid) -> Result<(), Hindrance> {
        let made = self.cloud.create_certificate().await?;
        let keep =
            move |store: &crate::store::Store| store.keep(iccid, (&made.id, &made.arn), &made.pair);
        Ok(self.stored(keep).await?)
    }

    /// Asks the account once for the host that devices are told.
    async fn know_endpoint(&self) -> Result<(), Hindrance> {
        if self.data_endpoint().await?.is_some() {
            return Ok(());
        }
        let (place, host) = (self.place(), self.cloud.data_endpoint().await?);
        Ok(self.stored(move |store| store.keep_endpoint(&place, &host)).await?)
    }
}

/// The documented message.
fn registration(device: &Device) -> String {
    let message = if device.wanted_active { "SIM enabled" } else { "SIM disabled" };
    json!({
        "iccid": device.iccid.to_string(),
        "ip": device.ip.map(|ip| ip.to_string()),
        "timestamp": Timestamp::from(SystemTime::now()).as_millis(),
        "message": message,
    })
    .to_string()
}
