//! Requests to devices: where they lie, who sends them, and what keeps them moving.
//!
//! Nobody sends yet: what is to be sent now fails, and what is scheduled waits.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use device_controller::{Controller, Dispatch, Limits, Outcome};
use tracing::warn;
use vocabulary::Timestamp;

use crate::config::Config;

/// How often requests expire and old ones are deleted; their spans are of hours.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Opens the requests in the data folder.
pub(crate) fn open(config: &Config) -> anyhow::Result<Controller> {
    // A sender reports to the controller that calls it.
    let reports_to: Arc<OnceLock<Controller>> = Arc::default();
    let slot = Arc::clone(&reports_to);
    let dispatcher = Arc::new(move |dispatch: Dispatch| {
        if let Some(controller) = slot.get() {
            let message = format!("sending by {} is not available", dispatch.action.protocol());
            controller.report(dispatch.serial, now(), Outcome::NotSent { message });
        }
    });
    let path = config.data.dir.join("actions.db");
    let controller = Controller::open(&path, Limits::default(), dispatcher)
        .context("requests to devices cannot be opened")?;
    // It was made a line above and is set once. The circle ends with the process, and the writer
    // before: when the gateway is drained.
    let _ = reports_to.set(controller.clone());
    Ok(controller)
}

/// Whether a device is registered by LwM2M: none is before there is a listener for it.
pub(crate) fn is_registered(_: vocabulary::Iccid) -> bool {
    false
}

/// Hands over what an earlier process left, then lets requests expire, for ever.
pub(crate) async fn upkeep(controller: Controller) {
    let resuming = controller.clone();
    let resumed = tokio::task::spawn_blocking(move || resuming.resume(now())).await;
    report(resumed);
    let mut due = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        due.tick().await;
        let controller = controller.clone();
        let ticked = tokio::task::spawn_blocking(move || {
            while controller.tick(now())? {}
            Ok(())
        });
        report(ticked.await);
    }
}

fn report(ended: Result<Result<(), device_controller::StoreError>, tokio::task::JoinError>) {
    if let Ok(Err(error)) = ended {
        warn!(%error, "requests to devices do not expire");
    }
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
