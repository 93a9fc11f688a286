//! Numbers as JavaScript prints them (ECMA-262, Number::toString with radix 10).

/// Beyond this, a double no longer holds every integer: 2^53.
const EXACT_INTEGER_MAX: u64 = 1 << 53;

/// A number as it stood in the payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Signed(i64),
    Unsigned(u64),
    Single(f32),
    Double(f64),
}

impl Number {
    /// As JavaScript's only kind of number.
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Signed(number) => number as f64,
            Self::Unsigned(number) => number as f64,
            Self::Single(number) => f64::from(number),
            Self::Double(number) => number,
        }
    }

    /// Appends the JSON form.
    pub(crate) fn write(self, out: &mut String) {
        match self {
            Self::Signed(number) if number.unsigned_abs() <= EXACT_INTEGER_MAX => {
                out.push_str(itoa::Buffer::new().format(number));
            }
            Self::Unsigned(number) if number <= EXACT_INTEGER_MAX => {
                out.push_str(itoa::Buffer::new().format(number));
            }
            Self::Single(number) if number.is_finite() => {
                write_shortest(zmij::Buffer::new().format_finite(number), out);
            }
            other => write_f64(other.as_f64(), out),
        }
    }
}

fn write_f64(number: f64, out: &mut String) {
    if number.is_finite() {
        write_shortest(zmij::Buffer::new().format_finite(number), out);
    } else {
        out.push_str("null");
    }
}

/// Rewrites Rust's shortest form (`1.0`, `1e-5`, `1e20`) into JavaScript's (`1`, `0.00001`,
/// `100000000000000000000`).
fn write_shortest(text: &str, out: &mut String) {
    if let Some((mantissa, exponent)) = text.split_once('e') {
        return write_scientific(mantissa, exponent.parse().unwrap_or(0), out);
    }
    match text.strip_suffix(".0") {
        Some("-0") => out.push('0'),
        Some(integer) => out.push_str(integer),
        None => out.push_str(text),
    }
}

/// `mantissa` has one digit before its point, if it has one.
fn write_scientific(mantissa: &str, exponent: i32, out: &mut String) {
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (head, tail) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    out.push_str(sign);
    match exponent {
        // Up to 21 digits before the point are written out.
        0..=20 => {
            out.push_str(head);
            let whole = usize::try_from(exponent).unwrap_or(0);
            out.push_str(&tail[..whole.min(tail.len())]);
            out.extend(std::iter::repeat_n('0', whole.saturating_sub(tail.len())));
            if tail.len() > whole {
                out.push('.');
                out.push_str(&tail[whole..]);
            }
        }
        // Up to five zeros behind the point are written out.
        -6..0 => {
            out.push_str("0.");
            let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
            out.extend(std::iter::repeat_n('0', zeros));
            out.push_str(head);
            out.push_str(tail);
        }
        _ => {
            out.push_str(head);
            if !tail.is_empty() {
                out.push('.');
                out.push_str(tail);
            }
            out.push('e');
            out.push(if exponent < 0 { '-' } else { '+' });
            out.push_str(itoa::Buffer::new().format(exponent.unsigned_abs()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(number: Number) -> String {
        let mut out = String::new();
        number.write(&mut out);
        out
    }

    #[test]
    fn floats_look_like_javascript() {
        // Each pair as `String(x)` prints it.
        let pairs = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (1e-5, "0.00001"),
            (1.5e-5, "0.000015"),
            (1e-6, "0.000001"),
            (-1.25e-6, "-0.00000125"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (1e15, "1000000000000000"),
            (1e16, "10000000000000000"),
            (1.5e20, "150000000000000000000"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (-1.5e21, "-1.5e+21"),
            (7.490929188596135e247, "7.490929188596135e+247"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "null"),
            (f64::NEG_INFINITY, "null"),
        ];
        for (number, expected) in pairs {
            assert_eq!(text(Number::Double(number)), expected, "{number:e}");
        }
    }

    #[test]
    fn a_single_is_printed_in_its_own_shortest_form() {
        let single = f32::from_be_bytes([0x42, 0x4b, 0xbc, 0xf9]);
        assert_eq!(text(Number::Single(single)), "50.934544");
        assert_eq!(text(Number::Double(f64::from(single))), "50.93454360961914");
        assert_eq!(text(Number::Single(f32::INFINITY)), "null");
        assert_eq!(text(Number::Single(1e20)), "100000000000000000000");
    }

    #[test]
    fn integers_are_exact_to_two_to_the_53() {
        assert_eq!(text(Number::Signed(-9_007_199_254_740_991)), "-9007199254740991");
        assert_eq!(text(Number::Unsigned(9_007_199_254_740_993)), "9007199254740992");
        assert_eq!(text(Number::Unsigned(u64::MAX)), "18446744073709552000");
        assert_eq!(text(Number::Signed(i64::MIN)), "-9223372036854775808".replace("5808", "6000"));
    }
}
