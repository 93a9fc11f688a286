//! What a device sent, and its form in the message log.
//!
//! Layout of a telemetry body, integers little-endian:
//!
//! ```text
//! format u8 = 1 | protocol u8 | identity class u8 | flags u8
//! imsi u64      if flag 0x01
//! ip 4 bytes    if flag 0x02      ip 16 bytes   if flag 0x04
//! template u32  if flag 0x08
//! exchange u128 if flag 0x10
//! topic length u8, topic          if flag 0x20
//! measured i64, microseconds since 1970   if flag 0x40
//! session u64   if flag 0x80
//! payload: the rest
//! ```
//!
//! The device itself (the ICCID) is the record's key and not repeated.

use std::net::IpAddr;

use crate::event::MalformedEvent;
use crate::{Iccid, Identity, IdentityClass, Imsi, Protocol, Timestamp, Topic};

/// One message of a device, as it was received: the payload is raw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telemetry<'a> {
    /// The device's SIM.
    pub identity: Identity,
    /// What vouched for the identity.
    pub class: IdentityClass,
    /// The protocol that it arrived by.
    pub protocol: Protocol,
    /// The topic of a CoAP message.
    pub topic: Option<&'a str>,
    /// The version of the template that was active for the protocol when the message arrived.
    pub template: Option<u32>,
    /// Digest of the CoAP exchange (device, message id, token, payload), by which a
    /// retransmission after a restart is known.
    pub exchange: Option<u128>,
    /// When the device measured it, where the protocol says so; of LwM2M values with a time.
    pub measured: Option<Timestamp>,
    /// The data session that the device had: the place in the log of the report that opened it.
    pub session: Option<u64>,
    /// The bytes that the device sent.
    pub payload: &'a [u8],
}

const FORMAT: u8 = 1;
const HAS_IMSI: u8 = 0x01;
const HAS_IPV4: u8 = 0x02;
const HAS_IPV6: u8 = 0x04;
const HAS_TEMPLATE: u8 = 0x08;
const HAS_EXCHANGE: u8 = 0x10;
const HAS_TOPIC: u8 = 0x20;
const HAS_MEASURED: u8 = 0x40;
const HAS_SESSION: u8 = 0x80;
/// The longest header: 4 fixed bytes and every optional field but the topic's text.
const HEADER_BYTES_MAX: usize = 4 + 8 + 16 + 4 + 16 + 1 + 8 + 8;

impl<'a> Telemetry<'a> {
    /// The body for the message log.
    pub fn encode(&self) -> Vec<u8> {
        let topic = self.topic.unwrap_or("");
        let mut body = Vec::with_capacity(HEADER_BYTES_MAX + topic.len() + self.payload.len());
        body.extend_from_slice(&[FORMAT, self.protocol.code(), self.class.code(), self.flags()]);
        if let Some(imsi) = self.identity.imsi {
            body.extend_from_slice(&imsi.as_u64().to_le_bytes());
        }
        match self.identity.ip {
            Some(IpAddr::V4(ip)) => body.extend_from_slice(&ip.octets()),
            Some(IpAddr::V6(ip)) => body.extend_from_slice(&ip.octets()),
            None => {}
        }
        if let Some(template) = self.template {
            body.extend_from_slice(&template.to_le_bytes());
        }
        if let Some(exchange) = self.exchange {
            body.extend_from_slice(&exchange.to_le_bytes());
        }
        if self.topic.is_some() {
            // A topic has at most 253 characters of one byte.
            body.push(u8::try_from(topic.len()).unwrap_or(u8::MAX));
            body.extend_from_slice(&topic.as_bytes()[..topic.len().min(usize::from(u8::MAX))]);
        }
        if let Some(measured) = self.measured {
            body.extend_from_slice(&measured.as_micros().to_le_bytes());
        }
        if let Some(session) = self.session {
            body.extend_from_slice(&session.to_le_bytes());
        }
        body.extend_from_slice(self.payload);
        body
    }

    fn flags(&self) -> u8 {
        let bit = |present: bool, flag: u8| if present { flag } else { 0 };
        bit(self.identity.imsi.is_some(), HAS_IMSI)
            | bit(matches!(self.identity.ip, Some(IpAddr::V4(_))), HAS_IPV4)
            | bit(matches!(self.identity.ip, Some(IpAddr::V6(_))), HAS_IPV6)
            | bit(self.template.is_some(), HAS_TEMPLATE)
            | bit(self.exchange.is_some(), HAS_EXCHANGE)
            | bit(self.topic.is_some(), HAS_TOPIC)
            | bit(self.measured.is_some(), HAS_MEASURED)
            | bit(self.session.is_some(), HAS_SESSION)
    }

    /// Reads a body that [`Telemetry::encode`] wrote for the device `iccid`.
    pub fn decode(iccid: Iccid, body: &'a [u8]) -> Result<Self, MalformedEvent> {
        let mut fields = Fields(body);
        let [format, protocol, class, flags] = fields.take::<4>()?;
        if format != FORMAT {
            return Err(MalformedEvent::Format(format));
        }
        let has = |flag: u8| flags & flag != 0;
        let imsi =
            if has(HAS_IMSI) { Imsi::from_u64(u64::from_le_bytes(fields.take()?)) } else { None };
        let ip = if has(HAS_IPV4) {
            Some(IpAddr::from(fields.take::<4>()?))
        } else if has(HAS_IPV6) {
            Some(IpAddr::from(fields.take::<16>()?))
        } else {
            None
        };
        let template =
            if has(HAS_TEMPLATE) { Some(u32::from_le_bytes(fields.take()?)) } else { None };
        let exchange =
            if has(HAS_EXCHANGE) { Some(u128::from_le_bytes(fields.take()?)) } else { None };
        let topic = if has(HAS_TOPIC) { Some(fields.topic()?) } else { None };
        let measured = if has(HAS_MEASURED) {
            Some(Timestamp::from_micros(i64::from_le_bytes(fields.take()?)))
        } else {
            None
        };
        let session =
            if has(HAS_SESSION) { Some(u64::from_le_bytes(fields.take()?)) } else { None };
        Ok(Self {
            identity: Identity { iccid, imsi, ip },
            class: IdentityClass::from_code(class)
                .ok_or(MalformedEvent::Value("identity class"))?,
            protocol: Protocol::from_code(protocol).ok_or(MalformedEvent::Value("protocol"))?,
            topic,
            template,
            exchange,
            measured,
            session,
            payload: fields.0,
        })
    }

    /// The topic as its own value.
    pub fn topic_owned(&self) -> Option<Topic> {
        self.topic.and_then(|topic| topic.parse().ok())
    }
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], MalformedEvent> {
        let (head, rest) = self.0.split_first_chunk().ok_or(MalformedEvent::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn topic(&mut self) -> Result<&'a str, MalformedEvent> {
        let [length] = self.take()?;
        let (text, rest) =
            self.0.split_at_checked(usize::from(length)).ok_or(MalformedEvent::Short)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| MalformedEvent::Value("topic"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Telemetry<'static> {
        Telemetry {
            identity: Identity {
                iccid: "8988280666000002864".parse().unwrap(),
                imsi: Some("901405100002864".parse().unwrap()),
                ip: Some([100, 91, 200, 24].into()),
            },
            class: IdentityClass::SimIp,
            protocol: Protocol::Coap,
            topic: Some("some/topic"),
            template: Some(7),
            exchange: Some(u128::MAX - 1),
            measured: Some(Timestamp::from_millis(1_670_598_749_915)),
            session: Some(u64::MAX),
            payload: &[1, 2, 3],
        }
    }

    #[test]
    fn a_body_comes_back() {
        let mut telemetry = full();
        let iccid = telemetry.identity.iccid;
        assert_eq!(Telemetry::decode(iccid, &telemetry.encode()), Ok(telemetry));
        telemetry.identity.ip = Some("2001:db8::1".parse().unwrap());
        telemetry.topic = None;
        assert_eq!(Telemetry::decode(iccid, &telemetry.encode()), Ok(telemetry));
        telemetry.identity.ip = None;
        telemetry.identity.imsi = None;
        telemetry.template = None;
        telemetry.exchange = None;
        telemetry.measured = None;
        telemetry.session = None;
        telemetry.payload = &[];
        assert_eq!(Telemetry::decode(iccid, &telemetry.encode()), Ok(telemetry));
        assert_eq!(telemetry.encode().len(), 4);
    }

    #[test]
    fn a_cut_header_is_refused() {
        let telemetry = full();
        let body = telemetry.encode();
        for length in 0..body.len() - telemetry.payload.len() {
            assert!(Telemetry::decode(telemetry.identity.iccid, &body[..length]).is_err());
        }
    }
}
