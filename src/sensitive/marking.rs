//! Writes the value that a typed step returned, and finds the redacted `Sensitive`s in what was written.

use crate::crypto::random;
use crate::error::{Error, InputFault, Result};
use crate::json::pointer::JsonPointer;
use crate::sensitive::{MODE, Mode, in_mode, writing};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

/// Writes a value as JSON, with `null` for each redacted `Sensitive`. Returns the JSON and the places of these `null`s.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<(Value, Vec<JsonPointer>)> {
    let failed = |problem| Error::Input(InputFault::Encode { target: std::any::type_name::<T>(), problem });
    let (written, marker) = in_mode(Mode::Marking(None), || (writing::to_value(value), MODE.get()));
    let mut value = written?;
    let mut found = Vec::new();
    if let Mode::Marking(Some(marker)) = marker {
        take_markers(&mut value, &text_of(marker), &mut String::new(), &mut found).map_err(|Stray| {
            failed("a shredded Sensitive is part of another text: write it as a value of its own".to_owned())
        })?;
    }
    Ok((value, found))
}

/// The marker of the [`encode`] call that is running on this thread, drawn if need be. `None` if none is running.
pub(super) fn marker() -> Result<Option<Uuid>> {
    match MODE.get() {
        Mode::Marking(Some(marker)) => Ok(Some(marker)),
        Mode::Marking(None) => {
            let marker = random::uuid()?;
            MODE.set(Mode::Marking(Some(marker)));
            Ok(Some(marker))
        }
        Mode::Plain | Mode::Exact | Mode::Watching | Mode::Erased | Mode::Appending => Ok(None),
    }
}

/// The text of a marker. JSON escapes none of its characters, so it can be found in JSON within JSON too.
pub(super) fn text_of(marker: Uuid) -> String {
    format!("eventseal-redacted-{}", marker.simple())
}

/// A marker was found inside another text or in the name of a member.
struct Stray;

fn take_markers(
    value: &mut Value,
    marker: &str,
    place: &mut String,
    found: &mut Vec<JsonPointer>,
) -> Result<(), Stray> {
    let length = place.len();
    match value {
        Value::String(text) if text == marker => {
            found.push(JsonPointer::new_unchecked(place.as_str()));
            *value = Value::Null;
        }
        Value::String(text) if text.contains(marker) => return Err(Stray),
        Value::Object(members) => {
            for (name, member) in members {
                if name.contains(marker) {
                    return Err(Stray);
                }
                place.push('/');
                crate::json::pointer::push_escaped(place, name);
                take_markers(member, marker, place, found)?;
                place.truncate(length);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter_mut().enumerate() {
                place.push('/');
                place.push_str(&index.to_string());
                take_markers(element, marker, place, found)?;
                place.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitive::Sensitive;
    use serde::Serializer;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    #[derive(Serialize)]
    struct Line {
        to: Sensitive<String>,
        count: u64,
    }

    #[test]
    fn encode_tells_where_redactions_went() {
        let line = |to| Line { to, count: 1 };
        let (value, found) = encode(&vec![line("x".into()), line(Sensitive::Redacted)]).unwrap();
        assert_eq!(value, serde_json::json!([{"to":"x","count":1},{"to":null,"count":1}]));
        assert_eq!(found, [place("/1/to")]);
        assert_eq!(serde_json::to_string(&line(Sensitive::Redacted)).unwrap(), r#"{"to":null,"count":1}"#);
    }

    fn place(text: &str) -> JsonPointer {
        JsonPointer::parse(text).unwrap()
    }

    /// The marker of a running `encode`, read out by a `Serialize` that serializes a redacted value of its own.
    fn leaked() -> String {
        let leak = Cell::new(None);
        struct Looking<'a>(&'a Cell<Option<String>>);
        impl Serialize for Looking<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.set(Some(serde_json::to_string(&Sensitive::<u8>::Redacted).unwrap()));
                serializer.serialize_unit()
            }
        }
        encode(&Looking(&leak)).unwrap();
        serde_json::from_str(&leak.take().unwrap()).unwrap()
    }

    #[test]
    fn i4_a_marker_that_leaked_is_a_value_like_any_other() {
        let leaked = leaked();
        let line = |to| Line { to, count: 1 };
        let (value, found) = encode(&vec![line(leaked.as_str().into()), line(Sensitive::Redacted)]).unwrap();
        assert_eq!((&value[0]["to"], found), (&Value::from(leaked), vec![place("/1/to")]));
    }

    #[test]
    fn i4_a_redaction_inside_another_text_or_a_name_is_refused() {
        struct Nested;
        impl Serialize for Nested {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&serde_json::to_string(&Line { to: Sensitive::Redacted, count: 1 }).unwrap())
            }
        }
        #[derive(PartialEq, Eq, PartialOrd, Ord, Serialize)]
        struct Key(String);
        let named = || {
            let marker = serde_json::to_value(Sensitive::<u8>::Redacted).unwrap();
            BTreeMap::from([(Key(marker.as_str().unwrap().to_owned()), 1)])
        };
        struct Named<F>(F);
        impl<T: Serialize, F: Fn() -> T> Serialize for Named<F> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0().serialize(serializer)
            }
        }
        for error in [encode(&Nested).unwrap_err(), encode(&Named(named)).unwrap_err()] {
            let Error::Input(InputFault::Encode { problem, .. }) = &error else { panic!("{error:?}") };
            assert!(problem.contains("a value of its own"), "{error:?}");
            assert!(!format!("{error:?}").contains("redacted-"), "{error:?}");
        }
        let plain = Nested.serialize(serde_json::value::Serializer).unwrap();
        assert_eq!(plain, r#"{"to":null,"count":1}"#, "plain serde writes null there");
    }
}
