//! What a record of the log says of where a device was.

use message_log::Record;
use serde_json::Value;
use template_library::{StoreError, Templates, TranslateError, Translation};
use vocabulary::{
    CellTower, Coordinates, EventKind, Iccid, Identity, InvalidCoordinates, Protocol,
    SessionChange, SessionReport, Telemetry, Timestamp,
};

/// LwM2M object 6 (Location): latitude, longitude, radius, timestamp.
const LATITUDE: &str = "/6/0/0";
const LONGITUDE: &str = "/6/0/1";
const RADIUS: &str = "/6/0/3";
const TIMESTAMP: &str = "/6/0/5";

/// Before 2010 no device of these networks was anywhere, in seconds since 1970: clocks that were
/// never set count from 1970, 1980 (GPS) or 2000.
const CLOCK_SET_FROM_S: i64 = 1_262_304_000;

/// What a record says.
pub(crate) enum Sighting {
    /// The device told where it is.
    Told {
        identity: Identity,
        at: Timestamp,
        place: Result<Coordinates, InvalidCoordinates>,
        accuracy_m: Option<f64>,
    },
    /// The network told in which cell it is.
    InCell { identity: Identity, at: Timestamp, tower: CellTower, begins: bool },
}

impl Sighting {
    /// Whose it is.
    pub(crate) const fn device(&self) -> Iccid {
        match self {
            Self::Told { identity, .. } | Self::InCell { identity, .. } => identity.iccid,
        }
    }
}

/// What a record says, if it says anything of a place.
pub(crate) fn read(record: &Record, templates: &Templates) -> Result<Option<Sighting>, StoreError> {
    if record.kind.code() == EventKind::Session.code() {
        let report = SessionReport::decode(&record.body).ok();
        return Ok(report.and_then(|report| in_cell(report, record)));
    }
    let iccid = Iccid::from_u64(record.device.as_u64());
    let telemetry = iccid.and_then(|iccid| Telemetry::decode(iccid, &record.body).ok());
    match telemetry {
        None => Ok(None),
        Some(telemetry) if telemetry.protocol == Protocol::Lwm2m => {
            Ok(of_lwm2m(&telemetry, record))
        }
        Some(telemetry) => of_template(&telemetry, record, templates),
    }
}

fn in_cell(report: SessionReport, record: &Record) -> Option<Sighting> {
    if report.change == SessionChange::Stop {
        return None;
    }
    let ip = report.ipv4.map(Into::into).or(report.ipv6_prefix.map(Into::into));
    let identity = Identity { iccid: report.iccid?, imsi: report.imsi, ip };
    Some(Sighting::InCell {
        identity,
        at: report.happened_at.min(record.received_at),
        tower: report.cell?,
        begins: report.change == SessionChange::Start,
    })
}

fn of_template(
    telemetry: &Telemetry<'_>,
    record: &Record,
    templates: &Templates,
) -> Result<Option<Sighting>, StoreError> {
    let translated = match templates.translate(telemetry) {
        Ok(Translation::Json(translated)) => translated,
        Ok(Translation::Raw) | Err(TranslateError::UnknownVersion { .. }) => return Ok(None),
        // The inspector says that.
        Err(TranslateError::Payload(_)) => return Ok(None),
        Err(TranslateError::Store(error)) => return Err(error),
    };
    let named = translated.at_unix_micros.map(Timestamp::from_micros);
    Ok(translated.position.map(|place| Sighting::Told {
        identity: telemetry.identity,
        at: sampled_at([named, telemetry.measured], record),
        place: Coordinates::new(place.latitude, place.longitude),
        accuracy_m: None,
    }))
}

fn of_lwm2m(telemetry: &Telemetry<'_>, record: &Record) -> Option<Sighting> {
    // Most messages say nothing of it.
    let marker = LATITUDE.as_bytes();
    if !telemetry.payload.windows(marker.len()).any(|bytes| bytes == marker) {
        return None;
    }
    let values: Value = serde_json::from_slice(telemetry.payload).ok()?;
    let number = |path: &str| values.get(path).and_then(Value::as_f64);
    let (latitude, longitude) = (number(LATITUDE)?, number(LONGITUDE)?);
    let told = values.get(TIMESTAMP).and_then(Value::as_i64);
    let told = told.map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1_000)));
    Some(Sighting::Told {
        identity: telemetry.identity,
        at: sampled_at([told, telemetry.measured], record),
        place: Coordinates::new(latitude, longitude),
        accuracy_m: number(RADIUS).filter(|radius| *radius > 0.0),
    })
}

/// The first of these times that a clock says that was ever set; else when it arrived.
fn sampled_at(told: [Option<Timestamp>; 2], record: &Record) -> Timestamp {
    let set_from = Timestamp::from_millis(CLOCK_SET_FROM_S * 1_000);
    let is_set = |at: &Timestamp| *at >= set_from;
    told.into_iter().flatten().find(is_set).unwrap_or(record.received_at)
}
