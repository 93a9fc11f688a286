//! From the attributes of a packet to a report.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use vocabulary::{Imei, Octets, SessionChange, SessionReport, Timestamp};

use crate::attribute;
use crate::location::UserLocation;
use crate::wire::{self, Attribute, Malformed, Packet};

/// Bytes of names that are kept: RFC 2866 gives a session's 253, and nobody uses them.
const NAME_BYTES_MAX: usize = 253;

/// Where a packet came from, and when.
pub(crate) struct Source<'a> {
    pub(crate) feed: &'a str,
    pub(crate) client: &'a str,
    pub(crate) remote: IpAddr,
    pub(crate) at: Timestamp,
}

/// What a packet says.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The server that it names, with the client.
    pub(crate) server: String,
    /// When it was sent, by the sender's clock, where it says that.
    pub(crate) sent_at: Option<Timestamp>,
    /// Nothing of a status that says nothing of sessions.
    pub(crate) report: Option<Box<SessionReport>>,
    /// Values without a meaning.
    pub(crate) values_ignored: u32,
}

/// Why a packet is no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unusable {
    #[error("a packet without Acct-Status-Type")]
    NoStatus,
    #[error("a packet about a session without Acct-Session-Id")]
    NoSession,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// What attributes have told so far.
#[derive(Default)]
struct Told<'a> {
    status: Option<u32>,
    session: &'a [u8],
    nas_identifier: &'a [u8],
    nas: Option<IpAddr>,
    delay_s: u32,
    event_s: Option<u32>,
    octets: [Option<u32>; 2],
    gigawords: [u32; 2],
    location: Option<UserLocation>,
    ignored: u32,
}

pub(crate) fn read(packet: &Packet<'_>, source: &Source<'_>) -> Result<Reading, Unusable> {
    let mut told = Told::default();
    let mut report = SessionReport::new(source.feed, SessionChange::Update, "", source.at);
    for attribute in packet.attributes() {
        if attribute.kind == wire::VENDOR_SPECIFIC {
            let (vendor, inner) = wire::vendor_attributes(attribute.value)?;
            if vendor == attribute::VENDOR_3GPP {
                wire::check_vendor_attributes(vendor, &inner)?;
                inner.for_each(|attribute| told.learn_3gpp(attribute, &mut report));
            }
        } else {
            told.learn(attribute, &mut report);
        }
    }
    told.conclude(source, report)
}

impl<'a> Told<'a> {
    fn learn(&mut self, Attribute { kind, value }: Attribute<'a>, report: &mut SessionReport) {
        match kind {
            attribute::STATUS_TYPE => self.take(number(value), |told, found| {
                told.status = Some(found);
            }),
            attribute::SESSION_ID => self.session = value,
            attribute::NAS_IDENTIFIER => self.nas_identifier = value,
            attribute::NAS_IP_ADDRESS => self.take(v4(value), |told, found| {
                told.nas = Some(IpAddr::V4(found));
            }),
            attribute::NAS_IPV6_ADDRESS => self.take(v6(value), |told, found| {
                told.nas = Some(IpAddr::V6(found));
            }),
            attribute::FRAMED_IP_ADDRESS => {
                self.take(framed(value), |_, found| report.ipv4 = Some(found));
            }
            attribute::FRAMED_IPV6_PREFIX | attribute::DELEGATED_IPV6_PREFIX => {
                self.take(prefix(value), |_, found| {
                    // A delegated prefix lies behind the device: its own comes first.
                    let is_own = kind == attribute::FRAMED_IPV6_PREFIX;
                    if is_own || report.ipv6_prefix.is_none() {
                        report.ipv6_prefix = Some(found);
                    }
                });
            }
            attribute::CALLING_STATION_ID => {
                let digits = text(value).map(|text| text.trim_start_matches('+').to_owned());
                let found = digits.and_then(|digits| digits.parse().ok());
                self.take(found, |_, found| report.msisdn = Some(found));
            }
            attribute::CALLED_STATION_ID => report.apn = text(value).map(str::to_owned),
            attribute::DELAY_TIME => self.take(number(value), |told, found| told.delay_s = found),
            attribute::EVENT_TIMESTAMP => self.take(number(value), |told, found| {
                told.event_s = Some(found);
            }),
            attribute::INPUT_OCTETS | attribute::OUTPUT_OCTETS => {
                let place = usize::from(kind - attribute::INPUT_OCTETS);
                self.take(number(value), |told, found| told.octets[place] = Some(found));
            }
            attribute::INPUT_GIGAWORDS | attribute::OUTPUT_GIGAWORDS => {
                let place = usize::from(kind - attribute::INPUT_GIGAWORDS);
                self.take(number(value), |told, found| told.gigawords[place] = found);
            }
            attribute::SESSION_TIME => {
                self.take(number(value), |_, found| report.duration_s = Some(found));
            }
            attribute::TERMINATE_CAUSE => self.take(number(value), |_, found| {
                report.end_cause = Some(attribute::cause(found));
            }),
            _ => {}
        }
    }

    fn learn_3gpp(&mut self, Attribute { kind, value }: Attribute<'a>, report: &mut SessionReport) {
        match kind {
            attribute::IMSI => self.take(parsed(value), |_, found| report.imsi = Some(found)),
            attribute::IMEISV => self.take(imei(value), |_, found| report.imei = Some(found)),
            attribute::CHARGING_ID => {
                self.take(number(value), |_, found| report.charging_id = Some(found));
            }
            attribute::RAT_TYPE => {
                // The attribute has one octet in the specification, and four from some senders.
                let found = value.last().copied().and_then(attribute::access);
                self.take(found, |_, found| report.access = Some(found));
            }
            attribute::USER_LOCATION => {
                let found = UserLocation::parse(value).ok();
                self.take(found, |told, found| told.location = Some(found));
            }
            _ => {}
        }
    }

    fn take<T>(&mut self, found: Option<T>, learn: impl FnOnce(&mut Self, T)) {
        match found {
            Some(found) => learn(self, found),
            None => self.ignored += 1,
        }
    }

    fn conclude(self, source: &Source<'_>, mut report: SessionReport) -> Result<Reading, Unusable> {
        let change = match self.status.ok_or(Unusable::NoStatus)? {
            1 => Some(SessionChange::Start),
            2 => Some(SessionChange::Stop),
            3 => Some(SessionChange::Update),
            7 | 8 => Some(SessionChange::Restart),
            _ => None,
        };
        let nas = match (self.nas_identifier, self.nas) {
            (identifier @ [_, ..], _) => name(identifier),
            ([], Some(address)) => address.to_string(),
            ([], None) => source.remote.to_string(),
        };
        let server = format!("{}/{nas}", source.client);
        let delay = Duration::from_secs(self.delay_s.into());
        let happened =
            self.event_s.map(|seconds| Timestamp::from_millis(i64::from(seconds) * 1_000));
        let sent_at = happened.map(|happened| happened.saturating_add(delay));
        if let Some(change) = change {
            report.change = change;
            report.happened_at = happened.unwrap_or_else(|| source.at.saturating_sub(delay));
            report.server.clone_from(&server);
            if change != SessionChange::Restart {
                if self.session.is_empty() {
                    return Err(Unusable::NoSession);
                }
                report.session = name(self.session);
            }
            report.cell = self.location.map(|location| location.tower(report.access));
            report.octets = self.octets();
        }
        let report = change.map(|_| Box::new(report));
        Ok(Reading { server, sent_at, report, values_ignored: self.ignored })
    }

    /// What the session has carried: input is what came from the device (RFC 2866 §5.3).
    fn octets(&self) -> Option<Octets> {
        let [up, down] = [0, 1].map(|place| {
            let low = self.octets[place].map(u64::from);
            low.map(|low| u64::from(self.gigawords[place]) << 32 | low)
        });
        let is_told = up.is_some() || down.is_some();
        is_told.then(|| Octets { up: up.unwrap_or_default(), down: down.unwrap_or_default() })
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

fn v4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

fn v6(value: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(value).ok().map(Ipv6Addr::from)
}

/// An address that a device can hold: all ones and the one before it ask the server to choose
/// (RFC 2865 §5.8).
fn framed(value: &[u8]) -> Option<Ipv4Addr> {
    v4(value).filter(|v4| !v4.is_unspecified() && v4.to_bits() < u32::MAX - 1)
}

/// A prefix of 64 bits (RFC 3162 §2.3): a reserved octet, its length, and its first bytes.
fn prefix(value: &[u8]) -> Option<Ipv6Addr> {
    let [_, length, bytes @ ..] = value else { return None };
    // The whole address of a device stands for its prefix.
    if !(64..=128).contains(length) || bytes.len() < 8 || bytes.len() > 16 {
        return None;
    }
    let first = <[u8; 8]>::try_from(bytes.get(..8)?).ok()?;
    let bits = u64::from_be_bytes(first);
    (bits != 0).then(|| Ipv6Addr::from_bits(u128::from(bits) << 64))
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().map(str::trim).filter(|text| !text.is_empty())
}

fn parsed<T: FromStr>(value: &[u8]) -> Option<T> {
    // Some senders end texts with a zero.
    text(value)?.trim_end_matches('\0').parse().ok()
}

/// A modem's number. On the radio its check digit is a zero (3GPP TS 23.003 §6.2.1), and some
/// packet cores pass that on.
fn imei(value: &[u8]) -> Option<Imei> {
    parsed(value).or_else(|| match value {
        [digits @ .., b'0'] if digits.len() == 14 => parsed(digits),
        _ => None,
    })
}

/// A name as a text: what is no UTF-8 is written in hexadecimal, so that two names stay two.
fn name(value: &[u8]) -> String {
    let value = value.get(..NAME_BYTES_MAX).unwrap_or(value);
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => value.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
