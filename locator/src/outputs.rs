//! What the locator says in the log.

use message_log::{DeviceKey, Kind, NewRecord};
use vocabulary::{
    Crossing, Direction, EventKind, Identity, Located, Notice, NoticeCategory, NoticeKind,
    Timestamp,
};

/// A device has entered a geofence.
pub const ENTERED: &str = "Geofence[Enter]";
/// A device has left a geofence.
pub const EXITED: &str = "Geofence[Exit]";
/// A device told a position that cannot be.
pub const REFUSED: &str = "Position[Refused]";

/// Something to append, of one cause.
pub(crate) enum Output {
    Located(Located),
    Notice(Notice),
}

impl Output {
    pub(crate) fn record(&self, now: Timestamp) -> NewRecord {
        let (kind, iccid, body) = match self {
            Self::Located(located) => (EventKind::Located, Some(located.iccid), located.encode()),
            Self::Notice(notice) => (EventKind::Notice, notice.iccid, notice.encode()),
        };
        let device = iccid.map_or(DeviceKey::NONE, |iccid| DeviceKey::from_u64(iccid.as_u64()));
        NewRecord { kind: Kind::new(kind.code()), device, received_at: now, body }
    }
}

/// The notice of a crossing.
pub(crate) fn crossed(identity: Identity, crossing: Crossing, cause: u64) -> Notice {
    let (message, way) = match crossing.direction {
        Direction::Enter => (ENTERED, "entered"),
        Direction::Exit => (EXITED, "left"),
    };
    let mut notice =
        Notice::new(NoticeCategory::Info, NoticeKind::Location, message).about(identity);
    notice.description = format!(
        "Device {} {way} the geofence {:?} at {} ({})",
        identity.iccid,
        crossing.name,
        crossing.sampled_at,
        crossing.source.as_str()
    );
    notice.geofence = Some(crossing);
    notice.cause = Some(cause);
    notice
}

/// The notice of a position that cannot be.
pub(crate) fn refused(identity: Identity, reason: &str, cause: u64) -> Notice {
    let mut notice =
        Notice::new(NoticeCategory::Error, NoticeKind::Location, REFUSED).about(identity);
    notice.description = format!("A position is not used: {reason}");
    notice.cause = Some(cause);
    notice
}
