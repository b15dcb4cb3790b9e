//! Gives numbers one spelling, so that they compare equal in every build.
//!
//! If any crate of the build turns on serde_json's feature `arbitrary_precision`, serde_json keeps each number as it is
//! spelled. Otherwise it reads a number into an integer or an `f64`. A file that was recorded by one build must compare
//! equal in the other.

use serde_json::Number;

/// Would serde_json without `arbitrary_precision` read this number into an `f64` and not into an integer?
pub(crate) fn is_float(number: &Number) -> bool {
    !(number.is_i64() || number.is_u64()) || number.to_string() == "-0"
}

/// The number as serde_json without `arbitrary_precision` reads it into an `f64`. `None` if it reads an integer, or if
/// the number is too large for an `f64`.
pub(crate) fn read_as_float(number: &Number) -> Option<Number> {
    is_float(number).then(|| number.as_f64().and_then(Number::from_f64)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_a_float_in_every_build_or_in_none() {
        let read =
            |number: &str| read_as_float(&serde_json::from_str(number).unwrap()).map(|number| number.to_string());
        for integer in ["0", "-7", "9223372036854775807", "18446744073709551615"] {
            assert_eq!(read(integer), None, "{integer}");
        }
        for (number, float) in [("9900.50", "9900.5"), ("1e2", "100.0"), ("1.0", "1.0"), ("-0", "-0.0")] {
            assert_eq!(read(number).as_deref(), Some(float), "{number}");
        }
    }
}
