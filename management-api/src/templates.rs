//! Templates of the Energy Saver.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use energy_saver::{CompileError, Program, reduction};
use serde::{Deserialize, Serialize};
use template_library::{
    NewTemplate, Patch, ProtocolFilter, Status, Template as StoredTemplate, TemplateError,
};
use utoipa::ToSchema;
use vocabulary::Protocol;

use crate::api::{ManagementApi, blocking};
use crate::error::{ApiError, ErrorBody, ErrorDetail};
use crate::extract::{Id, JsonBody, TEMPLATE_BODY_BYTES_MAX};

/// A template.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Template {
    /// The id: 21 characters.
    id: String,
    /// The customer's name for it.
    name: String,
    /// The template itself: a JSON text.
    template: String,
    /// `ACTIVE` or `INACTIVE`.
    #[schema(example = "ACTIVE")]
    status: &'static str,
    /// The protocols whose messages it translates.
    #[schema(example = json!(["COAP", "UDP"]))]
    protocol_filter: Vec<&'static str>,
}

/// A template to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TemplateCreate {
    /// The customer's name for it.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// The template itself: a JSON text.
    template: String,
    /// The protocols whose messages it translates: `COAP`, `UDP` or both.
    #[schema(min_items = 1, example = json!(["COAP", "UDP"]))]
    protocol_filter: Vec<String>,
    /// `ACTIVE` or `INACTIVE` (the default).
    status: Option<String>,
}

/// A change of a template: at least one field.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TemplateChange {
    /// The customer's name for it.
    #[schema(min_length = 1, max_length = 64)]
    name: Option<String>,
    /// The template itself: a JSON text. Stored messages keep the version of their day.
    template: Option<String>,
    /// The protocols whose messages it translates.
    #[schema(min_items = 1)]
    protocol_filter: Option<Vec<String>>,
    /// `ACTIVE` or `INACTIVE`.
    status: Option<String>,
}

/// A template and a payload to try it on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateTest {
    /// The template: a JSON text.
    template: String,
    /// The payload, in base64.
    #[schema(example = "ABoANwA=")]
    payload: String,
}

/// What a template makes of a payload.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TemplateTestResult {
    /// Compact JSON as text.
    #[schema(example = "{\"Temperature\":26,\"Humidity\":55,\"Switch\":false}")]
    translated_payload: String,
    /// How many bytes shorter the payload is than the JSON.
    #[schema(example = 42)]
    reduced_bytes: i64,
    /// How much less energy sending the payload takes than sending the JSON, in percent.
    #[schema(example = 0.58)]
    energy_usage_reduction: f64,
}

impl From<StoredTemplate> for Template {
    fn from(stored: StoredTemplate) -> Self {
        Self {
            id: stored.id.to_string(),
            name: stored.name,
            template: stored.source,
            status: stored.status.as_str(),
            protocol_filter: stored.protocol_filter.protocols().map(Protocol::as_str).collect(),
        }
    }
}

/// List templates. There is at most one for each protocol, so there are no pages.
#[utoipa::path(
    get, path = "/v1/optimize/templates",
    operation_id = "listTemplates", tag = "Energy Saver",
    responses((status = 200, description = "All templates.", body = Vec<Template>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
) -> Result<Json<Vec<Template>>, ApiError> {
    let templates = api.services().templates.clone();
    let all = blocking("listing templates", move || templates.list())
        .await?
        .map_err(|error| ApiError::internal("listing templates", error))?;
    Ok(Json(all.into_iter().map(Template::from).collect()))
}

/// Create a template.
#[utoipa::path(
    post, path = "/v1/optimize/templates",
    operation_id = "createTemplate", tag = "Energy Saver", request_body = TemplateCreate,
    responses(
        (status = 201, description = "The template.", body = Template),
        (status = 409, description = "Another template has one of the protocols.",
            body = ErrorBody),
        (status = 422, description = "The template does not compile.", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(api): State<ManagementApi>,
    JsonBody(new): JsonBody<TemplateCreate, TEMPLATE_BODY_BYTES_MAX>,
) -> Result<(StatusCode, Json<Template>), ApiError> {
    let TemplateCreate { name, template, protocol_filter, status } = new;
    let new = NewTemplate {
        name,
        source: template,
        status: status.as_deref().map_or(Ok(Status::Inactive), status_of)?,
        protocol_filter: filter_of(&protocol_filter)?,
    };
    let templates = api.services().templates.clone();
    let created = blocking("creating a template", move || templates.create(new)).await?;
    Ok((StatusCode::CREATED, Json(created.map_err(template_error)?.into())))
}

/// Change a template.
#[utoipa::path(
    patch, path = "/v1/optimize/templates/{templateId}",
    operation_id = "changeTemplate", tag = "Energy Saver",
    params(("templateId" = String, Path, description = "The template's id.")),
    request_body = TemplateChange,
    responses(
        (status = 200, description = "The template as it is now.", body = Template),
        (status = 409, description = "Another template has one of the protocols.",
            body = ErrorBody),
        (status = 422, description = "The template does not compile; the old one stays.",
            body = ErrorBody),
    )
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    Id(id): Id,
    JsonBody(change): JsonBody<TemplateChange, TEMPLATE_BODY_BYTES_MAX>,
) -> Result<Json<Template>, ApiError> {
    let TemplateChange { name, template, protocol_filter, status } = change;
    let patch = Patch {
        name,
        source: template,
        status: status.as_deref().map(status_of).transpose()?,
        protocol_filter: protocol_filter.as_deref().map(filter_of).transpose()?,
    };
    if patch == Patch::default() {
        let allowed = "at least one of name, template, protocolFilter, status";
        return Err(ApiError::field("body", "the change is empty", allowed));
    }
    let templates = api.services().templates.clone();
    let changed = blocking("changing a template", move || templates.update(&id, patch)).await?;
    Ok(Json(changed.map_err(template_error)?.into()))
}

/// Delete a template. Stored messages can still be translated with it.
#[utoipa::path(
    delete, path = "/v1/optimize/templates/{templateId}",
    operation_id = "deleteTemplate", tag = "Energy Saver",
    params(("templateId" = String, Path, description = "The template's id.")),
    responses((status = 204, description = "The template is deleted."))
)]
pub(crate) async fn delete(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    let templates = api.services().templates.clone();
    let deleted = blocking("deleting a template", move || templates.delete(&id)).await?;
    deleted.map(|()| StatusCode::NO_CONTENT).map_err(template_error)
}

/// Try a template on a payload. Nothing is stored, nothing changes.
#[utoipa::path(
    post, path = "/v1/optimize/messages/test",
    operation_id = "testTemplate", tag = "Energy Saver", request_body = TemplateTest,
    responses((status = 200, description = "The translation.", body = TemplateTestResult))
)]
pub(crate) async fn test(
    JsonBody(test): JsonBody<TemplateTest, TEMPLATE_BODY_BYTES_MAX>,
) -> Result<Json<TemplateTestResult>, ApiError> {
    let payload = STANDARD.decode(test.payload.trim()).map_err(|error| {
        ApiError::field("payload", format!("payload is not base64: {error}"), "base64")
    })?;
    // A template may cost some milliseconds to compile.
    let program = blocking("trying a template", move || Program::compile(&test.template)).await?;
    let program = program.map_err(|error| compile_error(StatusCode::BAD_REQUEST, error))?;
    let translated = program.run(&payload).map_err(|error| {
        ApiError::field("payload", error.to_string(), "a payload that the template can read")
    })?;
    let reduction = reduction(translated.json.len(), payload.len());
    Ok(Json(TemplateTestResult {
        translated_payload: translated.json,
        reduced_bytes: reduction.reduced_bytes,
        energy_usage_reduction: reduction.energy_usage_reduction_percent,
    }))
}

fn status_of(text: &str) -> Result<Status, ApiError> {
    text.parse().map_err(|error: template_library::UnknownStatus| {
        ApiError::field("status", error.to_string(), "ACTIVE, INACTIVE")
    })
}

fn filter_of(names: &[String]) -> Result<ProtocolFilter, ApiError> {
    let refuse = |message: String| ApiError::field("protocolFilter", message, "COAP, UDP or both");
    let protocols = names.iter().map(|name| name.parse::<Protocol>());
    let protocols: Vec<Protocol> =
        protocols.collect::<Result<_, _>>().map_err(|error| refuse(error.to_string()))?;
    ProtocolFilter::new(protocols).map_err(|error| refuse(error.to_string()))
}

fn template_error(error: TemplateError) -> ApiError {
    match error {
        TemplateError::NotFound { id } => ApiError::not_found("template", id),
        TemplateError::Conflict { .. } | TemplateError::TooManyVersions { .. } => {
            ApiError::conflict(error.to_string())
        }
        TemplateError::Invalid(invalid) => compile_error(StatusCode::UNPROCESSABLE_ENTITY, invalid),
        TemplateError::Name { .. } => {
            ApiError::field("name", error.to_string(), "1 to 64 characters")
        }
        TemplateError::Store(_) | TemplateError::Randomness(_) => {
            ApiError::internal("changing a template", error)
        }
    }
}

/// A refusal that names the place within the template.
fn compile_error(status: StatusCode, error: CompileError) -> ApiError {
    let CompileError { path, reason } = error;
    let mut detail = ErrorDetail::new(reason.to_string());
    detail.field = Some("template".to_owned());
    detail.path = Some(path);
    ApiError::new(status, detail)
}
