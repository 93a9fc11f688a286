//! What the mobile network says of data sessions: who holds which address, and in which cell.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::event::MalformedEvent;
use crate::{CellTower, Iccid, Imei, Imsi, Msisdn, RadioAccess, Timestamp};

/// One report of a network feed, as it stands in the message log.
///
/// It says what the feed said and no more: which session it opens or closes is found by whoever
/// applies the reports in the order of the log, and is the same each time. Stored as JSON: a new
/// field must not need a new format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The feed's name in the configuration.
    pub feed: String,
    /// What happened.
    pub change: SessionChange,
    /// Which part of the network says it: the RADIUS client, or the vendor.
    pub server: String,
    /// The name of the session there (`Acct-Session-Id`, `pdp_context_id`). Empty for
    /// [`SessionChange::Restart`], and for [`SessionChange::Usage`] that names the SIM alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// When it happened, by the feed's clock; when it arrived where the feed does not say.
    pub happened_at: Timestamp,
    /// The card, of feeds that name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iccid: Option<Iccid>,
    /// The subscriber.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imsi: Option<Imsi>,
    /// The telephone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msisdn: Option<Msisdn>,
    /// The modem, with its software version where the feed tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imei: Option<Imei>,
    /// The address that the device holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The prefix that the device holds, 64 bits (3GPP TS 23.401 §5.3.1.2.2): its first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_prefix: Option<Ipv6Addr>,
    /// The radio, where it is known without a cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<RadioAccess>,
    /// The cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellTower>,
    /// What the session has carried since its beginning, or since `counted_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<Octets>,
    /// From when on the octets of [`SessionChange::Usage`] were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_from: Option<Timestamp>,
    /// For how long it had lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<u32>,
    /// The access point name, which is to say the packet network that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apn: Option<String>,
    /// The number by which the operator's charging knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charging_id: Option<u32>,
    /// Why it ended, in the words of the feed (`User-Request`, `Lost-Carrier`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_cause: Option<String>,
}

/// What happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionChange {
    /// It began.
    Start,
    /// It goes on, perhaps in another cell.
    Update,
    /// It ended.
    Stop,
    /// All sessions of the server ended (Accounting-On and Accounting-Off).
    Restart,
    /// The SIM has carried octets, perhaps in a session without a name. It says nothing of
    /// addresses.
    Usage,
}

/// Octets of a session, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Octets {
    /// From the device.
    pub up: u64,
    /// To the device.
    pub down: u64,
}

impl SessionReport {
    /// A report with only its required fields.
    pub fn new(feed: &str, change: SessionChange, server: &str, happened_at: Timestamp) -> Self {
        Self {
            feed: feed.to_owned(),
            change,
            server: server.to_owned(),
            session: String::new(),
            happened_at,
            iccid: None,
            imsi: None,
            msisdn: None,
            imei: None,
            ipv4: None,
            ipv6_prefix: None,
            access: None,
            cell: None,
            octets: None,
            counted_from: None,
            duration_s: None,
            apn: None,
            charging_id: None,
            end_cause: None,
        }
    }

    /// The body for the message log.
    pub fn encode(&self) -> Vec<u8> {
        // A struct of texts and numbers always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a body that [`SessionReport::encode`] wrote.
    pub fn decode(body: &[u8]) -> Result<Self, MalformedEvent> {
        serde_json::from_slice(body).map_err(|_| MalformedEvent::Value("session report"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back() {
        let at = Timestamp::from_micros(1_670_598_749_915_123);
        let mut report = SessionReport::new("radius", SessionChange::Start, "10.0.0.1", at);
        assert_eq!(SessionReport::decode(&report.encode()), Ok(report.clone()));
        report.session = "0A00".to_owned();
        report.imsi = Some("901405100002864".parse().unwrap());
        report.imei = Some("8635760478500001".parse().unwrap());
        report.msisdn = Some("882285100002864".parse().unwrap());
        report.iccid = Some("8988280666000002864".parse().unwrap());
        report.ipv4 = Some([100, 91, 200, 24].into());
        report.ipv6_prefix = Some("2001:db8:1::".parse().unwrap());
        report.cell = Some(CellTower {
            access: RadioAccess::Lte,
            plmn: "262-01".parse().unwrap(),
            area: Some(1),
            cell: Some(2),
        });
        report.octets = Some(Octets { up: u64::MAX, down: 0 });
        report.counted_from = Some(at);
        report.duration_s = Some(3_600);
        report.apn = Some("iot.example".to_owned());
        report.charging_id = Some(7);
        report.end_cause = Some("Lost-Carrier".to_owned());
        assert_eq!(SessionReport::decode(&report.encode()), Ok(report));
        assert!(SessionReport::decode(b"{}").is_err());
    }
}
