//! The bodies of requests to devices, and what they are checked for.

use device_controller::{
    Action, COAP_PAYLOAD_BYTES_MAX, CoapAction, CoapMethod, LWM2M_DATA_BYTES_MAX, Lwm2mAction,
    Lwm2mOperation, Mode, OperationError, Payload, PayloadType, SEND_ATTEMPTS_MAX,
    UDP_PAYLOAD_BYTES_MAX, UdpAction,
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorDetail};

/// Characters of a path, as documented.
const PATH_CHARS_MAX: usize = 255;
/// Characters that a path may have beside letters and digits, as documented.
const PATH_CHARS: &str = "-._~%:/?#@!$&'()*+,;=";
/// Addresses of one composite operation: an estimate of what fits into one CoAP message.
const COMPOSITE_MAX: usize = 32;
/// The last id that LwM2M uses (LwM2M 1.1 core §7.1; 65535 is reserved).
const LWM2M_ID_MAX: u32 = 65_534;

/// A datagram for a device.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct UdpActionBody {
    /// What to send: at most 508 bytes.
    #[schema(example = "Data to send to the device")]
    payload: String,
    /// `STRING` or `BASE64`.
    #[schema(example = "STRING")]
    payload_type: String,
    /// Where the device listens.
    #[schema(minimum = 1, maximum = 65535, example = 3000)]
    port: i64,
    /// `SEND_NOW` (the default) or `SEND_WHEN_ACTIVE`.
    #[schema(example = "SEND_NOW")]
    request_mode: Option<String>,
}

/// A CoAP request for a device.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CoapActionBody {
    /// What to send: at most 1,024 bytes.
    #[schema(example = "Data to send to the device")]
    payload: Option<String>,
    /// `STRING` (the default) or `BASE64`.
    #[schema(example = "STRING")]
    payload_type: Option<String>,
    /// Where the device listens.
    #[schema(minimum = 1, maximum = 65535, example = 3000)]
    port: i64,
    /// The path, which may end with a query.
    #[schema(
        example = "/example?param1=query_param_example",
        pattern = "^[a-zA-Z0-9\\-._~%:/?#@!$&'()*+,;=]{0,255}$"
    )]
    path: String,
    /// `GET`, `POST`, `PUT`, `DELETE` or `PATCH`.
    #[schema(example = "POST")]
    request_type: String,
    /// `SEND_NOW` (the default) or `SEND_WHEN_ACTIVE`.
    #[schema(example = "SEND_NOW")]
    request_mode: Option<String>,
    /// How often to send it, at one activity of the device each, until there is an answer. More
    /// than 1 only with `SEND_WHEN_ACTIVE`.
    #[schema(minimum = 1, maximum = 5, default = 1)]
    send_attempts: Option<i64>,
}

/// An LwM2M operation for a device.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Lwm2mActionBody {
    /// `read`, `write`, `execute`, `observe-start` or `observe-end`; beyond the documented API also
    /// `create`, `delete`, `discover`, `write-attributes`, `write-update`, `read-composite` and
    /// `observe-composite`.
    #[schema(example = "write")]
    action: String,
    /// The object, instance or resource; of composite actions several, with commas between.
    #[schema(example = "/3311/0/5850")]
    resource_address: String,
    /// What to write, create or set; the arguments of `execute`.
    #[schema(example = "Data to send to the device")]
    data: Option<String>,
    /// `SEND_NOW` (the default) or `SEND_WHEN_ACTIVE`.
    #[schema(example = "SEND_WHEN_ACTIVE")]
    request_mode: Option<String>,
    /// How often to send it, at one activity of the device each, until there is an answer. More
    /// than 1 only with `SEND_WHEN_ACTIVE`.
    #[schema(minimum = 1, maximum = 5, default = 1)]
    send_attempts: Option<i64>,
}

/// An action for several devices.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Bulk<T> {
    /// The devices' ICCIDs, 1 to 100.
    #[schema(min_items = 1, max_items = 100)]
    pub(crate) device_ids: Vec<String>,
    #[serde(flatten)]
    pub(crate) action: T,
}

/// A body that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) action: Action,
    pub(crate) mode: Mode,
    pub(crate) send_attempts: u8,
}

/// A body that asks for an action.
pub(crate) trait ActionBody {
    /// Checks it.
    fn check(self) -> Result<Wanted, ApiError>;
}

impl ActionBody for UdpActionBody {
    fn check(self) -> Result<Wanted, ApiError> {
        let kind = payload_type(&self.payload_type)?;
        let payload = payload(&self.payload, kind, UDP_PAYLOAD_BYTES_MAX)?;
        let action = Action::Udp(UdpAction { port: port(self.port)?, payload });
        Ok(Wanted { action, mode: mode(self.request_mode.as_deref())?, send_attempts: 1 })
    }
}

impl ActionBody for CoapActionBody {
    fn check(self) -> Result<Wanted, ApiError> {
        let kind = self.payload_type.as_deref().map_or(Ok(PayloadType::Text), payload_type)?;
        let payload = self.payload.map(|text| payload(&text, kind, COAP_PAYLOAD_BYTES_MAX));
        let method = self.request_type.parse::<CoapMethod>().map_err(|_| {
            let message = format!("request type {:?} is not known", self.request_type);
            ApiError::field("requestType", message, "GET, POST, PUT, DELETE, PATCH")
        })?;
        let mode = mode(self.request_mode.as_deref())?;
        let action = Action::Coap(CoapAction {
            port: port(self.port)?,
            method,
            path: path(self.path)?,
            payload: payload.transpose()?,
        });
        Ok(Wanted { action, mode, send_attempts: send_attempts(self.send_attempts, mode)? })
    }
}

impl ActionBody for Lwm2mActionBody {
    fn check(self) -> Result<Wanted, ApiError> {
        let operation = Lwm2mOperation::parse(&self.action, self.data.as_deref());
        let operation = operation.map_err(|error| operation_error(&error))?;
        let length = operation.data().map_or(0, str::len);
        if length > LWM2M_DATA_BYTES_MAX {
            let message = format!("data of {length} bytes is not allowed");
            let allowed = format!("at most {LWM2M_DATA_BYTES_MAX} bytes");
            return Err(ApiError::field("data", message, allowed));
        }
        let resource_address = resource_address(self.resource_address, &operation)?;
        let mode = mode(self.request_mode.as_deref())?;
        let action = Action::Lwm2m(Lwm2mAction { resource_address, operation });
        Ok(Wanted { action, mode, send_attempts: send_attempts(self.send_attempts, mode)? })
    }
}

fn operation_error(error: &OperationError) -> ApiError {
    let message = error.to_string();
    match error {
        OperationError::Unknown(_) => {
            ApiError::field("action", message, Lwm2mOperation::NAMES.join(", "))
        }
        OperationError::DataMissing(_) | OperationError::DataForbidden(_) => {
            let mut detail = ErrorDetail::new(message);
            detail.field = Some("data".to_owned());
            ApiError::new(axum::http::StatusCode::BAD_REQUEST, detail)
        }
    }
}

fn mode(text: Option<&str>) -> Result<Mode, ApiError> {
    match text {
        None | Some("SEND_NOW") => Ok(Mode::SendNow),
        Some("SEND_WHEN_ACTIVE") => Ok(Mode::SendWhenActive),
        Some(other) => {
            let message = format!("request mode {other:?} is not known");
            Err(ApiError::field("requestMode", message, "SEND_NOW, SEND_WHEN_ACTIVE"))
        }
    }
}

fn port(number: i64) -> Result<u16, ApiError> {
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| {
        ApiError::field("port", format!("port {number} is not allowed"), "1 to 65535")
    })
}

fn payload_type(text: &str) -> Result<PayloadType, ApiError> {
    match text {
        "STRING" => Ok(PayloadType::Text),
        "BASE64" => Ok(PayloadType::Base64),
        other => {
            let message = format!("payload type {other:?} is not known");
            Err(ApiError::field("payloadType", message, "STRING, BASE64"))
        }
    }
}

fn payload(text: &str, kind: PayloadType, bytes_max: usize) -> Result<Payload, ApiError> {
    let payload = Payload::parse(text, kind)
        .map_err(|error| ApiError::field("payload", error.to_string(), "base64 (RFC 4648 §4)"))?;
    let length = payload.bytes.len();
    if length > bytes_max {
        let message = format!("payload of {length} bytes is not allowed");
        return Err(ApiError::field("payload", message, format!("at most {bytes_max} bytes")));
    }
    Ok(payload)
}

fn path(text: String) -> Result<Box<str>, ApiError> {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || PATH_CHARS.contains(letter);
    let length = text.chars().count();
    let message = match text.chars().find(|letter| !is_allowed(*letter)) {
        Some(letter) => format!("path holds {letter:?}"),
        None if length > PATH_CHARS_MAX => format!("path of {length} characters is not allowed"),
        None => return Ok(text.into()),
    };
    let allowed = format!("at most {PATH_CHARS_MAX} of a-z, A-Z, 0-9 and {PATH_CHARS}");
    Err(ApiError::field("path", message, allowed))
}

fn send_attempts(number: Option<i64>, mode: Mode) -> Result<u8, ApiError> {
    let number = number.unwrap_or(1);
    let attempts = u8::try_from(number).ok().filter(|it| (1..=SEND_ATTEMPTS_MAX).contains(it));
    match (attempts, mode) {
        (Some(attempts), Mode::SendWhenActive) => Ok(attempts),
        (Some(1), Mode::SendNow) => Ok(1),
        (Some(_), Mode::SendNow) => {
            let message = format!("sendAttempts {number} is not allowed with SEND_NOW");
            Err(ApiError::field("sendAttempts", message, "1, or SEND_WHEN_ACTIVE"))
        }
        (None, _) => {
            let message = format!("sendAttempts {number} is not allowed");
            Err(ApiError::field("sendAttempts", message, format!("1 to {SEND_ATTEMPTS_MAX}")))
        }
    }
}

fn resource_address(text: String, operation: &Lwm2mOperation) -> Result<Box<str>, ApiError> {
    let is_legal = if operation.is_composite() {
        text.split(',').count() <= COMPOSITE_MAX && text.split(',').all(is_lwm2m_path)
    } else {
        is_lwm2m_path(&text)
    };
    if is_legal {
        return Ok(text.into());
    }
    let cut: String = text.chars().take(64).collect();
    let mut allowed = format!("1 to 4 numbers of 0 to {LWM2M_ID_MAX}, e.g. /3311/0/5850");
    if operation.is_composite() {
        allowed.push_str(&format!("; up to {COMPOSITE_MAX} of them with commas between"));
    }
    Err(ApiError::field("resourceAddress", format!("{cut:?} is no address"), allowed))
}

/// An object, an instance, a resource or an instance of a resource.
fn is_lwm2m_path(text: &str) -> bool {
    let Some(ids) = text.strip_prefix('/') else { return false };
    let is_id = |id: &str| {
        let is_number = (1..=5).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
        is_number && id.parse::<u32>().is_ok_and(|id| id <= LWM2M_ID_MAX)
    };
    (1..=4).contains(&ids.split('/').count()) && ids.split('/').all(is_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_one_to_four_numbers() {
        for good in ["/3", "/3/0", "/3311/0/5850", "/5/0/7/65534"] {
            assert!(is_lwm2m_path(good), "{good}");
        }
        for bad in ["", "/", "3/0", "/3/", "//3", "/3/0/1/2/3", "/65535", "/+3", "/3/a", "/000003"]
        {
            assert!(!is_lwm2m_path(bad), "{bad}");
        }
    }

    #[test]
    fn only_composite_actions_have_several_addresses() {
        let several = || "/3/0/0,/4".to_owned();
        assert!(resource_address(several(), &Lwm2mOperation::ReadComposite).is_ok());
        assert!(resource_address(several(), &Lwm2mOperation::Read).is_err());
        let many = vec!["/3"; COMPOSITE_MAX + 1].join(",");
        assert!(resource_address(many, &Lwm2mOperation::ObserveComposite).is_err());
    }
}
