//! What customers set the side of AWS up with: a stack of the role that the gateway assumes.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{ManagementApi, PREFIX};
use crate::connection::Peer;
use crate::error::ApiError;
use crate::links::public_url;

/// The template of the stack.
const TEMPLATE: &str = include_str!("../../deploy/aws/simgate.yaml");
/// As the documented API calls the newest of its stacks.
const VERSION: &str = "v2.1";

/// What an AWS integration is set up with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AwsParameters {
    /// The stacks that there are.
    aws_integration: Vec<AwsStack>,
}

/// A stack of CloudFormation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AwsStack {
    /// Its version.
    #[schema(example = "v2.1")]
    version: &'static str,
    /// Where its template lies: on this gateway.
    #[schema(example = "https://gateway.example.com/management-api/simgate/v1/aws/template.yaml")]
    url: String,
}

/// Where the template of the stack lies that sets the side of AWS up.
#[utoipa::path(
    get, path = "/v1/integrate/clouds/aws/parameters",
    operation_id = "getAwsParameters", tag = "Cloud Integrator",
    responses((status = 200, description = "The stacks.", body = AwsParameters))
)]
pub(crate) async fn parameters(
    State(api): State<ManagementApi>,
    Extension(peer): Extension<Peer>,
    (headers, uri): (HeaderMap, Uri),
) -> Result<Json<AwsParameters>, ApiError> {
    let base = public_url(&api, peer, &headers, &uri)?;
    let url = format!("{base}{PREFIX}/simgate/v1/aws/template.yaml");
    Ok(Json(AwsParameters { aws_integration: vec![AwsStack { version: VERSION, url }] }))
}

/// The template of the stack that sets the side of AWS up, for CloudFormation.
#[utoipa::path(
    get, path = "/simgate/v1/aws/template.yaml",
    operation_id = "getAwsTemplate", tag = "simgate", security(()),
    responses((status = 200, description = "The template.", body = String,
        content_type = "application/yaml"))
)]
pub(crate) async fn template() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], TEMPLATE)
}
