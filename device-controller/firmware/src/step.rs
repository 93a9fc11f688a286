//! What is asked of a device, and what comes back.

use std::fmt;
use std::sync::Arc;

use vocabulary::Iccid;

/// The paths of LwM2M that an update reads and writes.
pub mod path {
    /// Package: the image itself, written by the gateway (push).
    pub const PACKAGE: &str = "/5/0/0";
    /// Package URI: where the device fetches the image (pull).
    pub const PACKAGE_URI: &str = "/5/0/1";
    /// Update: installs what was downloaded.
    pub const UPDATE: &str = "/5/0/2";
    /// State: 0 idle, 1 downloading, 2 downloaded, 3 updating.
    pub const STATE: &str = "/5/0/3";
    /// Update Result: 0 initial, 1 success, 2 to 9 failures.
    pub const RESULT: &str = "/5/0/5";
    /// Firmware Update Protocol Support: 0 CoAP, 1 CoAPS, several allowed; optional.
    pub const PROTOCOLS: &str = "/5/0/8";
    /// Firmware Update Delivery Method: 0 pull, 1 push, 2 both.
    pub const DELIVERY: &str = "/5/0/9";
    /// Firmware Version of the object Device; optional.
    pub const VERSION: &str = "/3/0/3";
}

/// One thing to ask of a device.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// Read a resource.
    Read(&'static str),
    /// Write a text into a resource.
    WriteText {
        /// The resource.
        path: &'static str,
        /// The text.
        value: String,
    },
    /// Write bytes into a resource, block-wise.
    WriteOpaque {
        /// The resource.
        path: &'static str,
        /// The bytes, shared with everyone else who sends them.
        image: Arc<[u8]>,
    },
    /// Execute a resource without arguments.
    Execute(&'static str),
    /// Observe a resource.
    Observe(&'static str),
    /// Observe it no more.
    CancelObserve(&'static str),
}

/// A step for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOrder {
    /// Names the step when its outcome is told. Never used twice in the life of a process.
    pub serial: u64,
    /// The device.
    pub iccid: Iccid,
    /// What to do.
    pub step: Step,
}

/// The code of a CoAP answer: three bits of class, five of detail (RFC 7252 §3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

/// A value that a device reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Number(i64),
    /// The instances of a multiple resource, as whole numbers.
    Numbers(Vec<i64>),
    /// A text.
    Text(String),
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// The device answered.
    Answered {
        /// The code of the answer.
        code: Code,
        /// What a read or an observe found.
        value: Option<Value>,
    },
    /// The device did not answer: the step is repeated when it wakes.
    Unreachable,
    /// The device is not registered: the step is repeated when it is.
    NotRegistered,
    /// The gateway itself could not send it, with the reason.
    Invalid(String),
}

impl Step {
    /// The resource that the step is about.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Read(path) | Self::Execute(path) => path,
            Self::Observe(path) | Self::CancelObserve(path) => path,
            Self::WriteText { path, .. } | Self::WriteOpaque { path, .. } => path,
        }
    }
}

/// Without the bytes of an image.
impl fmt::Debug for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path) => write!(formatter, "Read {path}"),
            Self::WriteText { path, value } => write!(formatter, "WriteText {path} {value:?}"),
            Self::WriteOpaque { path, image } => {
                write!(formatter, "WriteOpaque {path}, {} bytes", image.len())
            }
            Self::Execute(path) => write!(formatter, "Execute {path}"),
            Self::Observe(path) => write!(formatter, "Observe {path}"),
            Self::CancelObserve(path) => write!(formatter, "CancelObserve {path}"),
        }
    }
}

impl Code {
    /// 4.04: the resource does not exist.
    pub const NOT_FOUND: Self = Self(0x84);

    /// Whether the device did as asked (class 2).
    pub fn is_success(self) -> bool {
        self.0 >> 5 == 2
    }
}

/// As in `4.04`.
impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:02}", self.0 >> 5, self.0 & 31)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Value {
    /// The value of the resource at `path` in a flat JSON object as the LwM2M server decodes it:
    /// `{"/5/0/3":1}`, and for a multiple resource `{"/5/0/8/0":0,"/5/0/8/1":1}`.
    pub fn in_report(path: &str, report: &[u8]) -> Option<Self> {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(report).ok()?;
        Self::in_object(path, &object)
    }

    pub(crate) fn in_object(
        path: &str,
        object: &serde_json::Map<String, serde_json::Value>,
    ) -> Option<Self> {
        if let Some(value) = object.get(path) {
            return Self::from_json(value);
        }
        let instances: Vec<i64> = object
            .iter()
            .filter(|(key, _)| {
                let rest = key.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'));
                rest.is_some_and(|instance| instance.parse::<u16>().is_ok())
            })
            .filter_map(|(_, value)| value.as_i64())
            .collect();
        (!instances.is_empty()).then_some(Self::Numbers(instances))
    }

    fn from_json(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::Number(number) => number.as_i64().map(Self::Number),
            serde_json::Value::String(text) => Some(Self::Text(text.clone())),
            serde_json::Value::Array(items) => {
                Some(Self::Numbers(items.iter().filter_map(serde_json::Value::as_i64).collect()))
            }
            _ => None,
        }
    }

    /// The number, also where a device reports it as text.
    pub fn as_number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Numbers(numbers) => numbers.first().copied(),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }

    /// All numbers.
    pub(crate) fn numbers(&self) -> Vec<i64> {
        match self {
            Self::Numbers(numbers) => numbers.clone(),
            other => other.as_number().into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_class_and_detail() {
        assert_eq!(Code::NOT_FOUND.to_string(), "4.04");
        assert_eq!(Code(0x45).to_string(), "2.05");
        assert!(Code(0x44).is_success() && !Code(0xA0).is_success());
    }

    #[test]
    fn values_are_found_in_flat_reports() {
        let report = br#"{"/5/0/3":2,"/5/0/8/0":0,"/5/0/8/1":1,"/3/0/3":"1.2","/5/0/5":"4"}"#;
        assert_eq!(Value::in_report(path::STATE, report), Some(Value::Number(2)));
        assert_eq!(Value::in_report(path::PROTOCOLS, report), Some(Value::Numbers(vec![0, 1])));
        assert_eq!(Value::in_report(path::VERSION, report), Some(Value::Text("1.2".to_owned())));
        let result = Value::in_report(path::RESULT, report).unwrap();
        assert_eq!(result.as_number(), Some(4));
        assert_eq!(Value::in_report(path::DELIVERY, report), None);
        assert_eq!(Value::in_report(path::STATE, b"[1"), None);
    }
}
