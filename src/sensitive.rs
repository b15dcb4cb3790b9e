//! [`Sensitive`]: a field that may have been erased, and how payloads are decoded around it.

mod buffered;
mod decoding;
mod marking;
mod redactable;
mod tree;
mod writing;

pub(crate) use decoding::{Undecodable, decode, decode_value, decode_watched};
pub(crate) use marking::encode;
pub(crate) use writing::{SensitivePlace, write};

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use uuid::Uuid;

/// A protected field in a payload type: its value, or the fact that it was shredded.
///
/// Prints as `Sensitive(***)`. Written as the value itself, or as `null` if it was shredded.
///
/// [`PersistedEvent::decode`](crate::PersistedEvent::decode) knows what is redacted, so it tells a shredded field from
/// a `null` that was written, also below `#[serde(flatten)]` and in tagged and untagged enums. Plain serde does not
/// know, and reads any `null` as redacted. Where a `Deserialize` of your own keeps the value in a buffer, such as a
/// `serde_json::Value`, and what comes out of it may be either, `decode` fails and says so.
///
/// A field that may be `null` is a `Sensitive<Option<T>>`: erased, `null` and present are three things. One that may be
/// missing, too: `#[serde(default)] note: Sensitive<Option<T>>`, or `Option<Sensitive<T>>` where missing and `null` are
/// the same. `decode` and typed steps read an erased `Option<Sensitive<T>>` as `Some(Redacted)` too, but not one in a
/// newtype of your own, nor in a tagged or untagged enum in which a type that does not know of redactions reads another
/// erased value; and plain serde reads `None`. So does whatever keeps JSON as text first, such as a `RawValue`, and
/// reads that later: an `Option` takes the `null` that stands in for an erased value, and asks nobody. Put the `Option`
/// inside there (`Sensitive<Option<T>>`): then `decode` fails where it can't tell.
///
/// In what a typed step returns, write it as a value of its own: inside another text (JSON in a string), or as
/// the name of a member, a redaction can't be told, and the step fails for shredded events.
///
/// ```
/// use eventseal::Sensitive;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Customer { name: Sensitive<String> }
///
/// let customer = Customer { name: "Ada".into() };
/// assert_eq!(customer.name.expose().map(String::as_str), Some("Ada"));
/// assert_eq!(format!("{:?}", customer.name), "Sensitive(***)");
/// let erased: Customer = serde_json::from_str(r#"{"name":null}"#).unwrap();
/// assert!(erased.name.is_redacted());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sensitive<T> {
    /// The value.
    Present(T),
    /// It was shredded.
    Redacted,
}

impl<T> Sensitive<T> {
    /// The value, or `None` if it was shredded.
    pub fn expose(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Redacted => None,
        }
    }

    /// The value, or `None` if it was shredded.
    pub fn into_exposed(self) -> Option<T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Redacted => None,
        }
    }

    /// Was it shredded?
    pub fn is_redacted(&self) -> bool {
        matches!(self, Self::Redacted)
    }

    /// Another value in its place; what was shredded stays so.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Sensitive<U> {
        match self {
            Self::Present(value) => Sensitive::Present(change(value)),
            Self::Redacted => Sensitive::Redacted,
        }
    }
}

/// A value that is there, so that `#[serde(default)]` reads a member that is missing as one that is present, not as
/// shredded.
impl<T: Default> Default for Sensitive<T> {
    fn default() -> Self {
        Self::Present(T::default())
    }
}

impl<T> From<T> for Sensitive<T> {
    fn from(value: T) -> Self {
        Self::Present(value)
    }
}

impl From<&str> for Sensitive<String> {
    fn from(value: &str) -> Self {
        Self::Present(value.to_owned())
    }
}

impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_redacted() { "Sensitive(redacted)" } else { "Sensitive(***)" })
    }
}

impl Sensitive<()> {
    /// What a `Sensitive` calls itself when it asks a `Deserializer` for a newtype, whatever is in it:
    /// `Sensitive::NAME`.
    ///
    /// A deserializer that knows this name, and what is redacted, answers with `visit_some` for a value and with
    /// `visit_unit` for one that was erased. Every other one reads as plain serde does.
    pub const NAME: &'static str = "$eventseal::Sensitive";
}

// ---- how decode and the type talk to each other

pub(crate) const TOKEN: &str = Sensitive::NAME;

/// What this thread's serde calls of `Sensitive` mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nobody knows what is redacted: `null` is.
    Plain,
    /// Nothing is redacted here: `null` is a value.
    Exact,
    /// Something is redacted here, and a buffer may hold it.
    Watching,
    /// Everything is redacted here: it is inside of something that is.
    Erased,
    /// Redacted values are written as this marker, so that they can be found again. It is drawn when the
    /// first is written, for this one call, so that no payload can hold it, not even one that was made here.
    Marking(Option<Uuid>),
    /// An event is made: where values stand is noted, and a redacted one is refused.
    Appending,
}

/// How redacted places were read. The later kinds prevail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// By a `Sensitive`, or not at all.
    AsSensitive,
    /// By a type that does not know of redactions.
    AsValue,
    /// By whoever takes any value, such as serde where it buffers.
    Buffered,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Plain) };
}

fn in_mode<T>(mode: Mode, run: impl FnOnce() -> T) -> T {
    struct Restore(Mode);
    impl Drop for Restore {
        fn drop(&mut self) {
            MODE.set(self.0);
        }
    }
    let _restore = Restore(MODE.replace(mode));
    run()
}

impl<T: Serialize> Serialize for Sensitive<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Present(value) if MODE.get() == Mode::Appending => writing::sensitive(value, serializer),
            Self::Present(value) => value.serialize(serializer),
            Self::Redacted if MODE.get() == Mode::Appending => Err(writing::redacted()),
            Self::Redacted => match marking::marker() {
                Ok(Some(marker)) => serializer.serialize_str(&marking::text_of(marker)),
                Ok(None) => serializer.serialize_unit(),
                Err(error) => Err(serde::ser::Error::custom(error)),
            },
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sensitive<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Read<T> {
            type Value = Sensitive<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or null")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                match MODE.get() {
                    Mode::Exact => T::deserialize(deserializer).map(Sensitive::Present),
                    Mode::Watching => buffered::read(deserializer),
                    Mode::Erased => de::IgnoredAny::deserialize(deserializer).map(|_| Sensitive::Redacted),
                    _ => Ok(Option::<T>::deserialize(deserializer)?.map_or(Sensitive::Redacted, Sensitive::Present)),
                }
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                T::deserialize(deserializer).map(Sensitive::Present)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Sensitive::Redacted)
            }
        }
        deserializer.deserialize_newtype_struct(TOKEN, Read(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::pointer::JsonPointer;
    use serde_json::Value;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        name: Sensitive<String>,
        note: Sensitive<Option<String>>,
        plain: String,
        lines: Vec<Line>,
        by_number: BTreeMap<u32, Sensitive<u8>>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Line {
        to: Sensitive<String>,
        count: u64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Gift { from: Sensitive<String> },
        Own,
    }

    const PAYLOAD: &str = r#"{"name":"n","note":null,"plain":"[erased]","lines":[{"to":"a","count":18446744073709551615},{"to":"[erased]","count":2}],"by_number":{"7":1,"8":0},"kind":{"Gift":{"from":"[erased]"}}}"#;

    fn pointers(list: &[&str]) -> Vec<JsonPointer> {
        list.iter().map(|text| JsonPointer::parse(text).unwrap()).collect()
    }

    #[test]
    fn decode_redacts_exactly_the_listed_places() {
        let order: Order = decode(
            PAYLOAD.as_bytes(),
            &pointers(&["/name", "/lines/1/to", "/by_number/8", "/kind/Gift/from", "/plain"]),
        )
        .unwrap();
        assert_eq!(order.name, Sensitive::Redacted);
        assert_eq!(order.note, Sensitive::Present(None), "a null that was written is a value");
        assert_eq!(order.plain, "[erased]", "a plain field reads the stand-in");
        assert_eq!(order.lines[0], Line { to: "a".into(), count: u64::MAX });
        assert_eq!(order.lines[1].to, Sensitive::Redacted);
        assert_eq!(order.by_number[&7], Sensitive::Present(1));
        assert_eq!(order.by_number[&8], Sensitive::Redacted);
        assert_eq!(order.kind, Kind::Gift { from: Sensitive::Redacted });
    }

    #[test]
    fn without_redactions_a_null_is_a_value_in_decode_and_redacted_in_plain_serde() {
        let order: Order = decode(PAYLOAD.as_bytes(), &[]).unwrap();
        assert_eq!(order.note, Sensitive::Present(None));
        assert_eq!(order.lines[1].to, Sensitive::Present("[erased]".into()));
        let plain: Order = serde_json::from_str(PAYLOAD).unwrap();
        assert_eq!(plain.note, Sensitive::Redacted);
    }

    #[derive(Deserialize)]
    struct AllSorts {
        gone: Sensitive<String>,
        wide: u128,
        low: i128,
        raw: Box<RawValue>,
        #[serde(deserialize_with = "bytes")]
        bytes: Vec<u8>,
        small: f32,
        unit: (),
        pair: (u8, Sensitive<Option<u8>>),
        shape: Shape,
        newtype: Newtype,
        map: BTreeMap<char, Option<bool>>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Newtype(Sensitive<Option<String>>);

    #[derive(Debug, PartialEq, Deserialize)]
    enum Shape {
        Pair(u8, Sensitive<Option<u8>>),
    }

    fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }

    #[test]
    fn i4_what_decodes_while_it_is_live_decodes_once_something_is_redacted() {
        let payload = r#"{"gone":"g","wide":340282366920938463463374607431768211455,"low":-170141183460469231731687303715884105728,
            "raw":{"gone":"g", "n":1.0},"bytes":"\ud800","small":0.1,"unit":null,"pair":[1,null],"shape":{"Pair":[1,null]},
            "newtype":null,"map":{"a":true,"b":null},"ignored":{"gone":"g","x":[1e400,"\ud800"]},"also":1e400}"#;
        let live: AllSorts = decode(payload.as_bytes(), &[]).unwrap();
        assert_eq!((live.gone, &live.newtype), (Sensitive::Present("g".into()), &Newtype(Sensitive::Present(None))));
        let places = ["/gone", "/raw/gone", "/ignored/gone", "/pair/0", "/shape/Pair/0", "/map/a"];
        let redacted: AllSorts = decode(payload.as_bytes(), &pointers(&places)).unwrap();
        assert_eq!(redacted.gone, Sensitive::Redacted);
        assert_eq!(
            (redacted.wide, redacted.low, redacted.small, redacted.unit),
            (live.wide, live.low, live.small, live.unit)
        );
        assert_eq!((redacted.raw.get(), redacted.bytes), (live.raw.get(), live.bytes));
        assert_eq!((redacted.pair, redacted.shape), (live.pair, live.shape));
        assert_eq!((redacted.newtype, redacted.map), (live.newtype, live.map));
    }

    #[test]
    fn i4_an_erasure_is_not_read_as_never_given() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Inside {
            field: Sensitive<Option<String>>,
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Outside {
            #[serde(default)]
            field: Option<Sensitive<String>>,
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Plain {
            field: Option<String>,
        }
        let erased = pointers(&["/field"]);
        let both = |payload: &str, redacted: &[JsonPointer]| {
            let inside: Inside = decode(payload.as_bytes(), redacted).unwrap();
            (inside.field, decode::<Outside>(payload.as_bytes(), redacted).unwrap().field)
        };
        for stand_in in [r#"{"field":null}"#, r#"{"field":"gone"}"#] {
            assert_eq!(both(stand_in, &erased), (Sensitive::Redacted, Some(Sensitive::Redacted)));
        }
        for elsewhere in [pointers(&[]), pointers(&["/other"])] {
            assert_eq!(both(r#"{"field":null}"#, &elsewhere), (Sensitive::Present(None), None));
            assert_eq!(both(r#"{"field":"x"}"#, &elsewhere), (Sensitive::Present(Some("x".into())), Some("x".into())));
        }
        assert_eq!(decode::<Outside>(b"{}", &erased).unwrap().field, None);
        assert_eq!(
            decode::<Plain>(br#"{"field":null}"#, &erased).unwrap().field,
            None,
            "a plain field reads the stand-in"
        );
    }

    #[test]
    fn i4_a_null_in_a_buffer_of_serde_is_redacted_only_if_it_is() {
        #[derive(Deserialize)]
        struct Flat {
            name: Sensitive<String>,
            plain: Option<String>,
            #[serde(flatten)]
            rest: Rest,
        }
        #[derive(Deserialize)]
        struct Rest {
            note: Sensitive<Option<String>>,
            other: Sensitive<Option<String>>,
        }
        let payload = br#"{"name":"n","plain":null,"note":null,"other":null}"#;
        let read = |redacted: &[&str]| {
            let flat: Flat = decode(payload, &pointers(redacted)).unwrap();
            assert_eq!((flat.name.is_redacted(), flat.plain), (redacted.contains(&"/name"), None));
            (flat.rest.note.is_redacted(), flat.rest.other.is_redacted())
        };
        assert_eq!(read(&["/name"]), (false, false));
        assert_eq!(read(&["/name", "/plain"]), (false, false));
        assert_eq!(read(&["/note"]), (true, false));
        assert_eq!(read(&["/note", "/other", "/plain"]), (true, true));
    }

    #[test]
    fn decode_knows_whether_every_redaction_was_seen() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Mixed {
            name: Sensitive<String>,
            note: Option<String>,
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Flat {
            name: Sensitive<String>,
            #[serde(flatten)]
            rest: BTreeMap<String, Value>,
        }
        let payload = br#"{"name":"n","note":null,"raw":{"a":null}}"#;
        let seen = |places: &[&str]| decode_watched::<Mixed>(payload, &pointers(places)).unwrap().1;
        assert!(seen(&[]) && seen(&["/name"]) && seen(&["/name", "/raw/a"]));
        assert!(!seen(&["/name", "/note"]));
        assert!(!decode_watched::<Value>(payload, &pointers(&["/name"])).unwrap().1);
        assert!(!decode_watched::<Flat>(payload, &pointers(&["/note"])).unwrap().1);
        assert!(!decode_watched::<BTreeMap<String, Box<RawValue>>>(payload, &pointers(&["/raw/a"])).unwrap().1);
    }

    #[test]
    fn a_redacted_document_decodes_as_a_whole() {
        assert_eq!(decode::<Sensitive<Line>>(b"null", &[JsonPointer::root()]).unwrap(), Sensitive::Redacted);
    }

    #[test]
    fn i9_sensitive_values_do_not_print() {
        let line = Line { to: "SECRET".into(), count: 1 };
        assert_eq!(format!("{line:?}"), "Line { to: Sensitive(***), count: 1 }");
    }
}
