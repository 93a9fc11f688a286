//! What the reader says in the administration log, and what it has said already.

use message_log::{KindSet, MessageLog, Offset, Query, ReadError, Record};
use vocabulary::{Identity, Notice, NoticeCategory, NoticeKind, Telemetry};

use crate::STATE_BYTES_MAX;
use crate::backward::Backward;

/// A device was heard for the first time. The text is that of 1NCE OS.
pub const FIRST_CONTACT: &str = "Lifecycle[DeviceFirstTimeRegistered]";
/// A payload does not fit the template of its day. The text is that of 1NCE OS.
pub const TRANSLATION_FAILED: &str = "Translator[UserPayloadError]";
/// A payload is too large to be kept as the device's state. The text is our own.
pub const STATE_TOO_LARGE: &str = "DeviceShadowUpdate[PayloadTooLarge]";

/// Notices read at once while the newest of our own is looked for.
const SEARCH_RECORDS: usize = 256;

/// The first message of a device.
pub(crate) fn first_contact(record: &Record, identity: Identity) -> Notice {
    let mut notice =
        Notice::new(NoticeCategory::Info, NoticeKind::Lifecycle, FIRST_CONTACT).about(identity);
    let iccid = identity.iccid;
    notice.description = format!("New Device successfully registered for the first time - {iccid}");
    notice.cause = Some(record.offset.as_u64());
    notice
}

/// A message that its template cannot translate, because of `reason`.
pub(crate) fn translation_failed(record: &Record, identity: Identity, reason: String) -> Notice {
    device_error(record, identity, TRANSLATION_FAILED, reason)
}

/// A message that is too large to be the device's state.
pub(crate) fn state_too_large(record: &Record, telemetry: &Telemetry<'_>) -> Notice {
    let bytes = telemetry.payload.len();
    let reason = format!("state of {bytes} bytes exceeds the limit of {STATE_BYTES_MAX}");
    device_error(record, telemetry.identity, STATE_TOO_LARGE, reason)
}

fn device_error(record: &Record, identity: Identity, message: &str, reason: String) -> Notice {
    let mut notice =
        Notice::new(NoticeCategory::Error, NoticeKind::Device, message).about(identity);
    notice.description = reason;
    notice.payload_of = Some(record.id.to_string());
    notice.cause = Some(record.offset.as_u64());
    notice
}

/// The highest cause of a notice that the reader appended behind `cursor`.
///
/// The reader appends in the order of causes, so its newest notice names the highest. A notice
/// lies behind its cause: below the cursor none can have a cause that is still to be read.
pub(crate) fn highest_cause(log: &MessageLog, cursor: Offset) -> Result<Option<u64>, ReadError> {
    let newest = Query { kinds: KindSet::rare(), limit: SEARCH_RECORDS, ..Query::default() };
    let mut walk = Backward::new(log, newest);
    loop {
        let records = walk.chunk()?;
        for record in &records {
            if record.offset < cursor {
                return Ok(None);
            }
            if let Some(cause) = own_cause(record) {
                return Ok(Some(cause));
            }
        }
        if records.is_empty() {
            return Ok(None);
        }
    }
}

fn own_cause(record: &Record) -> Option<u64> {
    let notice = Notice::decode(&record.body).ok()?;
    let own = [FIRST_CONTACT, TRANSLATION_FAILED, STATE_TOO_LARGE];
    if own.contains(&notice.message.as_str()) { notice.cause } else { None }
}
