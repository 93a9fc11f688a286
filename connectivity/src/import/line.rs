//! Lines of a file that may hold anything: each is read into a bounded buffer.

use std::io::{self, BufRead, BufReader, Read};

/// Longest line. The longest sensible one has a label of 255 characters of four bytes and five
/// numbers of at most 40: some 1,300 bytes.
pub const LINE_BYTES_MAX: usize = 4_096;

/// Reads lines, counting from 1.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    bytes: Vec<u8>,
    number: u64,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    /// Longer than [`LINE_BYTES_MAX`]; so many bytes.
    TooLong(u64),
}

impl<R: Read> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        // 64 KiB a read: some 600 lines, so the system calls cost nothing (estimate).
        Self { reader: BufReader::with_capacity(65_536, reader), bytes: Vec::new(), number: 0 }
    }

    /// The number of the line that was read last.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.bytes.clear();
        let mut length = 0_u64;
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if buffer.is_empty() && length == 0 {
                return Ok(None);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            // One byte more than a carriage return after the longest line.
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(&part[..part.len().min(room)]);
            length += part.len() as u64;
            let consumed = part.len() + usize::from(end.is_some());
            let is_last = end.is_some() || buffer.is_empty();
            self.reader.consume(consumed);
            if is_last {
                break;
            }
        }
        self.number += 1;
        if self.bytes.len() as u64 == length && self.bytes.last() == Some(&b'\r') {
            self.bytes.pop();
            length -= 1;
        }
        Ok(Some(if length > LINE_BYTES_MAX as u64 {
            Line::TooLong(length)
        } else {
            Line::Whole(&self.bytes)
        }))
    }
}

/// Splits a line at `separator` into `fields`. A field may stand in double quotes, in which a
/// double quote is written twice (RFC 4180 §2, except that no field goes over a line's end: that
/// would let one wrong quote swallow the rest of the file).
pub(super) fn split(line: &str, separator: char, fields: &mut Vec<String>) -> Result<(), Quote> {
    let mut count = 0;
    let mut rest = line;
    loop {
        if fields.len() == count {
            fields.push(String::new());
        }
        let field = &mut fields[count];
        field.clear();
        count += 1;
        let trimmed = rest.trim_start_matches(' ');
        let after = match trimmed.strip_prefix('"') {
            Some(quoted) => unquote(quoted, field)?,
            None => {
                let end = rest.find(separator).unwrap_or(rest.len());
                let (text, after) = rest.split_at(end);
                if text.contains('"') {
                    return Err(Quote::Misplaced);
                }
                field.push_str(text.trim());
                after
            }
        };
        match after.strip_prefix(separator) {
            Some(next) => rest = next,
            None if after.trim().is_empty() => break,
            None => return Err(Quote::Misplaced),
        }
    }
    fields.truncate(count);
    Ok(())
}

/// What is wrong with the double quotes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quote {
    Open,
    Misplaced,
}

/// Reads to the closing quote into `field`; returns what follows.
fn unquote<'a>(mut quoted: &'a str, field: &mut String) -> Result<&'a str, Quote> {
    loop {
        let (text, after) = quoted.split_once('"').ok_or(Quote::Open)?;
        field.push_str(text);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                quoted = next;
            }
            None => return Ok(after.trim_start_matches(' ')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(bytes);
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push(match line {
                Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Line::TooLong(bytes) => format!("{bytes} bytes"),
            });
        }
        assert_eq!(lines.number(), all.len() as u64);
        all
    }

    #[test]
    fn lines_end_by_either_convention() {
        assert_eq!(all(b"a\r\n\nb\n\r\nc"), ["a", "", "b", "", "c"]);
        assert_eq!(all(b"a\n"), ["a"]);
        assert!(all(b"").is_empty());
    }

    #[test]
    fn a_long_line_is_counted_and_skipped() {
        let mut text = vec![b'x'; LINE_BYTES_MAX];
        text.extend_from_slice(b"\r\n");
        text.extend(vec![b'y'; 1_000_000]);
        text.extend_from_slice(b"\nz");
        let lines = all(&text);
        assert_eq!(lines[0].len(), LINE_BYTES_MAX);
        assert_eq!(lines[1..], ["1000000 bytes", "z"]);
    }

    #[test]
    fn an_empty_line_at_the_edge_of_the_buffer_is_a_line() {
        for length in [65_535, 65_536] {
            let mut text = b"ab\n".repeat(30_000);
            text.truncate(length - 1);
            text.extend_from_slice(b"\n\n\nend");
            assert_eq!(all(&text).last().unwrap(), "end");
            assert_eq!(all(&text).len(), text.iter().filter(|byte| **byte == b'\n').count() + 1);
        }
    }

    fn fields(line: &str) -> Result<Vec<String>, Quote> {
        let mut fields = vec!["rest of the line before".to_owned(); 3];
        split(line, ';', &mut fields).map(|()| fields)
    }

    #[test]
    fn quotes_protect_separators() {
        assert_eq!(fields("a; b ;c").unwrap(), ["a", "b", "c"]);
        assert_eq!(fields(r#""a;b";"say ""x""" ;"#).unwrap(), ["a;b", "say \"x\"", ""]);
        assert_eq!(fields("").unwrap(), [""]);
        assert_eq!(fields(r#"a;"b"#), Err(Quote::Open));
        assert_eq!(fields(r#""a"b;c"#), Err(Quote::Misplaced));
        assert_eq!(fields(r#"a"b;c"#), Err(Quote::Misplaced));
    }
}
