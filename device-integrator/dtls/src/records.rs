//! The records of one datagram (RFC 6347 §4.1.1, RFC 9146 §4).

use crate::hello::RECORD_HEADER_BYTES;
use crate::snapshot::CID_BYTES;

pub(crate) const TYPE_ALERT: u8 = 21;
pub(crate) const TYPE_APPLICATION_DATA: u8 = 23;
/// `tls12_cid` (RFC 9146 §4).
pub(crate) const TYPE_CID: u8 = 25;

/// One record with its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a>(pub(crate) &'a [u8]);

impl Record<'_> {
    pub(crate) fn is(&self, record_type: u8) -> bool {
        self.0.first() == Some(&record_type)
    }

    /// Whether it claims to be encrypted: epoch 0 is not.
    pub(crate) fn is_protected(&self) -> bool {
        self.0.get(3..5) != Some(&[0, 0])
    }
}

/// What is left of a datagram; ends with the first bytes that are no whole record.
pub(crate) struct Records<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let cid_bytes = if self.0.first() == Some(&TYPE_CID) { CID_BYTES } else { 0 };
        let header_bytes = RECORD_HEADER_BYTES + cid_bytes;
        let length = self.0.get(header_bytes - 2..header_bytes)?;
        let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
        let (record, rest) = self.0.split_at_checked(header_bytes + length)?;
        self.0 = rest;
        Some(Record(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_cut_into_its_whole_records() {
        let alert = [21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
        let with_cid = [25, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 99];
        let datagram = [&alert[..], &with_cid, &alert[..14]].concat();
        let records: Vec<_> = Records(&datagram).collect();
        assert_eq!(records, [Record(&alert), Record(&with_cid)]);
        assert!(records[0].is(TYPE_ALERT) && !records[0].is_protected());
        assert!(records[1].is_protected());
        assert_eq!(Records(&[25; 20]).next(), None);
    }
}
