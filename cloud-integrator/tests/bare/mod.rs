//! Integrations that exist in the store alone: their forwarders are the test's.

use std::time::Duration;

use cloud_integrator::{EventTypes, Store, Subscription};

use crate::world::{World, sealer, webhook};

/// Creates one; gives the store and its id.
pub(crate) async fn bare_integration(world: &World) -> (Store, String) {
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    let created = integrations.create(webhook("http://127.0.0.1:9/")).await.unwrap();
    integrations.shutdown(Duration::ZERO).await;
    (Store::open(&world.file, sealer()).unwrap(), created.id)
}

pub(crate) fn everything() -> Subscription {
    Subscription { event_types: EventTypes::ALL, json_payload_enabled: false }
}
