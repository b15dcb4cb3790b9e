//! How the page spells the values of the document. Every value is foreign text, and may be hostile.

use crate::output::{number, shown};
use serde_json::Value;

/// Do members of this name hold times?
pub(super) fn is_time(name: &str) -> bool {
    let names =
        ["at", "created_at", "destroyed_at", "due", "issued_at", "released_at", "shredded_at", "since", "until"];
    names.contains(&name)
}

/// A value as the page shows it, by the name of its member.
pub(super) fn leaf_text(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(value) => value.as_u64().map_or_else(|| value.to_string(), number),
        Value::String(text) => match name {
            name if is_time(name) => in_utc(text),
            "digest" | "hash" => in_groups(text),
            "action" | "authenticity" | "standing" | "state" => escaped(text).replace('_', " "),
            // Its own direction: a text from right to left must not turn what is around it.
            _ => format!("<bdi>{}</bdi>", escaped(&shown(text))),
        },
        // Only leaves are asked for.
        Value::Array(_) | Value::Object(_) => String::new(),
    }
}

/// `2026-01-02T03:04:05.678Z` as `2026-01-02 03:04:05.678 UTC`.
fn in_utc(text: &str) -> String {
    let utc = text.strip_suffix('Z').and_then(|text| text.split_once('T'));
    utc.map_or_else(|| escaped(text), |(date, time)| escaped(&format!("{date} {time} UTC")))
}

/// A hash in groups of 8 digits, which two people can compare by reading them out.
fn in_groups(text: &str) -> String {
    let digits: Vec<char> = text.chars().collect();
    escaped(&digits.chunks(8).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" "))
}

/// Text that can stand in an element or in an attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_spelled_for_people() {
        for (name, value, expected) in [
            ("at", json!("2026-01-02T03:04:05.678901Z"), "2026-01-02 03:04:05.678901 UTC"),
            ("at", json!("<b>"), "&lt;b&gt;"),
            ("digest", json!("0123456789abcdef00"), "01234567 89abcdef 00"),
            ("standing", json!("in_copy"), "in copy"),
            ("events", json!(1_234_567), "1,234,567"),
            ("erased", json!(true), "yes"),
            ("until", json!(null), "none"),
            ("reason", json!("a\u{202e}b\n"), "<bdi>a\\u{202e}b\\n</bdi>"),
        ] {
            assert_eq!(leaf_text(name, &value), expected);
        }
    }

    #[test]
    fn nothing_breaks_out_of_an_element_or_attribute() {
        let text = escaped("</span><script>alert('1')</script>\" onload=\"x&");
        assert!(!text.contains(['<', '>', '"', '\'']), "{text}");
        assert_eq!(escaped("&lt;"), "&amp;lt;");
    }
}
