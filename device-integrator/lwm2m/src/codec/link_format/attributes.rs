//! Attributes of a link in an answer to Discover (LwM2M Core 1.1 §5.1.2, §5.4.2).

use crate::excerpt::Excerpt;

use super::scanner::{Link, LinkFormatError, Text};

/// Attributes that say when a value is reported, and what a path holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes {
    /// `pmin`: least time between two notifications, in seconds.
    pub pmin_seconds: Option<u32>,
    /// `pmax`: most time between two notifications, in seconds.
    pub pmax_seconds: Option<u32>,
    /// `epmin`: least time between two measurements, in seconds (1.1).
    pub epmin_seconds: Option<u32>,
    /// `epmax`: most time between two measurements, in seconds (1.1).
    pub epmax_seconds: Option<u32>,
    /// `gt`: a notification when the value rises above it or falls back.
    pub greater_than: Option<f64>,
    /// `lt`: a notification when the value falls below it or rises back.
    pub less_than: Option<f64>,
    /// `st`: a notification when the value changes by this much.
    pub step: Option<f64>,
    /// `dim`: how many instances a resource has.
    pub dimension: Option<u32>,
    /// `ssid`: the short id of the server that an instance of object 0 or 1 belongs to.
    pub short_server_id: Option<u16>,
    /// `ver`: the version of an object.
    pub version: Option<super::ObjectVersion>,
    /// Other parameters, which this crate does not interpret.
    pub others: Vec<Attribute>,
}

/// A parameter without a meaning here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: Box<str>,
    /// Its value without quotation marks and escapes; `None` if it has none.
    pub value: Option<Box<str>>,
}

impl Attributes {
    pub(super) fn of(link: &Link<'_>) -> Result<Self, LinkFormatError> {
        let mut attributes = Self::default();
        for (name, value) in &link.parameters {
            let parameter = Parameter { target: link.target, value: *value };
            match *name {
                "pmin" => attributes.pmin_seconds = Some(parameter.number("pmin")?),
                "pmax" => attributes.pmax_seconds = Some(parameter.number("pmax")?),
                "epmin" => attributes.epmin_seconds = Some(parameter.number("epmin")?),
                "epmax" => attributes.epmax_seconds = Some(parameter.number("epmax")?),
                "gt" => attributes.greater_than = Some(parameter.float("gt")?),
                "lt" => attributes.less_than = Some(parameter.float("lt")?),
                "st" => attributes.step = Some(parameter.float("st")?),
                "dim" => attributes.dimension = Some(parameter.number("dim")?),
                "ssid" => attributes.short_server_id = Some(parameter.number("ssid")?),
                "ver" => attributes.version = Some(parameter.version()?),
                _ => attributes.others.push(Attribute {
                    name: (*name).into(),
                    value: value.map(|value| value.unescaped().into()),
                }),
            }
        }
        Ok(attributes)
    }
}

impl Text<'_> {
    /// The value without escapes.
    pub(super) fn unescaped(self) -> String {
        let mut text = String::with_capacity(self.raw.len());
        let mut chars = self.raw.chars();
        while let Some(char) = chars.next() {
            let is_escape = self.is_quoted && char == '\\';
            text.push(if is_escape { chars.next().unwrap_or(char) } else { char });
        }
        text
    }
}

/// A parameter that has a meaning; numbers may stand in quotation marks, as devices write them.
pub(super) struct Parameter<'a> {
    pub(super) target: &'a str,
    pub(super) value: Option<Text<'a>>,
}

impl Parameter<'_> {
    pub(super) fn raw(&self) -> &str {
        self.value.map_or("", |value| value.raw)
    }

    fn refused(&self, name: &'static str, expected: &'static str) -> LinkFormatError {
        let (target, value) = (Excerpt::of(self.target), Excerpt::of(self.raw()));
        LinkFormatError::Parameter { target, name, value, expected }
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, LinkFormatError> {
        let digits = self.raw();
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_plain { digits.parse().ok() } else { None };
        number.ok_or_else(|| self.refused(name, "a number"))
    }

    fn float(&self, name: &'static str) -> Result<f64, LinkFormatError> {
        let number: Option<f64> = self.raw().parse().ok();
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.refused(name, "a finite number"))
    }

    pub(super) fn version(&self) -> Result<super::ObjectVersion, LinkFormatError> {
        super::ObjectVersion::parse(self.raw())
            .ok_or_else(|| self.refused("ver", "a version such as 1.1"))
    }
}
