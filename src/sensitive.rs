//! [`Sensitive`], the type of a field that may have been shredded, and the code that reads and writes payloads with
//! such fields.

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
/// `Debug` shows `Sensitive(***)`, or `Sensitive(redacted)` for a shredded value. Serde writes the value itself, or
/// `null` for a shredded value.
///
/// # How it is read
/// [`PersistedEvent::decode`](crate::PersistedEvent::decode) knows which places of the payload are redacted. So it
/// tells a shredded field from a `null` that the application wrote, also below `#[serde(flatten)]` and in tagged and
/// untagged enums.
///
/// Plain serde does not know which places are redacted, and reads every `null` as redacted.
///
/// Formats that are not human readable, such as postcard, get an `Option<T>`. Without it, a reader could not tell
/// whether a value follows. Some of these formats, such as CBOR, write `None` and `Some(None)` alike, as `null`. With
/// them, a `Sensitive<Option<T>>` that is present and empty is read as redacted.
///
/// A `Deserialize` of your own may keep a value in a buffer, such as a `serde_json::Value`, and read a `Sensitive` out
/// of that buffer later. If `decode` then can't tell a value from a redaction, it fails and says so.
///
/// # Fields that may be `null` or missing
/// - A field that may be `null` is a `Sensitive<Option<T>>`. It tells three states apart: erased, `null`, and present.
/// - A field that may be missing is `#[serde(default)] note: Sensitive<Option<T>>`. If missing and `null` mean the
///   same, `Option<Sensitive<T>>` will do.
///
/// An erased `Option<Sensitive<T>>` is read as `Some(Redacted)` by `decode` and by typed steps. There are four
/// exceptions, which read it as `None`:
/// - plain serde;
/// - an `Option<Sensitive<T>>` inside a newtype of your own;
/// - an `Option<Sensitive<T>>` in a tagged or untagged enum in which another erased value is read by a type that is not
///   a `Sensitive`;
/// - a type that keeps the JSON as text first, such as a `RawValue`, and reads the `Option` out of it later.
///
/// Use `Sensitive<Option<T>>` in these places. Then `decode` fails where it can't tell, instead of returning `None`.
///
/// # What a typed step returns
/// A step must write a redacted `Sensitive` as a JSON value of its own. Inside another text (JSON in a string), or as
/// the name of a member, a redaction can't be recognised, and the step fails for shredded events.
///
/// # Example
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
    /// The value is there.
    Present(T),
    /// The key of the value was shredded: nobody can read the value any more.
    Redacted,
}

impl<T> Sensitive<T> {
    /// Borrows the value, or returns `None` if it was shredded.
    pub fn expose(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Redacted => None,
        }
    }

    /// Takes the value out, or returns `None` if it was shredded.
    pub fn into_exposed(self) -> Option<T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Redacted => None,
        }
    }

    /// Was the value shredded?
    pub fn is_redacted(&self) -> bool {
        matches!(self, Self::Redacted)
    }

    /// Applies `change` to a value that is present. A redacted `Sensitive` stays redacted.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Sensitive<U> {
        match self {
            Self::Present(value) => Sensitive::Present(change(value)),
            Self::Redacted => Sensitive::Redacted,
        }
    }
}

/// The default is a present value. So `#[serde(default)]` reads a missing member as present, not as shredded.
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
    /// The name under which every `Sensitive`, whatever its content, asks a `Deserializer` for a newtype struct
    /// (`deserialize_newtype_struct`).
    ///
    /// It is for deserializers of your own that know what is redacted. Such a deserializer answers this name with
    /// `visit_some` for a value and with `visit_unit` for an erased one. Every other deserializer reads a `Sensitive`
    /// as plain serde does.
    pub const NAME: &'static str = "$eventseal::Sensitive";
}

// `decode` and `Sensitive` can't pass arguments to each other through serde. They talk through the newtype name and a
// thread-local mode.

pub(crate) const TOKEN: &str = Sensitive::NAME;

/// What a `Sensitive` must do in the serde calls of this thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Plain serde: the redacted places are not known, so every `null` is read as redacted.
    Plain,
    /// Nothing in this value is redacted, so `null` is a value.
    Exact,
    /// Something in this payload is redacted, and may come out of a buffer.
    Watching,
    /// This value is part of a redacted value, so everything in it is redacted.
    Erased,
    /// A redacted value is written as this marker, so that its place can be found afterwards. The marker is drawn at
    /// random when the first redacted value of a call is written. So no payload can contain it by chance or on purpose.
    Marking(Option<Uuid>),
    /// A new event is written: the place of every `Sensitive` is noted, and a redacted one is refused.
    Appending,
}

/// How the redacted places of a payload were read. The variants are ordered: the greatest one that occurred counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// Only by `Sensitive`s, or not at all.
    AsSensitive,
    /// Some by another type, which does not know of redactions.
    AsValue,
    /// Some by a type that takes any value, such as one of serde's buffers.
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
        let is_option = !serializer.is_human_readable();
        match self {
            Self::Present(value) => match (MODE.get(), is_option) {
                (Mode::Appending, false) => writing::sensitive(value, serializer),
                (Mode::Appending, true) => writing::sensitive(&Some(value), serializer),
                (_, false) => value.serialize(serializer),
                (_, true) => serializer.serialize_some(value),
            },
            Self::Redacted if MODE.get() == Mode::Appending => Err(writing::redacted()),
            Self::Redacted => match marking::marker() {
                Ok(Some(_)) if is_option => Err(serde::ser::Error::custom(
                    "a redacted Sensitive can't be written in a format that is not human readable, because the \
                     redaction would be lost: write it as JSON, or leave the field out",
                )),
                Ok(Some(marker)) => serializer.serialize_str(&marking::text_of(marker)),
                Ok(None) if is_option => serializer.serialize_none(),
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
        if !deserializer.is_human_readable() {
            let read = Option::<T>::deserialize(deserializer)?.filter(|_| MODE.get() != Mode::Erased);
            return Ok(read.map_or(Self::Redacted, Self::Present));
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

    const PAYLOAD: &str = concat!(
        r#"{"name":"n","note":null,"plain":"[erased]","#,
        r#""lines":[{"to":"a","count":18446744073709551615},{"to":"[erased]","count":2}],"#,
        r#""by_number":{"7":1,"8":0},"kind":{"Gift":{"from":"[erased]"}}}"#
    );

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
        let payload = r#"{"gone":"g","wide":340282366920938463463374607431768211455,
            "low":-170141183460469231731687303715884105728,"raw":{"gone":"g", "n":1.0},"bytes":"\ud800","small":0.1,
            "unit":null,"pair":[1,null],"shape":{"Pair":[1,null]},
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
