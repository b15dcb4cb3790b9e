//! Descriptions of `serde_json`'s errors, without the payload values that they quote.

use crate::event::EventVersion;
/// Says what `serde_json` found wrong in `document`, without quoting the document.
///
/// A message of `serde_json` starts with what the document held and ends with what the Rust type expected. Only the end
/// is repeated. A `Deserialize` of the application can return a message that looks the same and quotes anything. So the
/// end is repeated only if it has the shape that serde gives it, and if its names are not text of the document. Pass an
/// empty `document` if there is none.
pub(crate) fn describe_without_values(error: &serde_json::Error, document: &[u8]) -> String {
    let text = error.to_string();
    let position = format!("at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&position).unwrap_or(&text).trim_end();
    let what = misfit(text, document).unwrap_or_else(|| {
        match error.classify() {
            serde_json::error::Category::Io => "input or output failed",
            serde_json::error::Category::Syntax => "it is not valid JSON",
            serde_json::error::Category::Data => "a value does not fit",
            serde_json::error::Category::Eof => "it ends too early",
        }
        .to_owned()
    });
    if error.line() == 0 { what } else { format!("{what} {position}") }
}

/// The parts that can be repeated of one of serde's own messages about data; `None` for other messages.
fn misfit(text: &str, document: &[u8]) -> Option<String> {
    for kind in ["invalid type", "invalid value", "invalid length"] {
        if text.strip_prefix(kind).is_some_and(|rest| rest.starts_with([':', ' '])) {
            let tail = text.rfind(", expected ").map(|at| &text[at..]);
            let tail = tail.filter(|tail| {
                tail.matches('`').count().is_multiple_of(2) && memchr::memmem::find(document, tail.as_bytes()).is_none()
            });
            return Some(format!("{kind}{}", tail.unwrap_or_default()));
        }
    }
    for kind in ["unknown variant", "unknown field"] {
        if text.strip_prefix(kind).is_some_and(|rest| rest.starts_with(" `")) {
            let none =
                [", there are no variants", ", there are no fields"].into_iter().find(|none| text.ends_with(none));
            let tail =
                none.or_else(|| text.rfind(", expected ").map(|at| &text[at..]).filter(|tail| is_list(tail, document)));
            return Some(format!("{kind}{}", tail.unwrap_or_default()));
        }
    }
    for kind in ["missing field", "duplicate field"] {
        if let Some(name) = text.strip_prefix(kind).and_then(|rest| rest.strip_prefix(' ')) {
            return Some(if is_name(name, document) { format!("{kind} {name}") } else { kind.to_owned() });
        }
    }
    None
}

/// Is this ``, expected `a` ``, ``, expected `a` or `b` `` or ``, expected one of `a`, `b`, `c` ``?
fn is_list(tail: &str, document: &[u8]) -> bool {
    let Some(names) = tail.strip_prefix(", expected ") else { return false };
    match names.strip_prefix("one of ") {
        Some(names) => names.split(", ").all(|name| is_name(name, document)),
        None => names.split(" or ").all(|name| is_name(name, document)),
    }
}

/// Is this a plain name in backticks, which the document has nowhere except as the name of a member?
fn is_name(quoted: &str, document: &[u8]) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let Some(name) = quoted.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else { return false };
    if name.is_empty() || !name.bytes().all(is_plain) {
        return false;
    }
    memchr::memmem::find_iter(document, name.as_bytes()).all(|at| {
        let before = at.checked_sub(1).and_then(|at| document.get(at)).copied();
        let rest = document.get(at + name.len()..).unwrap_or_default();
        let part_of_a_word = before.is_some_and(is_plain) || rest.first().copied().is_some_and(is_plain);
        let member = before == Some(b'"')
            && rest.strip_prefix(b"\"").is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"));
        part_of_a_word || member
    })
}

/// Says which versions are missing between a stored version and the oldest registered one.
pub(crate) fn gap(stored: EventVersion, oldest: EventVersion) -> String {
    match (stored.get(), oldest.get()) {
        (0, _) => "is stored without a version: say in its schema which one that is, with legacy_version(n)".to_owned(),
        (stored, oldest) if stored + 1 == oldest => {
            format!(
                "version {stored} is older than version {oldest}, the oldest registered: declare it, and its step to \
                 version {oldest}"
            )
        }
        (stored, oldest) => format!(
            "version {stored} is older than version {oldest}, the oldest registered: declare versions {stored} to {}, \
             and the steps between them",
            oldest.saturating_sub(1)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::{DeserializeOwned, Error as _};
    use serde::{Deserialize, Deserializer};

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only decoded")]
    struct Wanted {
        age: u8,
        kind: Kind,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        A,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        #[serde(rename = "a")]
        _a: Option<u8>,
        #[serde(rename = "b")]
        _b: Option<u8>,
        #[serde(rename = "c")]
        _c: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Empty {}

    #[derive(Debug, Deserialize)]
    enum Never {}

    /// Fails with a message of its own, which is the text it reads.
    #[derive(Debug)]
    struct Custom;
    impl<'de> Deserialize<'de> for Custom {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Err(D::Error::custom(String::deserialize(deserializer)?))
        }
    }

    fn described<T: DeserializeOwned + std::fmt::Debug>(json: &str) -> String {
        let text = describe_without_values(&serde_json::from_str::<T>(json).unwrap_err(), json.as_bytes());
        assert!(!text.contains("SECRET"), "{json}: {text}");
        text.split(" at line").next().unwrap().to_owned()
    }

    #[test]
    fn i9_descriptions_leave_values_out() {
        for (json, expected) in [
            (r#"{"age":"SECRET","kind":"A"}"#, "invalid type, expected u8"),
            (r#"{"age":1,"kind":"SECRET"}"#, "unknown variant, expected `A`"),
            (r#"{"age":", expected SECRET","kind":"A"}"#, "invalid type, expected u8"),
            (r#"{"kind":"A"}"#, "missing field `age`"),
            (r#"{"kind":"A","inner":{"age" : 1}}"#, "missing field `age`"),
            (r#"{"age":1,"kind":"A","age":2}"#, "duplicate field `age`"),
            (r#"{"age":SECRET}"#, "it is not valid JSON"),
        ] {
            assert_eq!(described::<Wanted>(json), expected);
        }
        assert_eq!(
            described::<Strict>(r#"{"x, expected `SECRET`":1}"#),
            "unknown field, expected one of `a`, `b`, `c`"
        );
        let error = serde_json::from_str::<Wanted>(r#"{"kind":"A"}"#).unwrap_err();
        assert!(describe_without_values(&error, b"").starts_with("missing field `age`"));
        let error = serde_json::Error::custom("missing field `the name of Ada`");
        assert_eq!(
            describe_without_values(&error, b""),
            "missing field",
            "where there is no document, names are plain at least"
        );
    }

    #[test]
    fn i9_a_name_that_pretends_to_be_the_end_of_a_message_is_left_out() {
        assert_eq!(described::<Empty>(r#"{"x, expected SECRET":1}"#), "unknown field, there are no fields");
        assert_eq!(described::<Empty>(r#"{"x`, expected `SECRET":1}"#), "unknown field, there are no fields");
        assert_eq!(described::<Never>(r#""x, expected SECRET""#), "unknown variant, there are no variants");
    }

    #[test]
    fn i9_a_message_that_an_application_made_up_is_left_out() {
        for (message, expected) in [
            ("SECRET", "a value does not fit"),
            ("missing field `SECRET`", "missing field"),
            ("missing field `a` near SECRET", "missing field"),
            ("missing field `the SECRET one`", "missing field"),
            ("duplicate field `SECRET`", "duplicate field"),
            ("unknown field `x`, expected `SECRET`", "unknown field"),
            ("unknown field `x`, expected one of `a`, `SECRET", "unknown field"),
            ("unknown variant `x`, expected `a` or SECRET", "unknown variant"),
            ("invalid value: SECRET", "invalid value"),
            ("invalid value: x, expected SECRET", "invalid value"),
            ("invalid type: `x, expected SECRET`", "invalid type"),
        ] {
            assert_eq!(described::<Custom>(&serde_json::to_string(message).unwrap()), expected);
        }
    }
}
