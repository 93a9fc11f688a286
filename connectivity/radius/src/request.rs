//! The side of the packet core: accounting requests to send, and responses to check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;
use vocabulary::{Imei, Imsi, Msisdn, Octets, RadioAccess, Timestamp};

use crate::attribute;
use crate::client::Secret;
use crate::location::UserLocation;
use crate::wire::{self, Malformed, Packet};

/// What happened (Acct-Status-Type, RFC 2866 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusType {
    /// A session began.
    Start,
    /// A session ended.
    Stop,
    /// A session goes on.
    InterimUpdate,
    /// The server of sessions begins: none of before lives.
    AccountingOn,
    /// The server of sessions ends.
    AccountingOff,
}

/// A request, to be encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountingRequest {
    /// What happened.
    pub status: StatusType,
    /// Acct-Session-Id; left out where empty.
    pub session: String,
    /// NAS-IP-Address or NAS-IPv6-Address.
    pub nas: Option<IpAddr>,
    /// NAS-Identifier.
    pub nas_identifier: Option<String>,
    /// Framed-IP-Address.
    pub ipv4: Option<Ipv4Addr>,
    /// Framed-IPv6-Prefix, of 64 bits.
    pub ipv6_prefix: Option<Ipv6Addr>,
    /// Calling-Station-Id.
    pub msisdn: Option<Msisdn>,
    /// Called-Station-Id.
    pub apn: Option<String>,
    /// 3GPP-IMSI.
    pub imsi: Option<Imsi>,
    /// 3GPP-IMEISV.
    pub imei: Option<Imei>,
    /// 3GPP-Charging-Id.
    pub charging_id: Option<u32>,
    /// 3GPP-RAT-Type.
    pub access: Option<RadioAccess>,
    /// 3GPP-User-Location-Info.
    pub location: Option<UserLocation>,
    /// Acct-Input-Octets and Acct-Output-Octets, with their Gigawords.
    pub octets: Option<Octets>,
    /// Acct-Session-Time.
    pub duration_s: Option<u32>,
    /// Acct-Terminate-Cause, by its number.
    pub end_cause: Option<u32>,
    /// Event-Timestamp, to the second.
    pub happened_at: Option<Timestamp>,
    /// Acct-Delay-Time.
    pub delay_s: Option<u32>,
    /// Proxy-State, in order.
    pub proxy_states: Vec<Vec<u8>>,
    /// Whether a Message-Authenticator signs it too.
    pub has_message_authenticator: bool,
}

/// A response that does not answer the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidResponse {
    /// No packet.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Another code.
    #[error("a packet of code {found}, allowed: 5")]
    Code {
        /// What was found.
        found: u8,
    },
    /// The response to another request.
    #[error("the response to request {found}, allowed: {expected}")]
    Identifier {
        /// What was found.
        found: u8,
        /// What was asked.
        expected: u8,
    },
    /// Made by somebody without the secret, or for another request.
    #[error("the response has a wrong authenticator")]
    Authenticator,
}

impl AccountingRequest {
    /// A request with only its required fields.
    pub fn new(status: StatusType, session: &str) -> Self {
        Self {
            status,
            session: session.to_owned(),
            nas: None,
            nas_identifier: None,
            ipv4: None,
            ipv6_prefix: None,
            msisdn: None,
            apn: None,
            imsi: None,
            imei: None,
            charging_id: None,
            access: None,
            location: None,
            octets: None,
            duration_s: None,
            end_cause: None,
            happened_at: None,
            delay_s: None,
            proxy_states: Vec::new(),
            has_message_authenticator: false,
        }
    }
}

/// Whether `response` answers `request`, both as they went over the wire.
pub fn verify_response(
    response: &[u8],
    request: &[u8],
    secret: &Secret,
) -> Result<(), InvalidResponse> {
    let request = Packet::parse(request)?;
    let response = Packet::parse(response)?;
    if response.code() != wire::ACCOUNTING_RESPONSE {
        return Err(InvalidResponse::Code { found: response.code() });
    }
    if response.identifier() != request.identifier() {
        return Err(InvalidResponse::Identifier {
            found: response.identifier(),
            expected: request.identifier(),
        });
    }
    let asked = request.authenticator();
    if wire::has_good_response_authenticator(&response, &asked, secret.as_bytes()) {
        Ok(())
    } else {
        Err(InvalidResponse::Authenticator)
    }
}

impl StatusType {
    /// Its number.
    const fn number(self) -> u32 {
        match self {
            Self::Start => 1,
            Self::Stop => 2,
            Self::InterimUpdate => 3,
            Self::AccountingOn => 7,
            Self::AccountingOff => 8,
        }
    }
}

impl AccountingRequest {
    /// The packet with this identifier, signed.
    pub fn encode(&self, identifier: u8, secret: &Secret) -> Vec<u8> {
        let mut packet = vec![0; wire::HEADER_BYTES];
        packet[0] = wire::ACCOUNTING_REQUEST;
        packet[1] = identifier;
        self.push_server(&mut packet);
        self.push_session(&mut packet);
        self.push_3gpp(&mut packet);
        for state in &self.proxy_states {
            wire::push_attribute(&mut packet, wire::PROXY_STATE, state);
        }
        let signature = self.has_message_authenticator.then(|| {
            let nothing = [0; wire::SIGNATURE_BYTES];
            wire::push_attribute(&mut packet, wire::MESSAGE_AUTHENTICATOR, &nothing);
            packet.len() - wire::SIGNATURE_BYTES
        });
        wire::close_packet(&mut packet);
        if let Some(place) = signature {
            let zeros = [0; wire::SIGNATURE_BYTES];
            wire::sign_message(&mut packet, place, &zeros, secret.as_bytes());
        }
        wire::sign_request(&mut packet, secret.as_bytes());
        packet
    }

    /// Who sends, when, and what happened.
    fn push_server(&self, packet: &mut Vec<u8>) {
        let mut push = |kind, value: &[u8]| wire::push_attribute(packet, kind, value);
        push(attribute::STATUS_TYPE, &self.status.number().to_be_bytes());
        match self.nas {
            Some(IpAddr::V4(nas)) => push(attribute::NAS_IP_ADDRESS, &nas.octets()),
            Some(IpAddr::V6(nas)) => push(attribute::NAS_IPV6_ADDRESS, &nas.octets()),
            None => {}
        }
        if let Some(identifier) = &self.nas_identifier {
            push(attribute::NAS_IDENTIFIER, identifier.as_bytes());
        }
        if let Some(happened_at) = self.happened_at {
            // The attribute ends in 2106.
            let seconds = u32::try_from(happened_at.as_millis() / 1_000).unwrap_or(u32::MAX);
            push(attribute::EVENT_TIMESTAMP, &seconds.to_be_bytes());
        }
        if let Some(delay) = self.delay_s {
            push(attribute::DELAY_TIME, &delay.to_be_bytes());
        }
    }

    fn push_session(&self, packet: &mut Vec<u8>) {
        let mut push = |kind, value: &[u8]| wire::push_attribute(packet, kind, value);
        if !self.session.is_empty() {
            push(attribute::SESSION_ID, self.session.as_bytes());
        }
        if let Some(ipv4) = self.ipv4 {
            push(attribute::FRAMED_IP_ADDRESS, &ipv4.octets());
        }
        if let Some(prefix) = self.ipv6_prefix {
            let mut value = vec![0, 64];
            value.extend_from_slice(&prefix.octets()[..8]);
            push(attribute::FRAMED_IPV6_PREFIX, &value);
        }
        if let Some(msisdn) = self.msisdn {
            push(attribute::CALLING_STATION_ID, msisdn.to_string().as_bytes());
        }
        if let Some(apn) = &self.apn {
            push(attribute::CALLED_STATION_ID, apn.as_bytes());
        }
        if let Some(Octets { up, down }) = self.octets {
            for (octets, low, high) in [
                (up, attribute::INPUT_OCTETS, attribute::INPUT_GIGAWORDS),
                (down, attribute::OUTPUT_OCTETS, attribute::OUTPUT_GIGAWORDS),
            ] {
                let bytes = octets.to_be_bytes();
                push(low, &bytes[4..]);
                push(high, &bytes[..4]);
            }
        }
        if let Some(duration) = self.duration_s {
            push(attribute::SESSION_TIME, &duration.to_be_bytes());
        }
        if let Some(cause) = self.end_cause {
            push(attribute::TERMINATE_CAUSE, &cause.to_be_bytes());
        }
    }

    fn push_3gpp(&self, packet: &mut Vec<u8>) {
        let mut push = |kind, value: &[u8]| {
            let mut around = attribute::VENDOR_3GPP.to_be_bytes().to_vec();
            wire::push_attribute(&mut around, kind, value);
            wire::push_attribute(packet, wire::VENDOR_SPECIFIC, &around);
        };
        if let Some(imsi) = self.imsi {
            push(attribute::IMSI, imsi.to_string().as_bytes());
        }
        if let Some(charging_id) = self.charging_id {
            push(attribute::CHARGING_ID, &charging_id.to_be_bytes());
        }
        if let Some(imei) = self.imei {
            push(attribute::IMEISV, imei.to_string().as_bytes());
        }
        if let Some(access) = self.access {
            push(attribute::RAT_TYPE, &[attribute::rat_type(access)]);
        }
        if let Some(location) = &self.location {
            push(attribute::USER_LOCATION, &location.encode());
        }
    }
}
