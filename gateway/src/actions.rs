//! What a customer asks of a device, in the words of its protocol.

use std::net::{IpAddr, SocketAddr};

use coap::wire::{Code, ContentFormat, OptionListFull, OptionNumber};
use device_controller::{
    Action, CoapAction, CoapMethod, Lwm2mAction, Lwm2mOperation, Payload, PayloadType,
};
use device_integrator::{OrderEnd, Rider, What};
use lwm2m::{Model, Operation, Path, Record, Value, WriteContent, WriteMode};

/// What is asked of the device at `address`; an error is how the order ended.
pub(crate) fn order_of(
    action: &Action,
    address: Option<IpAddr>,
    model: &Model,
) -> Result<What, OrderEnd> {
    let to = |port| {
        let unknown = || OrderEnd::NotSent("the address of the SIM is not known".to_owned());
        address.map(|ip| SocketAddr::new(ip, port)).ok_or_else(unknown)
    };
    Ok(match action {
        Action::Udp(udp) => {
            What::Datagram { to: to(udp.port)?, payload: udp.payload.bytes.to_vec() }
        }
        Action::Coap(coap) => {
            let request = coap_request(coap).map_err(|_| {
                OrderEnd::Invalid("path and query are too long for a CoAP message".to_owned())
            })?;
            What::Request { to: to(coap.port)?, request: Box::new(request) }
        }
        Action::Lwm2m(action) => {
            What::Operation(Box::new(operation(action, model).map_err(OrderEnd::Invalid)?))
        }
    })
}

/// A command as it rides on the answer to an uplink.
pub(crate) fn rider(order: u64, action: &Action) -> Rider {
    let (path, payload) = match action {
        Action::Udp(udp) => (String::new(), Some(&udp.payload)),
        Action::Coap(coap) => (coap.path.to_string(), coap.payload.as_ref()),
        Action::Lwm2m(_) => (String::new(), None),
    };
    let format = payload.map(format_of);
    let payload = payload.map(|payload| payload.bytes.to_vec()).unwrap_or_default();
    Rider { order, path, format, payload }
}

/// An action in a few words, for a person.
pub(crate) fn describe(action: &Action) -> String {
    match action {
        Action::Udp(udp) => format!("datagram to port {}", udp.port),
        Action::Coap(coap) => format!("CoAP request to port {}, path {}", coap.port, coap.path),
        Action::Lwm2m(action) => {
            format!("{} {}", action.operation.name(), action.resource_address)
        }
    }
}

/// The devices of the documented service expect text where the customer wrote text.
fn format_of(payload: &Payload) -> ContentFormat {
    match payload.kind {
        PayloadType::Text => ContentFormat::TEXT_PLAIN,
        PayloadType::Base64 => ContentFormat::OCTET_STREAM,
    }
}

fn coap_request(action: &CoapAction) -> Result<coap::Request, OptionListFull> {
    let mut request = coap::Request::new(match action.method {
        CoapMethod::Get => Code::GET,
        CoapMethod::Post => Code::POST,
        CoapMethod::Put => Code::PUT,
        CoapMethod::Delete => Code::DELETE,
        CoapMethod::Patch => Code::PATCH,
    });
    let (path, query) = action.path.split_once('?').unwrap_or((&action.path, ""));
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        request.options.push(OptionNumber::URI_PATH, &percent_decoded(segment))?;
    }
    if let Some(payload) = &action.payload {
        let format = u32::from(format_of(payload).0);
        request.options.push_uint(OptionNumber::CONTENT_FORMAT, format)?;
        request.payload = payload.bytes.to_vec();
    }
    for part in query.split('&').filter(|part| !part.is_empty()) {
        request.options.push(OptionNumber::URI_QUERY, &percent_decoded(part))?;
    }
    Ok(request)
}

/// RFC 3986 §2.1; a percent sign that begins no escape stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut rest, mut decoded) = (text.as_bytes(), Vec::with_capacity(text.len()));
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).filter(|_| *first == b'%');
        let digits = escape.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

fn operation(action: &Lwm2mAction, model: &Model) -> Result<Operation, String> {
    let path = || action.resource_address.parse::<Path>().map_err(|error| error.to_string());
    let paths = || {
        let each = action.resource_address.split(',').map(|part| part.trim().parse::<Path>());
        each.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
    };
    Ok(match &action.operation {
        Lwm2mOperation::Read => Operation::Read { path: path()?, accept: None },
        Lwm2mOperation::Write { data } => write(path()?, data, WriteMode::Replace, model)?,
        Lwm2mOperation::WriteUpdate { data } => write(path()?, data, WriteMode::Update, model)?,
        Lwm2mOperation::Execute { arguments } => {
            let arguments = arguments.as_deref().unwrap_or_default().to_owned();
            Operation::Execute { path: path()?, arguments }
        }
        Lwm2mOperation::ObserveStart => Operation::Observe { path: path()?, accept: None },
        Lwm2mOperation::ObserveEnd => Operation::CancelObservation { path: path()? },
        Lwm2mOperation::Create { data } => {
            let path = path()?;
            Operation::Create { path, records: records(path, data, model)? }
        }
        Lwm2mOperation::Delete => Operation::Delete { path: path()? },
        Lwm2mOperation::Discover => Operation::Discover { path: path()? },
        Lwm2mOperation::WriteAttributes { attributes } => {
            let attributes = attributes.split('&').map(str::to_owned).collect();
            Operation::WriteAttributes { path: path()?, attributes }
        }
        Lwm2mOperation::ReadComposite => Operation::ReadComposite { paths: paths()? },
        Lwm2mOperation::ObserveComposite => Operation::ObserveComposite { paths: paths()? },
    })
}

/// A resource takes one value as text; an instance or an object takes a JSON object of values.
fn write(path: Path, data: &str, mode: WriteMode, model: &Model) -> Result<Operation, String> {
    let content = match path.resource_id() {
        Some(_) => WriteContent::Text(data.to_owned()),
        None => WriteContent::Records(records(path, data, model)?),
    };
    Ok(Operation::Write { path, content, mode })
}

/// The values of a JSON object whose members are paths below `base`: `{"/3311/0/5850":true}`, or
/// what is below it, `{"5850":true}`.
fn records(base: Path, data: &str, model: &Model) -> Result<Vec<Record>, String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(data)
        .map_err(|_| format!("data of {base} is no JSON object such as {{\"5850\":true}}"))?;
    let record = |(name, value): (String, serde_json::Value)| {
        let path = match name.starts_with('/') {
            true => name.parse::<Path>(),
            false if base == Path::ROOT => format!("/{name}").parse(),
            false => format!("{base}/{name}").parse(),
        };
        let path = path.map_err(|error| error.to_string())?;
        if !base.contains(&path) {
            return Err(format!("{path} is not below {base}"));
        }
        Ok(Record { path, value: value_of(path, &value, model)?, time: None })
    };
    object.into_iter().map(record).collect()
}

/// Typed by the model where it knows the resource, otherwise by the form that JSON gives it.
fn value_of(path: Path, json: &serde_json::Value, model: &Model) -> Result<Value, String> {
    let text = match json {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => json.to_string(),
        _ => return Err(format!("the value of {path} is neither text, number nor boolean")),
    };
    let known = path.object_id().zip(path.resource_id());
    let known = known.and_then(|(object, resource)| model.resource(object, resource)?.kind);
    if let Some(kind) = known {
        return Value::parse_text(kind, &text).map_err(|error| format!("{path}: {error}"));
    }
    Ok(match json {
        serde_json::Value::Bool(value) => Value::Boolean(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(float)) => Value::Float(float),
            (None, None) => return Err(format!("the value of {path} is no number")),
        },
        _ => Value::String(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_query_becomes_options() {
        let action = CoapAction {
            port: 3000,
            method: CoapMethod::Post,
            path: "/example/a%20b?param1=query_example1&x=%".into(),
            payload: Some(Payload { bytes: (*b"hi").into(), kind: PayloadType::Text }),
        };
        let request = coap_request(&action).unwrap();
        let options: Vec<_> =
            request.options.iter().map(|option| (option.number, option.value.to_vec())).collect();
        assert_eq!(
            options,
            [
                (OptionNumber::URI_PATH, b"example".to_vec()),
                (OptionNumber::URI_PATH, b"a b".to_vec()),
                (OptionNumber::CONTENT_FORMAT, vec![]),
                (OptionNumber::URI_QUERY, b"param1=query_example1".to_vec()),
                (OptionNumber::URI_QUERY, b"x=%".to_vec()),
            ]
        );
        assert_eq!(request.payload, b"hi");
    }

    #[test]
    fn values_of_an_instance_are_typed_by_its_object() {
        let model = Model::builtin();
        let base = Path::instance(3311, 0);
        let written = records(base, r#"{"5850":true,"/3311/0/5851":50}"#, &model).unwrap();
        let value = |path: Path| written.iter().find(|record| record.path == path).unwrap();
        assert_eq!(value(Path::resource(3311, 0, 5850)).value, Value::Boolean(true));
        assert_eq!(value(Path::resource(3311, 0, 5851)).value, Value::Integer(50));
        let error = records(base, r#"{"/3/0/1":"x"}"#, &model).unwrap_err();
        assert_eq!(error, "/3/0/1 is not below /3311/0");
        assert!(records(base, "on", &model).unwrap_err().contains("no JSON object"));
        assert!(records(base, r#"{"5850":[1]}"#, &model).is_err());
    }
}
