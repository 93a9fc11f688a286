//! The values of Update Result (/5/0/5) and what follows from each.
//!
//! OMA LwM2M 1.1 Core, E.6 "LwM2M Object: Firmware Update", resource 5.

/// 1: the only success.
pub(crate) const SUCCESS: i64 = 1;
/// 7: the device cannot use the URI.
pub(crate) const INVALID_URI: i64 = 7;
/// 9: the device does not speak the protocol of the URI.
pub(crate) const UNSUPPORTED_PROTOCOL: i64 = 9;

/// What a result says, in the words of the specification.
pub fn result_text(result: i64) -> &'static str {
    match result {
        0 => "no result yet",
        1 => "firmware updated successfully",
        2 => "not enough flash memory for the new firmware package",
        3 => "out of RAM during the download",
        4 => "connection lost during the download",
        5 => "integrity check failure of the new firmware package",
        6 => "unsupported package type",
        7 => "invalid URI",
        8 => "firmware update failed",
        9 => "unsupported protocol",
        _ => "a result that LwM2M 1.1 does not define",
    }
}

/// Whether another attempt can end differently. Too little flash (2), a damaged package (5), one
/// of a type (6), at a URI (7) or by a protocol (9) that the device does not know stay so; memory
/// (3), the network (4) and an installation (8) may fare better, and of an unknown result nobody
/// knows.
pub(crate) fn is_worth_a_retry(result: i64) -> bool {
    !matches!(result, 2 | 5 | 6 | INVALID_URI | UNSUPPORTED_PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_words_and_a_rule() {
        let retried: Vec<i64> = (2..=11).filter(|result| is_worth_a_retry(*result)).collect();
        assert_eq!(retried, [3, 4, 8, 10, 11]);
        let mut texts: Vec<_> = (0..=10).map(result_text).collect();
        texts.dedup();
        assert_eq!(texts.len(), 11);
        assert_eq!(result_text(-1), result_text(10));
    }
}
