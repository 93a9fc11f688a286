//! A pull reader for JSON (RFC 8259) that builds nothing and counts what it passes.

use std::borrow::Cow;

use super::DecodeError;
use super::budget::Budget;
use super::typing::Number;

/// The text and how far it has been read.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    budget: Budget,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(bytes).map_err(|error| DecodeError::Syntax {
            at: error.valid_up_to(),
            what: "the text is not UTF-8",
        })?;
        Ok(Self { text, at: 0, budget: Budget::default() })
    }

    pub(super) fn error(&self, what: &'static str) -> DecodeError {
        DecodeError::Syntax { at: self.at, what }
    }

    /// The next byte that is no white space, which stays unread.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), DecodeError> {
        if self.accept(byte) { Ok(()) } else { Err(self.error(what)) }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), DecodeError> {
        if self.peek().is_some() {
            return Err(self.error("something follows the end"));
        }
        Ok(())
    }

    /// Into an array; then call [`Reader::element`] before each element.
    pub(super) fn array(&mut self) -> Result<(), DecodeError> {
        self.expect(b'[', "expected an array")?;
        self.budget.enter()
    }

    /// Whether another element follows; `first` must be true before the first one.
    pub(super) fn element(&mut self, first: &mut bool) -> Result<bool, DecodeError> {
        self.next_of(b']', first, "expected a comma or the end of the array")
    }

    /// Into an object; then call [`Reader::key`] before each value.
    pub(super) fn object(&mut self) -> Result<(), DecodeError> {
        self.expect(b'{', "expected an object")?;
        self.budget.enter()
    }

    /// The name of the next member, or `None` at the end of the object.
    pub(super) fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, DecodeError> {
        if !self.next_of(b'}', first, "expected a comma or the end of the object")? {
            return Ok(None);
        }
        let key = self.quoted()?;
        self.expect(b':', "expected a colon")?;
        Ok(Some(key))
    }

    fn next_of(
        &mut self,
        end: u8,
        first: &mut bool,
        what: &'static str,
    ) -> Result<bool, DecodeError> {
        if self.accept(end) {
            // A comma before it was followed by an element, so it stands where it may.
            self.budget.leave();
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.expect(b',', what)?;
            if self.peek() == Some(end) {
                return Err(self.error("nothing follows the comma"));
            }
        }
        Ok(true)
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.budget.node()?;
        self.quoted()
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        let plain = self.plain()?;
        if self.text.as_bytes()[self.at] == b'"' {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        self.at = start;
        self.escaped().map(Cow::Owned)
    }

    /// Up to the next quotation mark or escape, which stays unread.
    fn plain(&mut self) -> Result<&'a str, DecodeError> {
        let start = self.at;
        loop {
            match self.text.as_bytes().get(self.at) {
                // Both are ASCII, so the text is cut between characters.
                Some(b'"' | b'\\') => return Ok(&self.text[start..self.at]),
                Some(0..0x20) => return Err(self.error("a control character in a string")),
                Some(_) => self.at += 1,
                None => return Err(self.error("the string does not end")),
            }
        }
    }

    fn escaped(&mut self) -> Result<String, DecodeError> {
        let mut text = String::new();
        loop {
            text.push_str(self.plain()?);
            let is_end = self.text.as_bytes()[self.at] == b'"';
            self.at += 1;
            if is_end {
                return Ok(text);
            }
            text.push(self.escape()?);
        }
    }

    /// What stands after a reverse solidus.
    fn escape(&mut self) -> Result<char, DecodeError> {
        let byte = self.text.as_bytes().get(self.at).copied();
        let escaped = match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.at += 1;
        Ok(escaped)
    }

    /// Four hexadecimal digits, and four more if the first are half of a surrogate pair.
    fn unicode(&mut self) -> Result<char, DecodeError> {
        let high = self.hex()?;
        let is_pair = (0xd800..0xdc00).contains(&high);
        if !is_pair {
            return char::from_u32(high).ok_or_else(|| self.error("half of a surrogate pair"));
        }
        if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Err(self.error("half of a surrogate pair"));
        }
        self.at += 2;
        let low = self.hex()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(self.error("half of a surrogate pair"));
        }
        let point = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        char::from_u32(point).ok_or_else(|| self.error("half of a surrogate pair"))
    }

    fn hex(&mut self) -> Result<u32, DecodeError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let mut value = 0;
        for digit in digits.ok_or_else(|| self.error("the escape is cut off"))? {
            let digit = char::from(*digit).to_digit(16);
            value = value << 4 | digit.ok_or_else(|| self.error("expected a hexadecimal digit"))?;
        }
        self.at += 4;
        Ok(value)
    }

    pub(super) fn number(&mut self) -> Result<Number, DecodeError> {
        self.budget.node()?;
        let _ = self.peek();
        let start = self.at;
        let is_negative = self.take_if(b'-');
        let leading_zero = self.text.as_bytes().get(self.at) == Some(&b'0');
        let digits = self.digits()?;
        if leading_zero && digits > 1 {
            return Err(self.error("a number begins with zero"));
        }
        let mut is_whole = true;
        if self.take_if(b'.') {
            is_whole = false;
            self.digits()?;
        }
        if self.take_if(b'e') || self.take_if(b'E') {
            is_whole = false;
            let _ = self.take_if(b'+') || self.take_if(b'-');
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        // Negative zero exists only as a float.
        if is_whole && text != "-0" {
            if let Ok(value) = text.parse() {
                return Ok(Number::Integer(value));
            }
            if !is_negative && let Ok(value) = text.parse() {
                return Ok(Number::Unsigned(value));
            }
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Number::Float(value)),
            _ => Err(DecodeError::Syntax { at: start, what: "a number is too large" }),
        }
    }

    fn take_if(&mut self, byte: u8) -> bool {
        let found = self.text.as_bytes().get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    /// One or more digits; how many.
    fn digits(&mut self) -> Result<usize, DecodeError> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.error("expected a digit")) } else { Ok(count) }
    }

    pub(super) fn boolean(&mut self) -> Result<bool, DecodeError> {
        self.budget.node()?;
        if self.literal("true") {
            Ok(true)
        } else if self.literal("false") {
            Ok(false)
        } else {
            Err(self.error("expected true or false"))
        }
    }

    fn literal(&mut self, word: &str) -> bool {
        let _ = self.peek();
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Over a value of any kind. Its depth is limited, so this may call itself.
    pub(super) fn skip(&mut self) -> Result<(), DecodeError> {
        let mut first = true;
        match self.peek() {
            Some(b'[') => {
                self.array()?;
                while self.element(&mut first)? {
                    self.skip()?;
                }
                Ok(())
            }
            Some(b'{') => {
                self.object()?;
                while self.key(&mut first)?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            Some(b'"') => self.string().map(|_| ()),
            Some(b't' | b'f') => self.boolean().map(|_| ()),
            Some(b'n') => {
                self.budget.node()?;
                if self.literal("null") { Ok(()) } else { Err(self.error("expected null")) }
            }
            _ => self.number().map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<(), DecodeError> {
        let mut reader = Reader::new(text.as_bytes())?;
        reader.skip()?;
        reader.end()
    }

    #[test]
    fn what_is_json_is_passed_and_nothing_else() {
        for text in
            ["null", " [ ] ", "{}", "[1,2]", r#"{"a":[true,false,null],"b":"\u00e9\n"}"#, "-0.5e-3"]
        {
            assert_eq!(read(text), Ok(()), "{text}");
        }
        let refused = [
            "",
            "[",
            "[1,]",
            "[,1]",
            "{,}",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\n\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "[1 2]",
            "1 2",
            "1e999",
            "'a'",
            "NaN",
        ];
        for text in refused {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_keep_their_value() {
        for (text, number) in [
            ("9223372036854775807", Number::Integer(i64::MAX)),
            ("18446744073709551615", Number::Unsigned(u64::MAX)),
            ("-9223372036854775808", Number::Integer(i64::MIN)),
            ("18446744073709551616", Number::Float(18_446_744_073_709_551_616.0)),
            ("-9223372036854775809", Number::Float(-9_223_372_036_854_775_808.0)),
            ("0.1", Number::Float(0.1)),
            ("1e2", Number::Float(100.0)),
        ] {
            assert_eq!(Reader::new(text.as_bytes()).unwrap().number(), Ok(number));
        }
        let zero = Reader::new(b"-0").unwrap().number().unwrap();
        assert!(zero.as_f64().is_sign_negative());
    }

    #[test]
    fn depth_and_size_are_limited() {
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(read(&deep(32)), Ok(()));
        assert_eq!(read(&deep(33)), Err(DecodeError::TooDeep { depth: 33 }));
        assert_eq!(read(&"[".repeat(60_000)), Err(DecodeError::TooDeep { depth: 33 }));
        let wide = |nodes: usize| format!("[{}1]", "1,".repeat(nodes - 2));
        assert_eq!(read(&wide(4096)), Ok(()));
        assert_eq!(read(&wide(4097)), Err(DecodeError::TooManyNodes { nodes: 4097 }));
    }

    proptest! {
        #[test]
        fn strings_are_those_of_another_reader(text in any::<String>()) {
            let written = serde_json::to_string(&text).unwrap();
            let mut reader = Reader::new(written.as_bytes()).unwrap();
            prop_assert_eq!(reader.string().unwrap(), text);
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn another_reader_accepts_the_same(text in r#"[\[\]{}",:0-9eE.+\-tfn\\u a]{0,12}"#) {
            let other = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(read(&text).is_ok(), other.is_ok(), "{}", text);
        }
    }
}
