//! The rollout of AWS integrations: created first, told later where events go.
//!
//! As in 1NCE OS: creating one gives a token that is valid for an hour; whoever sets the AWS side up
//! (a stack, or a person) hands it back together with the role that was made.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Integrations, now};
use crate::integration::{ChangeError, CreateError, Integration, IntegrationState, NewIntegration};
use crate::store::{Rollout, Store, StoreError};
use crate::target::{AwsTarget, AwsTransport, Target};

/// How long a rollout waits for its end, as documented.
pub const ROLLOUT_TIME: Duration = Duration::from_secs(3_600);

/// Random bytes of a token: as many as nobody guesses.
const TOKEN_BYTES: usize = 32;

/// What ends a rollout.
#[derive(Debug, Clone)]
pub struct AwsRollout {
    /// The token that creating the integration gave.
    pub token: String,
    /// Where events go.
    pub target: AwsTarget,
}

impl Integrations {
    /// Creates an AWS integration that does not know yet where events go. The token that ends its
    /// rollout is returned; only its digest is kept.
    ///
    /// # Errors
    /// As [`Integrations::create`].
    pub async fn begin_rollout(
        &self,
        new: NewIntegration,
    ) -> Result<(Integration, String), CreateError> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| StoreError::Random(error.to_string()))?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let integration = self.create_in(new, IntegrationState::RolloutStarted, false).await?;
        let (id, kept) = (integration.id.clone(), token.clone());
        let until = now().saturating_add(ROLLOUT_TIME);
        self.stored(move |store| store.set_rollout(&id, Rollout { token: &kept, until })).await?;
        Ok((integration, token))
    }

    /// Ends a rollout: from now on the integration delivers what the log has received since it was
    /// created.
    ///
    /// # Errors
    /// Where no rollout waits for the token, or the target is not valid.
    pub async fn finish_rollout(&self, rollout: AwsRollout) -> Result<Integration, ChangeError> {
        let AwsRollout { token, target } = rollout;
        let all = self.clone();
        self.change(|mut engine| async move {
            let found = all.stored(move |store| store.find_rollout(&token, now())).await?;
            let id = found.ok_or_else(|| ChangeError::NotFound("of this token".to_owned()))?;
            let mut integration = all.found(&id).await?;
            integration.target = Target::Aws(with_external_id(target, &id));
            // As it will be: what is not valid must not end the rollout.
            integration.state = IntegrationState::RolloutDone;
            all.update(&mut engine, integration).await?;
            let done = IntegrationState::RolloutDone;
            let row = id.clone();
            all.stored(move |store: &Store| store.set_state(&row, done, None)).await?;
            all.run_anew(&mut engine, &id).await
        })
        .await
    }
}

/// Where a role is to be assumed and nothing else is said, the integration is its external id: so
/// the role is of no use to another integration of the same gateway (docs/aws.md).
fn with_external_id(mut target: AwsTarget, id: &str) -> AwsTarget {
    if let AwsTransport::Sdk { role_arn: Some(_), external_id: external_id @ None } =
        &mut target.transport
    {
        *external_id = Some(id.to_owned());
    }
    target
}
