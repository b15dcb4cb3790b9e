//! Checks whether PostgreSQL's JSONB can hold a text.
//!
//! An error of the database would abort the caller's transaction. So exactly the texts that it would refuse are refused
//! before they are sent. The rules are those of PostgreSQL's `jsonb_in` and `numeric_in`; a test compares them with a
//! real server. Only the rule for nesting can't be exact, because the depth that a server allows depends on its
//! `max_stack_depth` and on its build.

/// The deepest nesting of arrays and objects. A server with the default `max_stack_depth` of 2 MB gives up at 13,000
/// levels.
const MAX_DEPTH: usize = 6_000;
/// The longest text, in bytes. JSONB keeps the sizes of arrays and objects in 28 bits. A text of this length can't
/// exceed that: where the text of an element has two bytes, JSONB needs 12 bytes at most.
const MAX_LENGTH: usize = 32 << 20;
/// The highest exponent of a number's most significant digit: 131,072 digits before the point.
const MAX_MAGNITUDE: i64 = 131_071;
/// The largest number of digits behind the point, zeros included.
const MAX_SCALE: i64 = 16_383;
/// The exponent from which on PostgreSQL's parser refuses a number, even if the number is zero.
const EXPONENT_END: i64 = (i32::MAX / 2) as i64;

const TOO_LONG: &str = "is longer than the 32 MiB that PostgreSQL's JSONB is sure to hold: shorten it";
const TEXT: &str = "holds \\u0000 or half of a surrogate pair, which PostgreSQL's JSONB refuses: remove it";
const NUMBER: &str = "holds a number of more than 131,072 digits before or 16,383 behind its point, which PostgreSQL's \
    JSONB refuses: write it as a string";
const TOO_DEEP: &str = "is nested deeper than the 6,000 levels that PostgreSQL is sure to parse: flatten it";

/// The reason why JSONB can't hold this text, which is JSON in UTF-8; `None` if it can.
pub(crate) fn problem(json: &str) -> Option<&'static str> {
    if json.len() > MAX_LENGTH {
        return Some(TOO_LONG);
    }
    let text = json.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => match string(text, at + 1) {
                Some(end) => at = end,
                None => return Some(TEXT),
            },
            b'-' | b'0'..=b'9' => {
                let length = text[at..]
                    .iter()
                    .take_while(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
                    .count();
                if !is_numeric(&text[at..at + length]) {
                    return Some(NUMBER);
                }
                at += length;
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(TOO_DEEP);
                }
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    None
}

/// The end of the string that begins at `at`; `None` if it holds `\u0000` or half of a surrogate pair.
fn string(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        if text.get(at + 1) != Some(&b'u') {
            at += 2;
            continue;
        }
        at += match unit(text, at)? {
            0 | 0xdc00..=0xdfff => return None,
            0xd800..=0xdbff => match unit(text, at + 6)? {
                0xdc00..=0xdfff => 12,
                _ => return None,
            },
            _ => 6,
        };
    }
}

/// The number of the escape `\uXXXX` at `at`.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let hex = text.get(at..at + 6)?.strip_prefix(br"\u")?;
    u16::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

/// Can PostgreSQL's `numeric` hold this number of JSON?
fn is_numeric(number: &[u8]) -> bool {
    let number = number.strip_prefix(b"-").unwrap_or(number);
    let (digits, exponent) = match number.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&number[..at], exponent(&number[at + 1..])),
        None => (number, Some(0)),
    };
    let Some(exponent) = exponent else { return false };
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = point.map_or((digits, &b""[..]), |point| (&digits[..point], &digits[point + 1..]));
    let length = |digits: &[u8]| i64::try_from(digits.len()).unwrap_or(i64::MAX);
    // Zeros behind the point count too.
    if length(fraction) - exponent > MAX_SCALE {
        return false;
    }
    let first = whole.iter().chain(fraction).position(|digit| *digit != b'0');
    // Zero has no magnitude.
    first.is_none_or(|first| length(whole) - 1 - i64::try_from(first).unwrap_or(i64::MAX) + exponent <= MAX_MAGNITUDE)
}

/// An exponent, if PostgreSQL's parser accepts it.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let mut exponent = 0_i64;
    for digit in digits {
        exponent = exponent * 10 + i64::from(digit - b'0');
        if exponent >= EXPONENT_END {
            return None;
        }
    }
    Some(if negative { -exponent } else { exponent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jsonb_can_not_hold_is_known() {
        let holds = |json: &str| problem(json).is_none();
        for json in [
            "0e1073741822",
            "1e131071",
            "0.1e131072",
            "10e131070",
            "1e-16383",
            r#""\ud83d\ude00""#,
            r#"{"\\u0000":[1e400,"é"]}"#,
        ] {
            assert!(holds(json), "{json}");
        }
        for json in
            ["0e1073741823", "0e99999999999999999999", "1e131072", "10e131071", "1e-16384", "0e-16384", "0.1e-16383"]
        {
            assert_eq!(problem(json), Some(NUMBER), "{json}");
        }
        for json in [
            r#""\u0000""#,
            r#"{"\ud83d":1}"#,
            r#""\ud83dx""#,
            r#""\ude00""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\ud83d\n""#,
        ] {
            assert_eq!(problem(json), Some(TEXT), "{json}");
        }
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(holds(&nested(MAX_DEPTH)));
        assert_eq!(problem(&nested(MAX_DEPTH + 1)), Some(TOO_DEEP));
        assert!(holds(&format!("[{}[]]", "[],".repeat(2 * MAX_DEPTH))), "beside one another is not in one another");
        assert_eq!(problem(&format!("\"{}\"", "x".repeat(MAX_LENGTH))), Some(TOO_LONG));
    }
}
