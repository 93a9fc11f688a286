//! The attributes that accounting needs, by their numbers.

/// RFC 2865 §5.
pub(crate) const NAS_IP_ADDRESS: u8 = 4;
pub(crate) const FRAMED_IP_ADDRESS: u8 = 8;
pub(crate) const CALLED_STATION_ID: u8 = 30;
pub(crate) const CALLING_STATION_ID: u8 = 31;
pub(crate) const NAS_IDENTIFIER: u8 = 32;
/// RFC 2866 §5.
pub(crate) const STATUS_TYPE: u8 = 40;
pub(crate) const DELAY_TIME: u8 = 41;
pub(crate) const INPUT_OCTETS: u8 = 42;
pub(crate) const OUTPUT_OCTETS: u8 = 43;
pub(crate) const SESSION_ID: u8 = 44;
pub(crate) const SESSION_TIME: u8 = 46;
pub(crate) const TERMINATE_CAUSE: u8 = 49;
/// RFC 2869 §5.
pub(crate) const INPUT_GIGAWORDS: u8 = 52;
pub(crate) const OUTPUT_GIGAWORDS: u8 = 53;
pub(crate) const EVENT_TIMESTAMP: u8 = 55;
/// RFC 3162 §2 and RFC 4818 §3.
pub(crate) const NAS_IPV6_ADDRESS: u8 = 95;
pub(crate) const FRAMED_IPV6_PREFIX: u8 = 97;
pub(crate) const DELEGATED_IPV6_PREFIX: u8 = 123;

/// The vendor 3GPP, and its attributes (3GPP TS 29.061 §16.4.7).
pub(crate) const VENDOR_3GPP: u32 = 10_415;
pub(crate) const IMSI: u8 = 1;
pub(crate) const CHARGING_ID: u8 = 2;
pub(crate) const IMEISV: u8 = 20;
pub(crate) const RAT_TYPE: u8 = 21;
pub(crate) const USER_LOCATION: u8 = 22;

use vocabulary::RadioAccess;

/// 3GPP-RAT-Type, by its number.
pub(crate) const fn access(number: u8) -> Option<RadioAccess> {
    Some(match number {
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

/// The number of a radio as 3GPP-RAT-Type.
pub(crate) const fn rat_type(access: RadioAccess) -> u8 {
    match access {
        RadioAccess::Umts => 1,
        RadioAccess::Gsm => 2,
        RadioAccess::Hspa => 5,
        RadioAccess::Lte => 6,
        RadioAccess::NbIot => 8,
        RadioAccess::LteM => 9,
        RadioAccess::Nr => 51,
    }
}

/// Acct-Terminate-Cause in words (RFC 2866 §5.10).
pub(crate) fn cause(number: u32) -> String {
    const CAUSES: [&str; 18] = [
        "User-Request",
        "Lost-Carrier",
        "Lost-Service",
        "Idle-Timeout",
        "Session-Timeout",
        "Admin-Reset",
        "Admin-Reboot",
        "Port-Error",
        "NAS-Error",
        "NAS-Request",
        "NAS-Reboot",
        "Port-Unneeded",
        "Port-Preempted",
        "Port-Suspended",
        "Service-Unavailable",
        "Callback",
        "User-Error",
        "Host-Request",
    ];
    let place = (number as usize).checked_sub(1);
    let known = place.and_then(|place| CAUSES.get(place));
    known.map_or_else(|| number.to_string(), |cause| (*cause).to_owned())
}
