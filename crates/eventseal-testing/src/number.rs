//! Numbers by what they are, and not by how they are spelled.
//!
//! serde_json keeps a number as it was spelled if any crate of the build turns on its `arbitrary_precision`, and reads
//! it into an integer or an `f64` otherwise. A file that one build recorded is compared in the other, too.

use serde_json::Number;

/// Does serde_json read this number into an `f64`, and not into an integer, where it keeps no spellings?
pub(crate) fn is_float(number: &Number) -> bool {
    !(number.is_i64() || number.is_u64()) || number.to_string() == "-0"
}

/// That `f64`, unless the number is beyond all of them.
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
