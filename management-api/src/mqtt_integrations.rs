//! Integrations with an MQTT broker: simgate's own, because the documented platform has none.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cloud_integrator::{
    CONNECTIONS_MAX, Integration as StoredIntegration, InvalidIntegration, MqttTarget,
    NewIntegration, Target,
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::ManagementApi;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Id, JsonBody, present};
use crate::integration_details::IntegrationDetails;
use crate::integration_options::{CommonChange, DeliveryChange, TlsChange, set};
use crate::integrations::{WantedEventType, apply, change_tls, make, of_kind, wanted};

/// An MQTT integration to be created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MqttCreate {
    /// The customer's name for it.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// What it wants, at least one.
    #[schema(min_items = 1)]
    event_types: Vec<WantedEventType>,
    /// Whether payloads that are valid JSON are sent as JSON.
    #[serde(default)]
    json_payload_enabled: bool,
    /// The broker.
    #[schema(example = "mqtts://broker.example.com:8883")]
    url: String,
    /// The client's name before the number of its connection; without it one of the gateway's.
    client_id: Option<String>,
    /// For brokers that ask for one.
    username: Option<String>,
    /// For brokers that ask for one. It is never shown again.
    password: Option<String>,
    /// What TLS needs beside the system's authorities.
    tls: Option<TlsChange>,
    /// Topics by the name of the event type, with placeholders; others have the documented topics.
    #[serde(default)]
    topics: BTreeMap<String, String>,
    /// A template for payloads; without it the event itself.
    payload: Option<String>,
    /// Connections at the same time; default 1.
    connections: Option<usize>,
    /// Publishes per second on each connection at most; without it there is no limit.
    publishes_per_second: Option<u32>,
    /// How events are delivered.
    delivery: Option<DeliveryChange>,
    /// Whether it waits from the beginning, until it is resumed.
    #[serde(default)]
    paused: bool,
}

/// A change of an MQTT integration; what is absent stays, and what is `null` is removed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MqttChange {
    /// All event types anew, at least one.
    event_types: Option<Vec<WantedEventType>>,
    /// Whether payloads that are valid JSON are sent as JSON.
    json_payload_enabled: Option<bool>,
    /// The broker.
    url: Option<String>,
    /// The client's name before the number of its connection.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    client_id: Option<Option<String>>,
    /// The user.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    username: Option<Option<String>>,
    /// The password. It is never shown again.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    password: Option<Option<String>>,
    /// What TLS needs beside the system's authorities.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<TlsChange>)]
    tls: Option<Option<TlsChange>>,
    /// All topics anew.
    topics: Option<BTreeMap<String, String>>,
    /// A template for payloads.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    payload: Option<Option<String>>,
    /// Connections at the same time.
    connections: Option<usize>,
    /// Publishes per second on each connection at most.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    publishes_per_second: Option<Option<u32>>,
    /// How events are delivered.
    delivery: Option<DeliveryChange>,
    /// Whether the integration waits. What it wants is kept meanwhile.
    paused: Option<bool>,
}

impl MqttChange {
    fn make(self, integration: &mut StoredIntegration) -> Result<(), InvalidIntegration> {
        let (event_types, json_payload_enabled) = (self.event_types, self.json_payload_enabled);
        let delivery = self.delivery;
        CommonChange { event_types, json_payload_enabled, delivery }.make(integration)?;
        let kind = integration.target.kind();
        let Target::Mqtt(mqtt) = &mut integration.target else {
            return Err(InvalidIntegration::Kind { kind, what: "broker" });
        };
        set(&mut mqtt.url, self.url);
        set(&mut mqtt.client_id, self.client_id);
        set(&mut mqtt.username, self.username);
        set(&mut mqtt.password, self.password);
        change_tls(&mut mqtt.tls, self.tls);
        set(&mut mqtt.topics, self.topics);
        set(&mut mqtt.payload, self.payload);
        set(&mut mqtt.connections, self.connections);
        set(&mut mqtt.publishes_per_second, self.publishes_per_second);
        Ok(())
    }
}

/// Create an MQTT integration. It gets what is received from now on.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/mqtt",
    operation_id = "createMqttIntegration", tag = "simgate",
    request_body = MqttCreate,
    responses(
        (status = 201, description = "The integration.", body = IntegrationDetails),
        (status = 409, description = "Another integration is the same client of this broker, or \
            there are too many.", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(api): State<ManagementApi>,
    JsonBody(new): JsonBody<MqttCreate>,
) -> Result<(StatusCode, Json<IntegrationDetails>), ApiError> {
    let target = MqttTarget {
        url: new.url,
        client_id: new.client_id,
        username: new.username,
        password: new.password,
        tls: TlsChange::tls(new.tls),
        topics: new.topics,
        payload: new.payload,
        connections: connection_count(new.connections.unwrap_or(1))?,
        publishes_per_second: new.publishes_per_second,
    };
    let integration = NewIntegration {
        name: new.name,
        target: Target::Mqtt(target),
        event_types: wanted(new.event_types),
        json_payload_enabled: new.json_payload_enabled,
        delivery: DeliveryChange::options(new.delivery),
    };
    make(&api, integration, new.paused).await
}

/// Change an MQTT integration. Its name cannot be changed.
#[utoipa::path(
    patch, path = "/simgate/v1/integrations/mqtt/{integrationId}",
    operation_id = "changeMqttIntegration", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    request_body = MqttChange,
    responses(
        (status = 200, description = "The integration as it is now.", body = IntegrationDetails),
        (status = 409, description = "Another integration is the same client of this broker.",
            body = ErrorBody),
    )
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    Id(id): Id,
    JsonBody(change): JsonBody<MqttChange>,
) -> Result<Json<IntegrationDetails>, ApiError> {
    change.connections.map(connection_count).transpose()?;
    of_kind(&api, &id, "MQTT").await?;
    let paused = change.paused;
    let edit = |integration: &mut StoredIntegration| change.make(integration);
    apply(&api, &id, paused, edit).await.map(Json)
}

/// Checks a number of connections: what is stored as 0 would be one.
pub(crate) fn connection_count(connections: usize) -> Result<usize, ApiError> {
    if (1..=CONNECTIONS_MAX).contains(&connections) {
        return Ok(connections);
    }
    let message = format!("{connections} connections");
    Err(ApiError::field("connections", message, format!("1 to {CONNECTIONS_MAX}")))
}
