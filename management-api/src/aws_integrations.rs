//! Integrations with AWS IoT Core.
//!
//! As documented, one is created first and told later where events go: whoever sets up the side of
//! AWS hands the token of its creation back. Who knows everything at once can say so at once.

use axum::Json;
use axum::extract::{Extension, FromRequest as _, Request, State};
use axum::http::StatusCode;
use cloud_integrator::{
    AwsRollout, AwsTarget, AwsTransport, ChangeError, ClientTls, Integration as StoredIntegration,
    IntegrationState, NewIntegration, Target,
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::ManagementApi;
use crate::connection::Peer;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Id, JsonBody};
use crate::integration_details::IntegrationDetails;
use crate::integration_errors::{change_error, create_error};
use crate::integration_options::{CommonChange, DeliveryChange};
use crate::integrations::{WantedEventType, apply, make, of_kind, wanted};
use crate::mqtt_integrations::connection_count;

/// The port of MQTT over TLS.
const MQTT_PORT: u16 = 8_883;
/// A rollout holds a few short texts.
const ROLLOUT_BYTES_MAX: usize = 16_384;

/// An AWS integration to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AwsCreate {
    /// The customer's name for it.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// What it wants, at least one.
    #[schema(min_items = 1)]
    event_types: Vec<WantedEventType>,
    /// Whether payloads that are valid JSON are sent as JSON.
    #[serde(default)]
    json_payload_enabled: bool,
    /// How events are delivered.
    delivery: Option<DeliveryChange>,
    /// Where events go, if that is known now; otherwise the rollout says it within an hour.
    aws: Option<AwsAddress>,
    /// Whether it waits from the beginning, until it is resumed; together with `aws` alone.
    #[serde(default)]
    paused: bool,
}

/// A change of an AWS integration; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AwsChange {
    /// All event types anew, at least one.
    event_types: Option<Vec<WantedEventType>>,
    /// Whether payloads that are valid JSON are sent as JSON.
    json_payload_enabled: Option<bool>,
    /// How events are delivered.
    delivery: Option<DeliveryChange>,
    /// Where events go, as a whole anew.
    aws: Option<AwsAddress>,
    /// Whether the integration waits. What it wants is kept meanwhile.
    paused: Option<bool>,
}

/// Where events go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AwsAddress {
    /// The region.
    #[schema(example = "eu-central-1")]
    region: String,
    /// The account, to be shown.
    #[schema(example = "123456789012")]
    account_id: Option<String>,
    /// The host of the data plane; without it the region's, which only the HTTPS API has.
    #[schema(example = "abc123-ats.iot.eu-central-1.amazonaws.com")]
    endpoint: Option<String>,
    /// The way there.
    transport: AwsTransportChoice,
}

/// The way to AWS.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "UPPERCASE", deny_unknown_fields)]
pub(crate) enum AwsTransportChoice {
    /// By the HTTPS API, with the gateway's own credentials or a role that they may assume.
    #[serde(rename_all = "camelCase")]
    Sdk {
        /// The role.
        #[schema(example = "arn:aws:iam::123456789012:role/simgate")]
        role_arn: Option<String>,
        /// What the role asks for beside the gateway's identity; without it the integration's id.
        external_id: Option<String>,
    },
    /// By MQTT, with a certificate that AWS IoT Core knows.
    #[serde(rename_all = "camelCase")]
    Mqtt {
        /// The certificate, in PEM.
        certificate: String,
        /// Its key, in PEM. It is never shown again.
        private_key: String,
        /// 8883 (the default), or 443 with ALPN.
        port: Option<u16>,
        /// Connections at the same time; default 1.
        connections: Option<usize>,
    },
}

/// What ends a rollout.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AwsRolloutEnd {
    /// The token of the integration's creation.
    jwt: String,
    /// The region.
    #[schema(example = "eu-central-1")]
    region: String,
    /// The role that the gateway is to assume. A rollout needs one.
    #[schema(example = "arn:aws:iam::123456789012:role/simgate")]
    role_arn: Option<String>,
    /// What the role asks for beside the gateway's identity; without it the integration's id.
    external_id: Option<String>,
    /// The account, to be shown.
    #[schema(example = "123456789012")]
    account_id: Option<String>,
    /// The host of the data plane; without it the region's, which only the HTTPS API has.
    #[schema(example = "abc123-ats.iot.eu-central-1.amazonaws.com")]
    endpoint: Option<String>,
}

impl AwsAddress {
    fn target(self) -> Result<AwsTarget, ApiError> {
        let Self { region, account_id, endpoint, transport } = self;
        let transport = match transport {
            AwsTransportChoice::Sdk { role_arn, external_id } => by_role(role_arn, external_id)?,
            AwsTransportChoice::Mqtt { certificate, private_key, port, connections } => {
                AwsTransport::Mqtt {
                    tls: ClientTls {
                        roots_pem: None,
                        certificate_pem: Some(certificate),
                        key_pem: Some(private_key),
                    },
                    port: port.unwrap_or(MQTT_PORT),
                    connections: connection_count(connections.unwrap_or(1))?,
                }
            }
        };
        Ok(AwsTarget { region, account_id, endpoint, transport })
    }
}

impl AwsRolloutEnd {
    fn rollout(self) -> Result<AwsRollout, ApiError> {
        let Self { jwt, region, role_arn, external_id, account_id, endpoint } = self;
        let transport = by_role(role_arn, external_id)?;
        let target = AwsTarget { region, account_id, endpoint, transport };
        Ok(AwsRollout { token: jwt, target })
    }
}

/// The HTTPS API, with a role or without one.
fn by_role(
    role_arn: Option<String>,
    external_id: Option<String>,
) -> Result<AwsTransport, ApiError> {
    if external_id.is_some() && role_arn.is_none() {
        let message = "externalId without roleArn: nobody asks for it";
        return Err(ApiError::field("externalId", message, "together with roleArn"));
    }
    Ok(AwsTransport::Sdk { role_arn, external_id })
}

impl std::fmt::Debug for AwsTransportChoice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AwsTransportChoice").finish_non_exhaustive()
    }
}

/// Create an AWS integration. It gets what is received from now on, as soon as its rollout is done.
///
/// The `jwt` of the answer finishes the rollout within an hour. With `aws` there is no rollout.
#[utoipa::path(
    post, path = "/v1/integrate/clouds/aws",
    operation_id = "createAwsIntegration", tag = "Cloud Integrator",
    request_body = AwsCreate,
    responses(
        (status = 201, description = "The integration.", body = IntegrationDetails),
        (status = 409, description = "There are too many.", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(api): State<ManagementApi>,
    JsonBody(new): JsonBody<AwsCreate>,
) -> Result<(StatusCode, Json<IntegrationDetails>), ApiError> {
    let AwsCreate { name, event_types, json_payload_enabled, delivery, aws, paused } = new;
    let target = aws.map(AwsAddress::target).transpose()?;
    let known = target.is_some();
    if paused && !known {
        let message = "nothing is delivered before the rollout is done anyway";
        return Err(ApiError::field("paused", message, "true together with aws, or false"));
    }
    let integration = NewIntegration {
        name,
        target: Target::Aws(target.unwrap_or_default()),
        event_types: wanted(event_types),
        json_payload_enabled,
        delivery: DeliveryChange::options(delivery),
    };
    if known {
        return make(&api, integration, paused).await;
    }
    let begun = api.services().integrations.begin_rollout(integration).await;
    let (integration, jwt) = begun.map_err(create_error)?;
    Ok((StatusCode::CREATED, Json(IntegrationDetails::from(integration).with_jwt(jwt))))
}

/// Change an AWS integration. Its name cannot be changed.
#[utoipa::path(
    patch, path = "/simgate/v1/integrations/aws/{integrationId}",
    operation_id = "changeAwsIntegration", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    request_body = AwsChange,
    responses(
        (status = 200, description = "The integration as it is now.", body = IntegrationDetails),
        (status = 409, description = "The rollout is not done.", body = ErrorBody),
    )
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    Id(id): Id,
    JsonBody(change): JsonBody<AwsChange>,
) -> Result<Json<IntegrationDetails>, ApiError> {
    let state = of_kind(&api, &id, "AWS").await?.state;
    let AwsChange { event_types, json_payload_enabled, delivery, aws, paused } = change;
    let target = aws.map(AwsAddress::target).transpose()?;
    if target.is_some()
        && matches!(state, IntegrationState::RolloutStarted | IntegrationState::RolloutFailed)
    {
        let text = "where events go is said by the rollout, not by a change of the integration";
        return Err(ApiError::conflict(format!("the integration is {state}; {text}")));
    }
    let edit = move |integration: &mut StoredIntegration| {
        CommonChange { event_types, json_payload_enabled, delivery }.make(integration)?;
        if let Some(target) = target {
            integration.target = Target::Aws(target);
        }
        Ok(())
    };
    apply(&api, &id, paused, edit).await.map(Json)
}

/// Finish the rollout of an AWS integration: say where events go.
///
/// The `jwt` itself is the permission: this needs no other token.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/aws/rollout",
    operation_id = "finishAwsRollout", tag = "simgate", security(()),
    request_body = AwsRolloutEnd,
    responses(
        (status = 200, description = "The integration, which delivers now.",
            body = IntegrationDetails),
        (status = 404, description = "No rollout waits for this token: it is not known, was used, \
            or is older than an hour.", body = ErrorBody),
        (status = 429, description = "Too many requests or wrong tokens from this address.",
            body = ErrorBody, headers(("Retry-After" = u64, description = "Seconds to wait."))),
    )
)]
pub(crate) async fn finish_rollout(
    State(api): State<ManagementApi>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Json<IntegrationDetails>, ApiError> {
    api.admit_login(peer.ip).map_err(|wait| {
        ApiError::too_many_requests("this address finishes too many rollouts", wait)
    })?;
    // Only now: a stranger who is too fast gets nothing read.
    let JsonBody(end) =
        JsonBody::<AwsRolloutEnd, ROLLOUT_BYTES_MAX>::from_request(request, &api).await?;
    match api.services().integrations.finish_rollout(end.rollout()?).await {
        Ok(integration) => Ok(Json(integration.into())),
        Err(ChangeError::NotFound(_)) => {
            api.count_failed_login(peer.ip);
            let text = "of this jwt (it is not known, was used, or is older than an hour)";
            Err(ApiError::not_found("a rollout", text))
        }
        Err(error) => Err(change_error(error)),
    }
}
