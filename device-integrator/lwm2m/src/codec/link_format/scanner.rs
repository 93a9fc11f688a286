//! From text to links and their parameters (RFC 6690 §2).

use crate::excerpt::Excerpt;
use crate::limits::{INPUT_BYTES_MAX, LINKS_MAX};
use crate::path::PathError;

/// Why a list of links was refused; the fault of the device that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkFormatError {
    /// The list is too long.
    #[error("list of links of {bytes} bytes exceeds the limit of {INPUT_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// There are too many links.
    #[error("{links} links exceed the limit of {LINKS_MAX}")]
    TooManyLinks {
        /// The number at which reading stopped.
        links: usize,
    },
    /// The list is not UTF-8.
    #[error("the list of links is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// Where it stops to be.
        at: usize,
    },
    /// The text is not of the format.
    #[error("malformed at byte {at}: {what}")]
    Syntax {
        /// Where.
        at: usize,
        /// What was wrong or expected.
        what: &'static str,
    },
    /// A target is not a path.
    #[error("link {target}: {error}")]
    Target {
        /// The target.
        target: Excerpt,
        /// What is wrong with it.
        error: PathError,
    },
    /// A target that does not begin with a slash and so could mean a path or anything.
    #[error("link <{0}> must begin with a slash, as in </1/0>")]
    Relative(Excerpt),
    /// A target deeper than an object instance, which a registration does not hold.
    #[error("link {0} names more than an object instance")]
    TooDeep(Excerpt),
    /// A parameter with a value that it cannot have.
    #[error("link {target}: parameter {name} has the value {value}, expected: {expected}")]
    Parameter {
        /// The target of the link.
        target: Excerpt,
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: Excerpt,
        /// What it could be.
        expected: &'static str,
    },
}

/// A link and its parameters, in the order in which they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link<'a> {
    pub(super) target: &'a str,
    pub(super) parameters: Vec<(&'a str, Option<Text<'a>>)>,
}

/// The value of a parameter: a token, or what stands between quotation marks, escapes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a str,
    pub(super) is_quoted: bool,
}

/// Most parameters of one link; Discover answers have up to a dozen.
const PARAMETERS_MAX: usize = 64;

/// The text and how far it has been read.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    links: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, LinkFormatError> {
        if bytes.len() > INPUT_BYTES_MAX {
            return Err(LinkFormatError::TooLong { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| LinkFormatError::NotUtf8 { at: error.valid_up_to() })?;
        Ok(Self { text, at: 0, links: 0 })
    }

    fn error(&self, what: &'static str) -> LinkFormatError {
        LinkFormatError::Syntax { at: self.at, what }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// RFC 6690 allows no white space between the parts; some devices write it.
    fn skip_space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn accept(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.byte() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Up to the first byte that `stops`, which stays unread and must be ASCII.
    fn until(&mut self, stops: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        self.at += rest.iter().position(|byte| stops(*byte)).unwrap_or(rest.len());
        &self.text[start..self.at]
    }

    /// The next link; `None` at the end. An empty list has no link.
    pub(super) fn next(&mut self) -> Result<Option<Link<'a>>, LinkFormatError> {
        self.skip_space();
        if self.at == self.text.len() && self.links == 0 {
            return Ok(None);
        }
        if self.links > 0 {
            if self.at == self.text.len() {
                return Ok(None);
            }
            if !self.accept(b',') {
                return Err(self.error("expected a comma or a semicolon after a link"));
            }
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(LinkFormatError::TooManyLinks { links: self.links });
        }
        if !self.accept(b'<') {
            return Err(self.error("expected a link in angle brackets"));
        }
        let target = self.until(|byte| byte == b'>' || byte == b'<');
        if self.byte() != Some(b'>') {
            return Err(self.error("the link does not end with an angle bracket"));
        }
        self.at += 1;
        let mut parameters = Vec::new();
        while self.accept(b';') {
            if parameters.len() == PARAMETERS_MAX {
                return Err(self.error("a link has more than 64 parameters"));
            }
            parameters.push(self.parameter()?);
        }
        Ok(Some(Link { target, parameters }))
    }

    fn parameter(&mut self) -> Result<(&'a str, Option<Text<'a>>), LinkFormatError> {
        self.skip_space();
        let name = self.until(|byte| !byte.is_ascii_graphic() || b"=;,<>\"".contains(&byte));
        if name.is_empty() {
            return Err(self.error("expected the name of a parameter"));
        }
        if !self.accept(b'=') {
            return Ok((name, None));
        }
        self.skip_space();
        if self.byte() == Some(b'"') {
            return self.quoted().map(|text| (name, Some(text)));
        }
        let raw = self.until(|byte| byte <= b' ' || b";,\"<>".contains(&byte));
        if raw.is_empty() {
            return Err(self.error("expected the value of a parameter"));
        }
        Ok((name, Some(Text { raw, is_quoted: false })))
    }

    /// RFC 2616 §2.2: a reverse solidus takes the meaning from the character that follows.
    fn quoted(&mut self) -> Result<Text<'a>, LinkFormatError> {
        self.at += 1;
        let start = self.at;
        loop {
            self.until(|byte| byte == b'"' || byte == b'\\');
            match self.byte() {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Text { raw, is_quoted: true });
                }
                Some(_) => {
                    let escaped = self.text[self.at + 1..].chars().next();
                    let what = "the quoted value does not end";
                    self.at += 1 + escaped.ok_or_else(|| self.error(what))?.len_utf8();
                }
                None => return Err(self.error("the quoted value does not end")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(text: &str) -> Result<Vec<Link<'_>>, LinkFormatError> {
        let mut scanner = Scanner::new(text.as_bytes())?;
        let mut links = Vec::new();
        while let Some(link) = scanner.next()? {
            links.push(link);
        }
        Ok(links)
    }

    #[test]
    fn quoted_values_may_hold_what_separates() {
        let text = r#"</a>;title="x,y;<z> \" \\";if, </b>;sz=12 , </c>"#;
        let found = links(text).unwrap();
        let quoted = Text { raw: r#"x,y;<z> \" \\"#, is_quoted: true };
        assert_eq!(found[0].parameters, [("title", Some(quoted)), ("if", None)]);
        assert_eq!(found[1].target, "/b");
        assert_eq!(found[1].parameters, [("sz", Some(Text { raw: "12", is_quoted: false }))]);
        assert_eq!(found[2], Link { target: "/c", parameters: vec![] });
        assert_eq!(links(""), Ok(vec![]));
        assert_eq!(links(" \n"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_list_of_links_is_refused() {
        for text in [
            ",",
            "</a>,",
            "</a>,,</b>",
            "</a></b>",
            "/a",
            "<a",
            "<a<b>",
            "</a>;",
            "</a>;=1",
            "</a>;b=",
            "</a>;b=\"",
            "</a>;b=\"\\",
            "</a>;b=\"\\\"",
            "</a>;b=c d",
            "</a> b",
            "</a>;b=\"c\"d",
            "</a>;\u{e9}=1",
        ] {
            assert!(links(text).is_err(), "{text}");
        }
        let many = vec!["</1/0>"; LINKS_MAX + 1].join(",");
        assert_eq!(links(&many), Err(LinkFormatError::TooManyLinks { links: 1025 }));
        assert!(links(&many[..many.len() - 7]).is_ok());
        assert!(links(&format!("</1>{}", ";a".repeat(65))).is_err());
        let long = " ".repeat(INPUT_BYTES_MAX + 1);
        assert_eq!(links(&long), Err(LinkFormatError::TooLong { bytes: 65537 }));
        // An escape may stand before a character of several bytes.
        assert!(links("</a>;b=\"\\\u{20ac}\"").is_ok());
    }
}
