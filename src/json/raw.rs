//! Splits JSON text into its members or elements, each with its original spelling.

mod names;

pub(crate) use names::{PRIVATE, hide_private, private_member, show_private, without_names, without_repeated};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The members of an object, in order. Each name keeps its quotes and escapes. Refuses a text that is not exactly one
/// object.
pub(crate) fn members(text: &str) -> Result<Vec<(&str, &RawValue)>, serde_json::Error> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(&'de str, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<&'de RawValue, _>()? {
                members.push((name.get(), value));
            }
            Ok(members)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json.deserialize_map(Members)?;
    json.end()?;
    Ok(members)
}

/// The elements of an array, in order. Refuses a text that is not exactly one array.
pub(crate) fn elements(text: &str) -> Result<Vec<&RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

/// The name that a quoted JSON string stands for. Refuses unpaired surrogates, which are not Unicode.
pub(crate) fn name(spelled: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    match spelled.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        _ => serde_json::from_str(spelled).map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_keeps_its_spelling() {
        let found = members(r#" {"a\u0062" : 1.0 ,"c":[ 1 ], "a\u0062":1e400,"\ud800":null} "#).unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (*name, value.get())).collect();
        assert_eq!(
            found,
            [(r#""a\u0062""#, "1.0"), (r#""c""#, "[ 1 ]"), (r#""a\u0062""#, "1e400"), (r#""\ud800""#, "null")]
        );
        assert_eq!(elements(" [1, {} ]").unwrap().iter().map(|value| value.get()).collect::<Vec<_>>(), ["1", "{}"]);
        for wrong in ["", "[]", "{} x", "{\"a\":}", "{\"a\":1", "{1:1}"] {
            assert!(members(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_unescaped() {
        assert!(matches!(name(r#""plain""#).unwrap(), Cow::Borrowed("plain")));
        assert_eq!(name(r#""a\u0062\"""#).unwrap(), "ab\"");
        assert!(name(r#""\ud800""#).is_err());
    }
}
