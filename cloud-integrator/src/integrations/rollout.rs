//! The rollout of AWS integrations: created first, told later where events go.
//!
//! As in 1NCE OS: creating one gives a token that is valid for an hour; whoever sets the AWS side up
//! (a stack, or a person) hands it back together with the role that was made.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Integrations, now};
use crate::integration::{
    ChangeError, CreateError, Integration, IntegrationState, InvalidIntegration, NewIntegration,
};
use crate::store::{Rollout, Store, StoreError};
use crate::target::{AwsTarget, Target};

/// How long a rollout waits for its end, as documented.
pub const ROLLOUT_TIME: Duration = Duration::from_secs(3_600);

/// Random bytes of a token: as many as nobody guesses.
const TOKEN_BYTES: usize = 32;

/// What ends a rollout. The token is a secret, so it has no `Debug`.
#[derive(Clone)]
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
        let rollout = Rollout::new(&token, now().saturating_add(ROLLOUT_TIME));
        let started = IntegrationState::RolloutStarted;
        let integration = self.create_in(new, started, false, Some(rollout)).await?;
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
            // Whoever has the token alone must not use the gateway's own account.
            if target.role().is_none() {
                return Err(InvalidIntegration::NoRole.into());
            }
            let mut integration = all.found(&id).await?;
            let before = integration.clone();
            integration.target = Target::Aws(target);
            // As it will be: what is not valid must not end the rollout.
            integration.state = IntegrationState::RolloutDone;
            all.update(&mut engine, &before, integration).await?;
            let done = IntegrationState::RolloutDone;
            let row = id.clone();
            all.stored(move |store: &Store| store.set_state(&row, done, None)).await?;
            all.run_anew(&mut engine, &id).await
        })
        .await
    }
}
