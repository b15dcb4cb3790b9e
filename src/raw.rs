//! JSON text split into its members or elements, each as it is spelled.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The members of an object, in their order, names unescaped. Refuses what is no object, and what follows it.
pub(crate) fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, serde_json::Error> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((Name(name), value)) = map.next_entry()? {
                members.push((name, value));
            }
            Ok(members)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json.deserialize_map(Members)?;
    json.end()?;
    Ok(members)
}

/// The elements of an array.
pub(crate) fn elements(text: &str) -> Result<Vec<&RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

/// Borrowed where nothing is escaped.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_spelling_and_names_are_unescaped() {
        let found = members(r#" {"a\u0062" : 1.0 ,"c":[ 1 ], "a\u0062":1e400} "#).unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (&**name, value.get())).collect();
        assert_eq!(found, [("ab", "1.0"), ("c", "[ 1 ]"), ("ab", "1e400")]);
        assert_eq!(elements(" [1, {} ]").unwrap().iter().map(|value| value.get()).collect::<Vec<_>>(), ["1", "{}"]);
        for wrong in ["", "[]", "{} x", "{\"a\":}", "{\"a\":1"] {
            assert!(members(wrong).is_err(), "{wrong}");
        }
        assert!(matches!(members(r#"{"plain":1}"#).unwrap()[0].0, Cow::Borrowed(_)));
    }
}
