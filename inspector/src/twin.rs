//! The state of an LwM2M device: what it last said of each of its resources.
//!
//! Its messages are flat JSON objects, path to value, and each says something about some resources
//! only. The state is all of them together, the newest value of each path.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Path to value, as they stand in a message; values are not looked into.
type Values<'a> = BTreeMap<&'a str, &'a RawValue>;

/// `before` with the values of `after`; `None` where one of them is no flat object.
pub(crate) fn merge(before: &[u8], after: &[u8]) -> Option<Vec<u8>> {
    let mut values: Values<'_> = serde_json::from_slice(before).ok()?;
    values.extend(serde_json::from_slice::<Values<'_>>(after).ok()?);
    serde_json::to_vec(&values).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_of_each_path_stays() {
        let merged = merge(br#"{"/3/0/9":80,"/3303/0/5700":21.50}"#, br#"{"/3303/0/5700":-1e9}"#);
        assert_eq!(merged.unwrap(), br#"{"/3/0/9":80,"/3303/0/5700":-1e9}"#);
        assert_eq!(merge(b"{}", br#"{"/3/0/0":"\"x\""}"#).unwrap(), br#"{"/3/0/0":"\"x\""}"#);
        assert_eq!(merge(b"[1]", b"{}"), None);
        assert_eq!(merge(b"{}", b"?"), None);
    }
}
