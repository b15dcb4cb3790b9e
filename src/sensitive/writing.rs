//! Writing a value of the application as the JSON of an event.
//!
//! Two things are known here and nowhere else: where in the value a [`Sensitive`](crate::Sensitive) stood, and what
//! JSON can't say. The first is noted, so that an append can refuse to store one in the clear. The second is refused,
//! because serde_json writes `null` for it and says nothing.

mod compound;

use crate::error::{Error, Result, describe_without_values};
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
    /// The value at this place is the `Sensitive`. Otherwise one is somewhere in it, as part of a text or as the name
    /// of a member.
    pub(crate) is_exact: bool,
}

/// Writes a value, and says where each outermost `Sensitive` in it stood.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T) -> Result<(Vec<u8>, Vec<SensitivePlace>)> {
    let mut payload = Vec::with_capacity(128);
    let watch = Rc::new(Watch { is_append: true, ..Watch::default() });
    in_mode(Mode::Appending, || watched(value, &mut serde_json::Serializer::new(&mut payload), &watch))?;
    Ok((payload, watch.places()))
}

/// Writes what a step returned. An event that can't be read is worse than one that says a little less, so only what
/// JSON can't say at all is refused.
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
        Error::Encode { target: type_name::<T>(), problem }
    })
}

thread_local! {
    static WATCH: RefCell<Option<Rc<Watch>>> = const { RefCell::new(None) };
}

/// What is known while a value is written.
#[derive(Default)]
struct Watch {
    is_append: bool,
    /// The place that is being written.
    path: RefCell<String>,
    found: RefCell<Vec<SensitivePlace>>,
    /// How many `Sensitive`s are being written, one inside the other.
    depth: Cell<usize>,
    /// How often one was seen where it was written.
    seen: Cell<usize>,
    /// Where one was seen later than it was written, because somebody kept it in a buffer meanwhile, and whose buffer
    /// that was.
    replayed: RefCell<Vec<(&'static str, String)>>,
    /// Where one was written that was not seen, and whose serializer wrote it.
    unseen: RefCell<Vec<(&'static str, String)>>,
    /// Why the value is refused.
    problem: RefCell<Option<String>>,
}

impl Watch {
    fn within<R>(&self, token: &str, write: impl FnOnce() -> R) -> R {
        let length = self.push(token);
        let result = write();
        self.path.borrow_mut().truncate(length);
        result
    }

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

    fn note(&self) {
        self.seen.set(self.seen.get() + 1);
        self.found.borrow_mut().push(SensitivePlace { pointer: self.here(), is_exact: true });
    }

    fn refuse<E: ser::Error>(&self, problem: String) -> E {
        let error = E::custom("refused");
        self.problem.borrow_mut().get_or_insert(problem);
        error
    }

    fn places(&self) -> Vec<SensitivePlace> {
        let (mut places, unseen, mut replayed) = (self.found.take(), self.unseen.take(), self.replayed.take());
        // What goes into a buffer comes out of the same crate's, there or further inside. The inner ones choose first.
        let mut inner_first: Vec<_> = unseen.iter().collect();
        inner_first.sort_by_key(|(_, place)| Reverse(place.len()));
        // Of several of one crate, nobody knows which of them did not come out.
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

/// The crate that a type is of. A help and no promise: where names are spelled otherwise, what was written is not found
/// again.
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
    // The name goes through serde's buffers, and means nothing to other serializers.
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

/// Does it write the members of what it is given, each of which is seen, and nothing else? `#[serde(flatten)]` does,
/// and what has no members leaves no trace. A help and no promise: where serde's type is called otherwise, the place is
/// kept as unseen.
fn writes_members_here<S>() -> bool {
    let name = type_name::<S>();
    name.contains("FlatMapSerializer<") && name.contains(module_path!())
}

/// Stands in the path for a name that is a `Sensitive` or inside of one, because the path gets into errors. No place is
/// missed by that: what counts is the place around such a name, or the outermost `Sensitive`.
const HIDDEN: &str = "***";

/// Is the name of a member a `Sensitive`, perhaps out of a buffer of serde's?
fn holds_sensitive<K: Serialize + ?Sized>(key: &K) -> bool {
    let watch = Watch::default();
    let at = At { watch: &watch, is_inside: false, is_some: false, is_sensitive: false };
    // What can't be a name is refused by the serializer that is to write it.
    let _ = key.serialize(Watching { inner: &mut serde_json::Serializer::new(std::io::sink()), at });
    watch.seen.get() > 0
}

/// A place, and what is around it.
#[derive(Clone, Copy)]
struct At<'w> {
    watch: &'w Watch,
    /// A `Sensitive` around it is noted.
    is_inside: bool,
    /// It is in a `Some`, and nothing else is written there.
    is_some: bool,
    /// It is a `Sensitive`.
    is_sensitive: bool,
}

impl<'w> At<'w> {
    /// A value is about to be written here, and may hold others.
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

/// A serializer that watches another one.
struct Watching<'w, S> {
    inner: S,
    at: At<'w>,
}

/// A value with the place it is written at.
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
        // Numbers and texts that serde_json writes as they are spelled look like structs to other serializers.
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
