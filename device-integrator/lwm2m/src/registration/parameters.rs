//! The query of registrations, updates and bootstrap requests (OMA LwM2M Core 1.1 §6.2.1, §6.1).

use std::fmt;

use coap::wire::{Code, ContentFormat};
use vocabulary::Iccid;

use super::Version;
use crate::excerpt::Excerpt;

/// The letters of a binding and the bits that stand for them.
const TRANSPORTS: [(char, u8); 6] = [('U', 1), ('M', 2), ('H', 4), ('T', 8), ('S', 16), ('N', 32)];
/// The bit of queue mode.
const QUEUE: u8 = 0x80;

/// How a device is reached: its transports, and whether it sleeps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    bits: u8,
}

impl Binding {
    /// Whether the device sleeps and is reached only after it was heard (queue mode).
    pub const fn is_queued(self) -> bool {
        self.bits & QUEUE != 0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.bits
    }

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        let known = TRANSPORTS.iter().fold(QUEUE, |known, (_, bit)| known | bit);
        (bits & !known == 0).then_some(Self { bits })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bits = 0;
        for letter in text.chars() {
            let transport = TRANSPORTS.iter().find(|(known, _)| *known == letter);
            bits |= match transport {
                Some((_, bit)) => *bit,
                // LwM2M 1.0 writes queue mode into the binding, 1.1 as a parameter of its own.
                None if letter == 'Q' => QUEUE,
                None => return None,
            };
        }
        Some(Self { bits })
    }
}

impl Default for Binding {
    /// UDP without queue mode, which a registration without a binding means.
    fn default() -> Self {
        Self { bits: 1 }
    }
}

impl fmt::Display for Binding {
    /// As LwM2M 1.0 writes it: `U`, `UQ`, `US`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, bit) in TRANSPORTS {
            if self.bits & bit != 0 {
                write!(formatter, "{letter}")?;
            }
        }
        formatter.write_str(if self.is_queued() { "Q" } else { "" })
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Why a request is answered with an error, in words for who reads the device's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) reason: String,
}

impl Refused {
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    pub(crate) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(Code::BAD_REQUEST, reason)
    }
}

/// What a query says; parts that are not known are left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) endpoint: Option<String>,
    pub(crate) lifetime_seconds: Option<u32>,
    pub(crate) version: Option<Version>,
    pub(crate) binding: Option<Binding>,
    pub(crate) queue: bool,
    pub(crate) sms: Option<String>,
    pub(crate) preferred: Option<ContentFormat>,
}

impl Parameters {
    /// Reads the parts of a query; `None` is a part that is not UTF-8.
    pub(crate) fn read<'a>(
        queries: impl Iterator<Item = Option<&'a str>>,
    ) -> Result<Self, Refused> {
        let mut parameters = Self::default();
        for query in queries {
            let query = query.ok_or_else(|| Refused::bad_request("the query is not UTF-8"))?;
            let (name, value) = query.split_once('=').unwrap_or((query, ""));
            parameters.note(name, value)?;
        }
        if parameters.queue {
            let binding = parameters.binding.unwrap_or_default();
            parameters.binding = Some(Binding { bits: binding.bits | QUEUE });
        }
        Ok(parameters)
    }

    /// Whether the endpoint name is that of the device; without one the device is named by its
    /// SIM or its key (LwM2M Core 1.1 §6.2.1).
    pub(crate) fn names(&self, iccid: Iccid) -> bool {
        self.endpoint.as_ref().is_none_or(|name| name.parse() == Ok(iccid))
    }

    fn note(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        match name {
            "ep" => self.endpoint = Some(value.to_owned()),
            "lt" => self.lifetime_seconds = Some(lifetime(value)?),
            "lwm2m" => self.version = Some(version(value)?),
            "b" => {
                let binding = Binding::parse(value).ok_or_else(|| {
                    let found = Excerpt::of(value);
                    Refused::bad_request(format!("b is {found}, allowed: letters of UMHTSNQ"))
                })?;
                self.binding = Some(binding);
            }
            "Q" => self.queue = true,
            "sms" if value.len() > SMS_BYTES_MAX => {
                return Err(Refused::bad_request(format!(
                    "sms of {} bytes exceeds the limit of {SMS_BYTES_MAX}",
                    value.len()
                )));
            }
            "sms" => self.sms = Some(value.to_owned()),
            // One that cannot be read is a preference for something else.
            "pct" => self.preferred = value.parse().ok().map(ContentFormat),
            _ => {}
        }
        Ok(())
    }
}

/// E.164 has 15 digits; the rest is punctuation.
const SMS_BYTES_MAX: usize = 32;

fn lifetime(text: &str) -> Result<u32, Refused> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(seconds @ 1..) if digits => Ok(seconds),
        _ => Err(Refused::bad_request(format!(
            "lt is {}, allowed: 1 to 4294967295 seconds",
            Excerpt::of(text)
        ))),
    }
}

fn version(text: &str) -> Result<Version, Refused> {
    match text {
        "1.0" => Ok(Version::V1_0),
        "1.1" => Ok(Version::V1_1),
        // LwM2M Core 1.1 table 6.4.3-1: the version is not supported.
        _ => Err(Refused::new(
            Code::PRECONDITION_FAILED,
            format!("lwm2m is {}, supported: 1.0 and 1.1", Excerpt::of(text)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Parameters, Refused> {
        Parameters::read(query.split('&').map(Some))
    }

    #[test]
    fn the_queries_of_known_clients_are_read() {
        let zephyr = read("lwm2m=1.0&lt=120&ep=8988280666000002864&b=UQ").unwrap();
        assert_eq!(zephyr.version, Some(Version::V1_0));
        assert_eq!(zephyr.lifetime_seconds, Some(120));
        assert!(zephyr.binding.unwrap().is_queued());
        assert_eq!(zephyr.binding.unwrap().to_string(), "UQ");
        let newer = read("lwm2m=1.1&b=U&Q&sms=%2B491").unwrap();
        assert!(newer.binding.unwrap().is_queued() && newer.sms.is_some());
        assert!(newer.names("8988280666000002864".parse().unwrap()));
        assert_eq!(read("pct=110").unwrap().preferred, Some(ContentFormat::SENML_JSON));
    }

    #[test]
    fn lifetimes_of_zero_and_2_to_the_32_are_refused_with_what_is_allowed() {
        for text in ["0", "4294967296", "-1", "+5", "", "1e3"] {
            let refused = read(&format!("lt={text}")).unwrap_err();
            assert_eq!(refused.code, Code::BAD_REQUEST);
            assert!(refused.reason.ends_with("allowed: 1 to 4294967295 seconds"), "{refused:?}");
        }
        assert_eq!(read("lt=4294967295").unwrap().lifetime_seconds, Some(u32::MAX));
    }

    #[test]
    fn other_versions_bindings_and_endpoint_names_are_refused() {
        assert_eq!(read("lwm2m=1.2").unwrap_err().code, Code::PRECONDITION_FAILED);
        assert_eq!(read("b=X").unwrap_err().code, Code::BAD_REQUEST);
        let refused = Parameters::read([None].into_iter()).unwrap_err();
        assert_eq!(refused.code, Code::BAD_REQUEST);
        let iccid = "8988280666000002864".parse().unwrap();
        assert!(!read("ep=urn:imei:490154203237518").unwrap().names(iccid));
        assert!(!read("ep=8988280666000002865").unwrap().names(iccid));
    }
}
