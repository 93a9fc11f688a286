//! simgate's own view of stored messages: each with all that is known of it, also those that no
//! template could translate; and payloads by link.

use axum::Json;
use axum::extract::{FromRequestParts as _, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use inspector::{HistoryQuery, MessageView, TemplateChoice, Translation};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::EventId;

use crate::access::unix_now_s;
use crate::administration_logs::payload_of;
use crate::api::{ManagementApi, blocking};
use crate::devices::protocol;
use crate::error::{ApiError, ErrorDetail};
use crate::extract::{Id, Params, iccid};
use crate::history::{TokenPage, history_error, page_size, page_token};
use crate::times::AskedSpan;

/// A stored message with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    /// The id, as in the header of a webhook.
    #[schema(example = "msg_01GM0H4V0Q0123456789ABCDEF")]
    id: String,
    /// The same id in the form of the event envelope.
    #[schema(example = "1-6393505d-67fa8489fb9c791fcddd43f0")]
    trace_id: String,
    /// The number among the messages of the device, from 1 and without gaps.
    sequence: u64,
    /// When it was received, in UTC.
    #[schema(example = "2022-12-09T15:12:29.915Z")]
    received: String,
    /// The device.
    iccid: String,
    /// Its subscriber, where it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    imsi: Option<String>,
    /// The source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    /// What vouched for the device: `sim_ip`, `dtls_psk` or `dtls_psk+sim_ip`.
    identity_class: &'static str,
    /// The data session that the device had, where one was known: the `id` in the list of its
    /// sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 4_711)]
    session: Option<u64>,
    /// `UDP`, `COAP` or `LWM2M`.
    protocol: &'static str,
    /// The topic, where the device named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// When the device measured it, where it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<String>,
    /// The version of the template that was active when it arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    template_version: Option<u32>,
    /// The bytes that the device sent, in base64.
    payload: String,
    /// What a template makes of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    translation: Option<MessageTranslation>,
}

/// What a template makes of a message: `json` or `error`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageTranslation {
    /// The version of the template.
    template_version: u32,
    /// Compact JSON as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<String>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only of this device.
    iccid: Option<String>,
    /// RFC 3339; received at or after. Without it seven days before the end.
    start_date_time: Option<String>,
    /// RFC 3339; received before. Without it now.
    end_date_time: Option<String>,
    /// Messages on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 25, default = 10)]
    page_size: Option<String>,
    /// `UDP`, `COAP` or `LWM2M`, in any case.
    protocol: Option<String>,
    /// A token of another page.
    next_token: Option<String>,
    /// Which template translates: `ofItsDay`, the one that was active when a message arrived, or
    /// `newest`.
    #[param(default = "ofItsDay")]
    template: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FindParams {
    /// Which template translates: `ofItsDay`, the one that was active when the message arrived, or
    /// `newest`.
    #[param(default = "ofItsDay")]
    template: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LinkParams {
    /// When the link ends, in seconds since 1970.
    expires: u64,
    /// What makes the link valid.
    signature: String,
}

impl From<MessageView> for Message {
    fn from(view: MessageView) -> Self {
        Self {
            id: view.id.to_string(),
            trace_id: view.id.trace(),
            sequence: view.seq,
            received: view.received_at.to_string(),
            iccid: view.iccid.to_string(),
            imsi: view.imsi.map(|imsi| imsi.to_string()),
            ip: view.ip.map(|ip| ip.to_string()),
            identity_class: view.class.as_str(),
            session: view.session,
            protocol: view.protocol.as_str(),
            topic: view.topic,
            measured: view.measured.map(|measured| measured.to_string()),
            template_version: view.template,
            payload: STANDARD.encode(&view.payload),
            translation: translation(view.translation),
        }
    }
}

fn translation(translation: Translation) -> Option<MessageTranslation> {
    match translation {
        Translation::Raw => None,
        Translation::Json { version, json } => {
            Some(MessageTranslation { template_version: version, json: Some(json), error: None })
        }
        Translation::Failed { version, error } => {
            Some(MessageTranslation { template_version: version, json: None, error: Some(error) })
        }
    }
}

/// List stored messages with all that is known of them, the newest first.
///
/// Unlike the history this shows messages that no template could translate, too.
#[utoipa::path(
    get, path = "/simgate/v1/messages",
    operation_id = "listMessages", tag = "simgate", params(ListParams),
    responses(
        (status = 200, description = "A page of messages.", body = TokenPage<Message>),
        (status = 410, description = "The messages of this page were deleted.",
            body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(params): Params<ListParams>,
) -> Result<Json<TokenPage<Message>>, ApiError> {
    let span =
        AskedSpan::parse(params.start_date_time.as_deref(), params.end_date_time.as_deref())?;
    let query = HistoryQuery {
        device: params.iccid.as_deref().map(|text| iccid("iccid", text)).transpose()?,
        protocol: params.protocol.as_deref().map(protocol).transpose()?,
        from: span.start(),
        until: span.end(),
        page_size: page_size(params.page_size.as_deref())?,
        token: params.next_token.as_deref().map(page_token).transpose()?,
    };
    let choice = template_choice(params.template.as_deref())?;
    let inspector = api.services().inspector.clone();
    let page = blocking("reading messages", move || inspector.messages(&query, choice))
        .await?
        .map_err(history_error)?;
    let items = page.items.into_iter().map(Message::from).collect();
    Ok(Json(TokenPage::new(items, page.next, page.first)))
}

/// One stored message with all that is known of it.
#[utoipa::path(
    get, path = "/simgate/v1/messages/{messageId}",
    operation_id = "getMessage", tag = "simgate",
    params(("messageId" = String, Path, description = "The id, in either form."), FindParams),
    responses((status = 200, description = "The message.", body = Message))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(text): Id,
    Params(params): Params<FindParams>,
) -> Result<Json<Message>, ApiError> {
    let id = event_id("messageId", &text)?;
    let choice = template_choice(params.template.as_deref())?;
    let inspector = api.services().inspector.clone();
    let found = blocking("finding a message", move || inspector.message(id, choice))
        .await?
        .map_err(|error| ApiError::internal("finding a message", error))?;
    found.map(|view| Json(view.into())).ok_or_else(|| ApiError::not_found("message", id))
}

/// The payload behind a link of the administration log.
///
/// The link itself is the permission: it needs no token, and ends after a few minutes.
#[utoipa::path(
    get, path = "/simgate/v1/payloads/{logId}",
    operation_id = "getLinkedPayload", tag = "simgate", security(()),
    params(("logId" = String, Path, description = "The entry's id."), LinkParams),
    responses(
        (status = 200, description = "The payload.", body = [u8],
            content_type = "application/octet-stream"),
        (status = 403, description = "The link is over, or not one of ours.",
            body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn linked_payload(
    State(api): State<ManagementApi>,
    mut parts: Parts,
) -> Result<Response, ApiError> {
    let Path(text) = Path::<String>::from_request_parts(&mut parts, &api)
        .await
        .map_err(|rejection| ApiError::bad_request(rejection.to_string()))?;
    let Params(LinkParams { expires, signature }) =
        Params::from_request_parts(&mut parts, &api).await?;
    let id = event_id("logId", &text)?;
    if !api.links().verify(id, expires, &signature, unix_now_s()) {
        let detail = ErrorDetail::new("the link is over, or was changed");
        return Err(ApiError::new(StatusCode::FORBIDDEN, detail));
    }
    let payload = payload_of(&api, id).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.bin\"")),
    ];
    Ok((headers, payload).into_response())
}

/// Reads the id of an event, in either of its forms.
pub(crate) fn event_id(field: &str, text: &str) -> Result<EventId, ApiError> {
    text.parse().map_err(|_| {
        let message = format!("{:?} is not an id", text.chars().take(64).collect::<String>());
        ApiError::field(field, message, "msg_ and 26 characters, or 1-<8 hex>-<24 hex>")
    })
}

fn template_choice(text: Option<&str>) -> Result<TemplateChoice, ApiError> {
    match text {
        None | Some("ofItsDay") => Ok(TemplateChoice::OfItsDay),
        Some("newest") => Ok(TemplateChoice::Newest),
        Some(other) => {
            let message = format!("template {other:?} is not allowed");
            Err(ApiError::field("template", message, "ofItsDay, newest"))
        }
    }
}
