//! Compares JSON numbers by value and not by spelling.
//!
//! serde_json has two modes. If any crate of the build turns on its feature `arbitrary_precision`, it keeps each number
//! as it is spelled. Otherwise it reads a number into an integer or an `f64`. The comparisons here give the same result
//! in both modes.

use serde_json::{Number, Value};

/// The canonical spelling of a JSON number: two numbers have the same one exactly if they are equal. It consists of the
/// digits without leading and trailing zeros, and a power of ten. Nothing is rounded. `None` if the text is not a
/// number, or if its exponent does not fit an `i64`.
pub(crate) fn canonical(number: &str) -> Option<String> {
    let (sign, rest) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    let trimmed = significant.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some("0".to_owned());
    }
    let zeros = i64::try_from(significant.len() - trimmed.len()).ok()?;
    let power = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
    Some(format!("{sign}{trimmed}e{power}"))
}

/// The other spellings that a program may write for this number after it has read it into an `f64`: as JSON, and as
/// Rust prints it.
pub(crate) fn respelled(number: &str) -> impl Iterator<Item = String> {
    let read = number.parse::<f64>().ok().filter(|read| read.is_finite());
    let as_json = read.and_then(Number::from_f64).map(|number| number.to_string());
    // The text of an f64 has no exponent, and may be hundreds of digits long.
    let as_text = read.map(|read| read.to_string()).filter(|text| text.len() <= 64 && Some(text) != as_json.as_ref());
    let number = number.to_owned();
    as_json.into_iter().chain(as_text).filter(move |spelled| *spelled != number)
}

/// Would serde_json without `arbitrary_precision` read this number into an `f64` and not into an integer?
pub(crate) fn is_float(number: &Number) -> bool {
    !(number.is_i64() || number.is_u64()) || number.to_string() == "-0"
}

/// The number as serde_json without `arbitrary_precision` reads it into an `f64`. `None` if it reads an integer, or if
/// the number is too large for an `f64`.
pub(crate) fn read_as_float(number: &Number) -> Option<Number> {
    is_float(number).then(|| number.as_f64().and_then(Number::from_f64)).flatten()
}

/// Are these two values the same JSON? The order of members and the spelling of numbers do not count, because a
/// database or a step may change both.
pub(crate) fn is_same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.to_string(), b.to_string());
            a == b || canonical(&a).is_some_and(|a| canonical(&b) == Some(a))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same_value(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_same_value(a, b)))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_canonical_spelling() {
        for (same, canonical_spelling) in [
            (&["1.5", "1.50", "15e-1", "0.15E+1", "150e-2", "1.500000000000000000000000000000"][..], "15e-1"),
            (&["100", "1e2", "100.0", "1.00E2", "0.1e3"], "1e2"),
            (&["-7", "-7.0", "-70e-1"], "-7e0"),
            (&["0", "-0", "0.0", "0e5", "-0.000E-9"], "0"),
            (&["1234567890123456789012345", "1234567890123456789012345.0"], "1234567890123456789012345e0"),
            (&["1e400", "10E399"], "1e400"),
        ] {
            for number in same {
                assert_eq!(canonical(number).as_deref(), Some(canonical_spelling), "{number}");
            }
        }
        for other in ["", "-", "x", "1e", "1e99999999999999999999", "1.2.3", "NaN"] {
            assert_eq!(canonical(other), None, "{other}");
        }
        assert_ne!(
            canonical("1234567890123456789012345"),
            canonical("1234567890123456789012346"),
            "nothing is rounded"
        );
    }

    #[test]
    fn json_is_the_same_whatever_spells_it() {
        let same =
            |a: &str, b: &str| is_same_value(&serde_json::from_str(a).unwrap(), &serde_json::from_str(b).unwrap());
        assert!(same(r#"{"a":[1.50,1e2],"b":"1.5"}"#, r#"{"b":"1.5","a":[1.5,100.0]}"#));
        for other in [
            r#"{"a":[1.5]}"#,
            r#"{"a":[1.5,101],"b":"1.5"}"#,
            r#"{"a":[1.5,100],"b":1.5}"#,
            r#"{"a":[1.5,100],"c":"1.5"}"#,
        ] {
            assert!(!same(r#"{"a":[1.50,1e2],"b":"1.5"}"#, other), "{other}");
        }
    }

    #[test]
    fn a_number_is_read_as_a_float_in_every_build_or_in_none() {
        let read =
            |number: &str| read_as_float(&serde_json::from_str(number).unwrap()).map(|number| number.to_string());
        for integer in ["0", "-7", "9223372036854775807", "-9223372036854775808", "18446744073709551615"] {
            assert_eq!(read(integer), None, "{integer}");
        }
        for (number, float) in [
            ("9900.50", "9900.5"),
            ("1e2", "100.0"),
            ("1.0", "1.0"),
            ("-0", "-0.0"),
            ("0.1000000000000000000000001", "0.1"),
        ] {
            assert_eq!(read(number).as_deref(), Some(float), "{number}");
        }
        assert_eq!(
            read("18446744073709551616"),
            Number::from_f64(18_446_744_073_709_551_616.0).map(|number| number.to_string())
        );
    }

    #[test]
    fn programs_spell_numbers_in_their_own_ways() {
        let spelled = |number: &str| respelled(number).collect::<Vec<_>>();
        assert_eq!(spelled("1.50"), ["1.5"]);
        assert_eq!(spelled("1e2"), ["100.0", "100"]);
        assert_eq!(spelled("7"), ["7.0"]);
        assert!(spelled("1e400").is_empty());
    }
}
