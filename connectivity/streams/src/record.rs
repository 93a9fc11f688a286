//! One record of an event stream.

use std::net::IpAddr;
use std::str::FromStr;

use serde_json::Value;
use vocabulary::{CellTower, Octets, Plmn, RadioAccess, SessionChange, SessionReport, Timestamp};

/// Types of events that say something of sessions.
const CREATE: u64 = 3;
const UPDATE: u64 = 4;
const DELETE: u64 = 5;

/// Traffic of usage records; all other is SMS.
const DATA: u64 = 5;

/// Volumes are in megabytes.
const BYTES_PER_MB: f64 = 1e6;

/// Vendors do not say which of their servers it is.
const SERVER: &str = "network";

/// What a record says.
pub(crate) enum Meaning {
    Report(Box<SessionReport>),
    /// Nothing of a session.
    Other,
    /// Something of a session, without this.
    Lacks(&'static str),
}

pub(crate) fn read(feed: &str, record: &Value, arrived: Timestamp) -> Meaning {
    let change = match record.pointer("/event_type/id").and_then(number) {
        Some(CREATE) => SessionChange::Start,
        Some(UPDATE) => SessionChange::Update,
        Some(DELETE) => SessionChange::Stop,
        Some(_) => return Meaning::Other,
        None => return usage(feed, record, arrived),
    };
    let context = record.pointer("/detail/pdp_context").filter(|context| context.is_object());
    let Some(context) = context else {
        // A request that was rejected opens no session and has no details.
        return if is_warning(record) {
            Meaning::Other
        } else {
            Meaning::Lacks("detail.pdp_context")
        };
    };
    // The association of a SIM with its address (3GPP TS 23.203 §3.1), by which usage names it too.
    let session =
        ["ipcan_session_id", "pdp_context_id"].iter().find_map(|id| name(context.get(id)?));
    let Some(session) = session.or_else(|| name(record.pointer("/detail/session_id")?)) else {
        return Meaning::Lacks("detail.pdp_context.pdp_context_id and ipcan_session_id");
    };
    let Some(happened_at) = record.get("timestamp").and_then(time) else {
        return Meaning::Lacks("timestamp");
    };
    let mut report = SessionReport::new(feed, change, SERVER, happened_at.min(arrived));
    report.session = session;
    report.imsi = first(record, &["/detail/pdp_context/imsi", "/imsi/imsi"]);
    report.iccid = first(record, &["/sim/iccid"]);
    if report.imsi.is_none() && report.iccid.is_none() {
        return Meaning::Lacks("sim.iccid and imsi.imsi");
    }
    let address: Option<IpAddr> =
        first(record, &["/detail/pdp_context/ue_ip_address", "/endpoint/ip_address"]);
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(v4)) if !v4.is_unspecified() => report.ipv4 = Some(v4),
        Some(IpAddr::V6(v6)) if !v6.is_unspecified() => report.ipv6_prefix = Some(v6),
        _ if change == SessionChange::Start => {
            return Meaning::Lacks("detail.pdp_context.ue_ip_address");
        }
        _ => {}
    }
    report.msisdn = first(record, &["/sim/msisdn"]);
    report.imei = first(record, &["/detail/pdp_context/imeisv", "/endpoint/imei"]);
    report.apn = context.get("apn").and_then(Value::as_str).map(str::to_owned);
    report.access = context.get("rat_type").and_then(number).and_then(access);
    report.cell = report.access.and_then(|access| cell(context, access));
    report.octets = record.pointer("/detail/volume").and_then(octets);
    Meaning::Report(Box::new(report))
}

/// What was carried since the last such record, or since the session began. The records of one
/// platform name the session as those of its beginning do, the others the SIM alone.
fn usage(feed: &str, record: &Value, arrived: Timestamp) -> Meaning {
    if record.pointer("/traffic_type/id").and_then(number) != Some(DATA) {
        return Meaning::Other;
    }
    let moment = |field: &str| record.get(field).and_then(time);
    let Some(from) = moment("start_timestamp") else { return Meaning::Lacks("start_timestamp") };
    let Some(until) = moment("end_timestamp") else { return Meaning::Lacks("end_timestamp") };
    let Some(octets) = record.get("volume").and_then(octets) else {
        return Meaning::Lacks("volume.tx and volume.rx");
    };
    let change = SessionChange::Usage;
    let mut report = SessionReport::new(feed, change, SERVER, until.min(arrived));
    let places = ["/ipcan_session_id", "/detail/pdp_context/ipcan_session_id"];
    let session = places.iter().find_map(|place| name(record.pointer(place)?));
    report.session = session.unwrap_or_default();
    report.imsi = first(record, &["/imsi"]);
    report.iccid = first(record, &["/sim/iccid"]);
    if report.imsi.is_none() && report.iccid.is_none() {
        return Meaning::Lacks("sim.iccid and imsi");
    }
    (report.octets, report.counted_from) = (Some(octets), Some(from));
    Meaning::Report(Box::new(report))
}

fn is_warning(record: &Value) -> bool {
    let severity = record.pointer("/event_severity/id").and_then(number);
    severity.is_some_and(|severity| severity > 0)
}

/// A number that may be written as a text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn decimal(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|number| number.is_finite() && *number >= 0.0)
}

fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() && text.len() <= 253 => Some(text.clone()),
        // Beyond 64 bits two numbers would have one name.
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// A time; without a zone it is UTC.
fn time(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    text.parse().ok().or_else(|| format!("{text}Z").parse().ok())
}

/// The first of these places that holds a text with this meaning.
fn first<T: FromStr>(record: &Value, places: &[&str]) -> Option<T> {
    let text = |place: &&str| record.pointer(place)?.as_str()?.trim().parse().ok();
    places.iter().find_map(text)
}

fn access(rat_type: u64) -> Option<RadioAccess> {
    Some(match rat_type {
        1 => RadioAccess::Umts,
        2 => RadioAccess::Gsm,
        5 => RadioAccess::Hspa,
        6 => RadioAccess::Lte,
        8 => RadioAccess::NbIot,
        9 => RadioAccess::LteM,
        10 | 51 => RadioAccess::Nr,
        _ => return None,
    })
}

/// The cell; what is called a location area holds a tracking area too.
fn cell(context: &Value, access: RadioAccess) -> Option<CellTower> {
    let text = |field: &str| context.get(field).and_then(Value::as_str);
    let plmn = Plmn::from_codes(text("mcc")?, text("mnc")?).ok()?;
    let part = |field: &str| context.get(field).and_then(number);
    let area = part("lac").and_then(|area| u32::try_from(area).ok());
    Some(CellTower { access, plmn, area, cell: part("ci").or(part("sac")) })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that does not fit becomes the nearest number"
)]
fn octets(volume: &Value) -> Option<Octets> {
    let megabytes = |field: &str| volume.get(field).and_then(decimal);
    let bytes = |megabytes: f64| (megabytes * BYTES_PER_MB).round() as u64;
    // Sent and received by the device.
    Some(Octets { up: bytes(megabytes("tx")?), down: bytes(megabytes("rx")?) })
}
