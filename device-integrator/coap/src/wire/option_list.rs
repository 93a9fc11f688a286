//! Options that a message to be sent owns.

use thiserror::Error;

use super::encode::insert_option;
use super::{OptionNumber, OptionRef, Options, UintValue, uint_value};

/// The most that a list holds, in bytes: the longest Proxy-Uri (1,034, RFC 7252 table 4) and a
/// handful of short options beside it.
pub const OPTION_LIST_MAX_BYTES: usize = 1_280;

/// The list has no room for an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("options of {0} bytes exceed the limit of 1280")]
pub struct OptionListFull(pub usize);

/// Options in the order of their numbers, kept in one allocation, in their wire form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OptionList {
    encoded: Vec<u8>,
}

impl OptionList {
    /// An empty list, without an allocation.
    pub const fn new() -> Self {
        Self { encoded: Vec::new() }
    }

    /// The options of a message, copied in one piece.
    pub fn copy(options: Options<'_>) -> Self {
        Self { encoded: options.rest_bytes().to_vec() }
    }

    /// Adds an option, behind those of the same number.
    ///
    /// # Errors
    /// The list would exceed [`OPTION_LIST_MAX_BYTES`]; it is unchanged then.
    pub fn push(&mut self, number: OptionNumber, value: &[u8]) -> Result<(), OptionListFull> {
        // Five bytes is the longest option header.
        let size = self.encoded.len() + value.len() + 5;
        if size > OPTION_LIST_MAX_BYTES {
            return Err(OptionListFull(size));
        }
        insert_option(&mut self.encoded, 0, number, value);
        Ok(())
    }

    /// Adds an option with an integer value.
    ///
    /// # Errors
    /// As [`OptionList::push`].
    pub fn push_uint(&mut self, number: OptionNumber, value: u32) -> Result<(), OptionListFull> {
        self.push(number, UintValue::new(value).as_bytes())
    }

    /// The options in order.
    pub fn iter(&self) -> Options<'_> {
        Options::over(&self.encoded)
    }

    /// The first option of this number.
    pub fn first(&self, number: OptionNumber) -> Option<OptionRef<'_>> {
        self.iter().find(|option| option.number == number)
    }

    /// The value of the first option of this number, if its length is allowed.
    pub fn recognised(&self, number: OptionNumber) -> Option<&[u8]> {
        let value = self.first(number)?.value;
        match number.format() {
            Some((lengths, _)) if !lengths.contains(&value.len()) => None,
            _ => Some(value),
        }
    }

    /// The integer of the first option of this number, if its length is allowed.
    pub fn recognised_uint(&self, number: OptionNumber) -> Option<u32> {
        uint_value(self.recognised(number)?)
    }

    /// Whether there is no option.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// Bytes of the options on the wire.
    pub fn len_bytes(&self) -> usize {
        self.encoded.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stay_sorted_and_stable() {
        let mut list = OptionList::new();
        list.push(OptionNumber::URI_QUERY, b"q").unwrap();
        list.push(OptionNumber::URI_PATH, b"a").unwrap();
        list.push(OptionNumber::URI_PATH, b"b").unwrap();
        list.push_uint(OptionNumber::OBSERVE, 0).unwrap();
        let options: Vec<_> = list.iter().map(|o| (o.number.0, o.value)).collect();
        assert_eq!(options, [(6, &b""[..]), (11, b"a"), (11, b"b"), (15, b"q")]);
        assert_eq!(list.first(OptionNumber::URI_PATH).unwrap().value, b"a");
    }

    #[test]
    fn a_full_list_says_so_and_stays_as_it_is() {
        let mut list = OptionList::new();
        list.push(OptionNumber::PROXY_URI, &[b'x'; 1_034]).unwrap();
        let before = list.clone();
        assert_eq!(list.push(OptionNumber::URI_PATH, &[0; 255]), Err(OptionListFull(1_298)));
        assert_eq!(list, before);
    }
}
