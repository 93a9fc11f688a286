//! Tests of integrations, and restarts after a failure.

use bytes::Bytes;

use super::{Integrations, now};
use crate::envelope::{Stamp, test_message};
use crate::event_type::EventType;
use crate::integration::{ChangeError, Integration, IntegrationState, TestReport};
use crate::sink::{Delivery, Outcome, Sink, Subject};
use crate::sinks::Purpose;

impl Integrations {
    /// Sends a TEST_MESSAGE now. Neither state nor time of delivery change.
    ///
    /// # Errors
    /// Where there is no such integration, or it knows no target yet.
    pub async fn test(&self, id: &str) -> Result<TestReport, ChangeError> {
        let integration = self.found(id).await?;
        if matches!(
            integration.state,
            IntegrationState::RolloutStarted | IntegrationState::RolloutFailed
        ) {
            let allowed = "ROLLOUT_DONE, INTEGRATION_ACTIVE, INTEGRATION_FAILED";
            return Err(ChangeError::State { found: integration.state, allowed });
        }
        Ok(self.send_test(&integration, "Test").await)
    }

    /// Starts a failed integration again, if it takes a TEST_MESSAGE.
    ///
    /// # Errors
    /// Where there is no such integration, or it has not failed.
    pub async fn restart(&self, id: &str) -> Result<(Integration, TestReport), ChangeError> {
        let integration = self.failed(id).await?;
        let report = self.send_test(&integration, "Restart").await;
        if !report.success {
            return Ok((integration, report));
        }
        let (all, id) = (self.clone(), id.to_owned());
        let integration = self
            .change(|mut engine| async move {
                // It may have changed while the test ran.
                all.failed(&id).await?;
                let row = id.clone();
                let active = IntegrationState::IntegrationActive;
                all.stored(move |store| store.set_state(&row, active, None)).await?;
                all.run_anew(&mut engine, &id).await
            })
            .await?;
        Ok((integration, report))
    }

    async fn failed(&self, id: &str) -> Result<Integration, ChangeError> {
        let integration = self.found(id).await?;
        match integration.state {
            IntegrationState::IntegrationFailed => Ok(integration),
            found => Err(ChangeError::State { found, allowed: "INTEGRATION_FAILED" }),
        }
    }

    async fn send_test(&self, integration: &Integration, what: &str) -> TestReport {
        let sink = match self.0.sinks.sink(integration, Purpose::Test) {
            Ok(sink) => sink,
            Err(error) => return TestReport::failed(what, &error),
        };
        let received_at = now();
        let id = self.event_id(received_at);
        let body = test_message(
            Stamp { id, received_at, replayed: false },
            &integration.id,
            &integration.name,
        );
        let delivery = Delivery {
            id,
            event_type: EventType::TestMessage,
            subject: Subject::default(),
            source: None,
            topic: None,
            body: Bytes::from(body),
        };
        match sink.deliver(vec![delivery]).await {
            Outcome::Delivered => {
                TestReport { success: true, message: format!("{what} was successful") }
            }
            Outcome::Retry { reason, .. } | Outcome::Rejected { reason } => {
                TestReport::failed(what, &reason)
            }
        }
    }
}
