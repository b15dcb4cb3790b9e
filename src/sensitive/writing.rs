//! Writes a value of the application as the JSON of an event.
//!
//! Only while a value is written can two things be seen:
//! - where in it each [`Sensitive`](crate::Sensitive) stands. The places are noted, so that an append can refuse to
//!   store a `Sensitive` in the clear;
//! - what JSON can't express. serde_json would write `null` and say nothing, so such a value is refused here.

mod compound;

use crate::error::{Error, InputFault, Result, describe_without_values};
use crate::json::pointer::{JsonPointer, push_escaped};
use crate::sensitive::{Mode, TOKEN, in_mode};
use compound::Compound;
use serde::ser::{self, Serialize, Serializer};
use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt::Display;
use std::rc::Rc;

/// A place in a payload at which a `Sensitive` was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SensitivePlace {
    pub(crate) pointer: JsonPointer,
    /// True if the value at this place is the `Sensitive` itself. False if the `Sensitive` is somewhere inside the
    /// value, as part of a text or as the name of a member.
    pub(crate) is_exact: bool,
}

/// Writes a value as JSON. Returns the JSON and the place of each outermost `Sensitive`.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T) -> Result<(Vec<u8>, Vec<SensitivePlace>)> {
    let mut payload = Vec::with_capacity(128);
    let watch = Rc::new(Watch { is_append: true, ..Watch::default() });
    in_mode(Mode::Appending, || watched(value, &mut serde_json::Serializer::new(&mut payload), &watch))?;
    Ok((payload, watch.places()))
}

/// Writes what a step returned. It is less strict than [`write`], because a refusal makes a stored event unreadable:
/// only a value that JSON can't express at all is refused.
pub(super) fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<serde_json::Value> {
    watched(value, serde_json::value::Serializer, &Rc::default())
}

fn watched<T, S>(value: &T, inner: S, watch: &Rc<Watch>) -> Result<S::Ok>
where
    T: Serialize + ?Sized,
    S: Serializer<Error = serde_json::Error>,
{
    struct Restore(Option<Rc<Watch>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            WATCH.set(self.0.take());
        }
    }
    let _restore = Restore(WATCH.replace(Some(Rc::clone(watch))));
    let at = At { watch, is_inside: false, is_some: false, is_sensitive: false };
    value.serialize(Watching { inner, at }).map_err(|error| {
        let problem = watch.problem.take().unwrap_or_else(|| describe_without_values(&error, b""));
        Error::Input(InputFault::Encode { target: type_name::<T>(), problem })
    })
}

thread_local! {
    static WATCH: RefCell<Option<Rc<Watch>>> = const { RefCell::new(None) };
}

/// What was observed so far while a value is written.
#[derive(Default)]
struct Watch {
    is_append: bool,
    /// The place that is being written, as a JSON Pointer.
    path: RefCell<String>,
    found: RefCell<Vec<SensitivePlace>>,
    /// How many `Sensitive`s are being written at the moment, one inside the other.
    depth: Cell<usize>,
    /// How often a `Sensitive` was observed at the place where it was written.
    seen: Cell<usize>,
    /// `Sensitive`s that were observed after they were written, because a buffer kept them in between: the crate of
    /// that buffer, and the place.
    replayed: RefCell<Vec<(&'static str, String)>>,
    /// `Sensitive`s that were written and not observed: the crate of the serializer that took them, and the place.
    unseen: RefCell<Vec<(&'static str, String)>>,
    /// Why the value is refused.
    problem: RefCell<Option<String>>,
}

impl Watch {
    /// Runs `write` with `token` added to the path.
    fn within<R>(&self, token: &str, write: impl FnOnce() -> R) -> R {
        let length = self.push(token);
        let result = write();
        self.path.borrow_mut().truncate(length);
        result
    }

    /// Adds a token to the path. Returns how long the path was before.
    fn push(&self, token: &str) -> usize {
        let mut path = self.path.borrow_mut();
        let length = path.len();
        path.push('/');
        push_escaped(&mut path, token);
        length
    }

    fn here(&self) -> JsonPointer {
        JsonPointer::new_unchecked(self.path.borrow().as_str())
    }

    /// Notes that a `Sensitive` stands here.
    fn note(&self) {
        self.seen.set(self.seen.get() + 1);
        self.found.borrow_mut().push(SensitivePlace { pointer: self.here(), is_exact: true });
    }

    fn refuse<E: ser::Error>(&self, problem: String) -> E {
        let error = E::custom("refused");
        self.problem.borrow_mut().get_or_insert(problem);
        error
    }

    /// All places, the inexact ones last.
    fn places(&self) -> Vec<SensitivePlace> {
        let (mut places, unseen, mut replayed) = (self.found.take(), self.unseen.take(), self.replayed.take());
        // A `Sensitive` that went into a buffer comes out of a buffer of the same crate, at the same place or further
        // inside. So each unseen one is matched with a replayed one. The innermost are matched first.
        let mut inner_first: Vec<_> = unseen.iter().collect();
        inner_first.sort_by_key(|(_, place)| Reverse(place.len()));
        // If one of a crate's buffers has no match, it is not known which one it is. So all places of that crate are
        // reported.
        let mut lost = HashSet::new();
        for (of, place) in inner_first {
            match replayed.iter().position(|(by, at)| by == of && is_at_or_in(at, place)) {
                Some(index) => drop(replayed.swap_remove(index)),
                None => drop(lost.insert(*of)),
            }
        }
        places.extend(
            unseen
                .into_iter()
                .filter(|(of, _)| lost.contains(of))
                .map(|(_, place)| SensitivePlace { pointer: JsonPointer::new_unchecked(place), is_exact: false }),
        );
        places
    }
}

fn is_at_or_in(place: &str, outer: &str) -> bool {
    place.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The crate that defines a type, read from the type's name. Rust does not guarantee names. If they are spelled
/// otherwise, a buffered `Sensitive` finds no match and is reported as unseen.
fn crate_of<T: ?Sized>() -> &'static str {
    let name =
        type_name::<T>().trim_start_matches("&mut ").trim_start_matches('&').trim_start_matches("alloc::boxed::Box<");
    match name.split("::").next().unwrap_or(name) {
        "serde_core" => "serde",
        name => name,
    }
}

/// Writes a `Sensitive` that is present.
pub(super) fn sensitive<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(watch) = WATCH.with_borrow(Option::clone) else { return value.serialize(serializer) };
    let (depth, seen) = (watch.depth.get(), watch.seen.get());
    watch.depth.set(depth + 1);
    // Serde's buffers keep this name, so the `Sensitive` is recognised when the buffer is written. Other serializers
    // ignore it.
    let result = serializer.serialize_newtype_struct(TOKEN, value);
    watch.depth.set(depth);
    if depth == 0 && seen == watch.seen.get() && !writes_members_here::<S>() {
        watch.unseen.borrow_mut().push((crate_of::<S>(), watch.path.borrow().clone()));
    }
    result
}

/// Refuses a `Sensitive` that is redacted.
pub(super) fn redacted<E: ser::Error>() -> E {
    const WHY: &str = "is redacted: what was shredded has no value that could be appended; leave it out, or append \
        what is known of it";
    match WATCH.with_borrow(Option::clone) {
        Some(watch) => watch.refuse(format!("a Sensitive at {} or inside it {WHY}", watch.here())),
        None => E::custom(format!("a Sensitive {WHY}")),
    }
}

/// Does this serializer write the members of a value directly into the surrounding object, as `#[serde(flatten)]` does?
/// Then each member is observed by itself, and a value without members leaves nothing in the payload. Rust does not
/// guarantee type names. If serde's type is named otherwise, the place is reported as unseen.
fn writes_members_here<S>() -> bool {
    let name = type_name::<S>();
    name.contains("FlatMapSerializer<") && name.contains(module_path!())
}

/// What the path shows for a member's name that is, or is inside, a `Sensitive`: the path appears in errors. No place
/// is lost by that, because the place around the name, or the outermost `Sensitive`, is what is checked.
const HIDDEN: &str = "***";

/// Is the name of a member a `Sensitive`, perhaps one that comes out of a buffer of serde?
fn holds_sensitive<K: Serialize + ?Sized>(key: &K) -> bool {
    let watch = Watch::default();
    let at = At { watch: &watch, is_inside: false, is_some: false, is_sensitive: false };
    // A key that can't be a name is refused later, by the serializer that writes it.
    let _ = key.serialize(Watching { inner: &mut serde_json::Serializer::new(std::io::sink()), at });
    watch.seen.get() > 0
}

/// The surroundings of the value that is being written.
#[derive(Clone, Copy)]
struct At<'w> {
    watch: &'w Watch,
    /// The value is inside a `Sensitive` whose place is noted already.
    is_inside: bool,
    /// The value is the content of a `Some`.
    is_some: bool,
    /// The value is the content of a `Sensitive`.
    is_sensitive: bool,
}

impl<'w> At<'w> {
    /// Must be called before a value is written. Returns the surroundings of the values inside it.
    fn begin(self) -> Self {
        let is_noted = !self.is_inside && self.watch.is_append && self.watch.depth.get() > 0;
        if is_noted {
            self.watch.note();
        }
        Self { is_inside: self.is_inside || is_noted, is_some: false, is_sensitive: false, ..self }
    }

    fn null<E: ser::Error>(self) -> Result<(), E> {
        self.begin();
        if self.watch.is_append && self.is_some && self.is_sensitive {
            let here = self.watch.here();
            return Err(self.watch.refuse(format!(
                "the Some at {here} would be written as null, which reads as None: let one Option say that there is no \
                 value, as Sensitive<Option<T>> does"
            )));
        }
        Ok(())
    }

    fn float<E: ser::Error>(self, is_finite: bool) -> Result<(), E> {
        self.begin();
        if is_finite {
            return Ok(());
        }
        let here = self.watch.here();
        Err(self.watch.refuse(format!(
            "the float at {here} is not finite (NaN or an infinity), and JSON has no such number: pass a finite one, \
             or say that there is none with an Option"
        )))
    }
}

/// A serializer that passes everything to `inner`, and observes what is written where.
struct Watching<'w, S> {
    inner: S,
    at: At<'w>,
}

/// A value together with its surroundings, so that its parts are observed too.
struct Value<'a, 'w, T: ?Sized> {
    value: &'a T,
    at: At<'w>,
}

impl<T: Serialize + ?Sized> Serialize for Value<'_, '_, T> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Watching { inner, at: self.at })
    }
}

macro_rules! leaves {
    ($($method:ident($type:ty))*) => {$(
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.at.begin();
            self.inner.$method(value)
        }
    )*};
}

impl<'w, S: Serializer> Serializer for Watching<'w, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Compound<'w, S::SerializeSeq>;
    type SerializeTuple = Compound<'w, S::SerializeTuple>;
    type SerializeTupleStruct = Compound<'w, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Compound<'w, S::SerializeTupleVariant>;
    type SerializeMap = Compound<'w, S::SerializeMap>;
    type SerializeStruct = Compound<'w, S::SerializeStruct>;
    type SerializeStructVariant = Compound<'w, S::SerializeStructVariant>;

    leaves! {
        serialize_bool(bool) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        self.at.float(value.is_finite())?;
        self.inner.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        self.at.float(value.is_finite())?;
        self.inner.serialize_f64(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.at.null()?;
        self.inner.serialize_none()
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.at.null()?;
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.at.null()?;
        self.inner.serialize_unit_struct(name)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Value { value, at: At { is_some: true, ..self.at } })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        let mut at = self.at;
        if name == TOKEN {
            if !at.is_inside {
                at.watch.note();
                if at.watch.depth.get() == 0 {
                    at.watch.replayed.borrow_mut().push((crate_of::<T>(), at.watch.path.borrow().clone()));
                }
            }
            at = At { is_inside: true, is_sensitive: true, ..at };
        }
        self.inner.serialize_newtype_struct(name, &Value { value, at })
    }

    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.at.begin();
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let at = self.at.begin();
        at.watch.within(variant, || self.inner.serialize_newtype_variant(name, index, variant, &Value { value, at }))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        Ok(Compound::new(self.at, self.inner.serialize_seq(length)?))
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        Ok(Compound::new(self.at, self.inner.serialize_tuple(length)?))
    }

    fn serialize_tuple_struct(self, name: &'static str, length: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        Ok(Compound::new(self.at, self.inner.serialize_tuple_struct(name, length)?))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        Ok(Compound::new(self.at, self.inner.serialize_tuple_variant(name, index, variant, length)?).of(variant))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        Ok(Compound::new(self.at, self.inner.serialize_map(length)?))
    }

    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Self::SerializeStruct, S::Error> {
        // serde_json passes raw JSON texts and big numbers as structs with a private name.
        let is_spelled = name.starts_with("$serde_json::private::");
        Ok(Compound::new(self.at, self.inner.serialize_struct(name, length)?).spelled(is_spelled))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        Ok(Compound::new(self.at, self.inner.serialize_struct_variant(name, index, variant, length)?).of(variant))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.at.begin();
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}
