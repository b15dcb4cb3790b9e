//! Writes lists, maps and structs, and keeps the path to each value in them.

use crate::json::raw;
use crate::sensitive::writing::{At, HIDDEN, Value, holds_sensitive};
use serde::ser::{self, Serialize};
use std::collections::HashSet;

/// A list, map or struct that is being written.
pub(super) struct Compound<'w, C> {
    inner: C,
    at: At<'w>,
    /// The length of the path to this list, map or struct.
    length: usize,
    /// The index of the next element.
    index: usize,
    /// The fields spell one value (a number, a raw JSON text). They are not members.
    is_spelled: bool,
    /// The name of the next member of a map, as the path shows it.
    name: String,
    /// The names that a map has had so far.
    names: HashSet<String>,
}

impl<'w, C> Compound<'w, C> {
    pub(super) fn new(at: At<'w>, inner: C) -> Self {
        let length = at.watch.path.borrow().len();
        Self { inner, at: at.begin(), length, index: 0, is_spelled: false, name: String::new(), names: HashSet::new() }
    }

    /// Sets whether the fields spell one value, such as a number, instead of being members.
    pub(super) fn spelled(self, is_spelled: bool) -> Self {
        Self { is_spelled, ..self }
    }

    /// Sets that this is the content of an enum's variant, which is written as a member with the variant's name.
    pub(super) fn of(self, variant: &str) -> Self {
        self.at.watch.push(variant);
        self
    }

    fn element<E>(&mut self, write: impl FnOnce(&mut C, At<'w>) -> Result<(), E>) -> Result<(), E> {
        let (inner, at) = (&mut self.inner, self.at);
        let result = at.watch.within(&self.index.to_string(), || write(inner, at));
        self.index += 1;
        result
    }

    fn member<E>(&mut self, name: &str, write: impl FnOnce(&mut C, At<'w>) -> Result<(), E>) -> Result<(), E> {
        let (inner, at) = (&mut self.inner, self.at);
        at.watch.within(name, || write(inner, at))
    }

    /// Takes the name of the next member of a map. Refuses a name that the map has already.
    fn named<K: Serialize + ?Sized, E: ser::Error>(&mut self, key: &K) -> Result<(), E> {
        // serde_json writes a number or a bool as a name too, with quotes around it.
        let spelled = serde_json::to_string(key).map_err(E::custom)?;
        let name = match raw::name(&spelled) {
            Ok(name) if spelled.starts_with('"') => name.into_owned(),
            _ => spelled,
        };
        self.name = if self.at.is_inside || holds_sensitive(key) { HIDDEN.to_owned() } else { name.clone() };
        if self.at.watch.is_append && !self.names.insert(name) {
            let watch = self.at.watch;
            let place = watch.within(&self.name, || watch.here());
            return Err(watch.refuse(format!(
                "the member {place} would be written twice, and read once: give each a name of its own"
            )));
        }
        Ok(())
    }

    fn end<R>(self, end: impl FnOnce(C) -> R) -> R {
        self.at.watch.path.borrow_mut().truncate(self.length);
        end(self.inner)
    }
}

macro_rules! lists {
    ($($trait:ident $method:ident)*) => {$(
        impl<C: ser::$trait> ser::$trait for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.element(|inner, at| inner.$method(&Value { value, at }))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                Compound::end(self, ser::$trait::end)
            }
        }
    )*};
}

lists! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! structs {
    ($($trait:ident)*) => {$(
        impl<C: ser::$trait> ser::$trait for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                if self.is_spelled {
                    return self.inner.serialize_field(name, value);
                }
                self.member(name, |inner, at| inner.serialize_field(name, &Value { value, at }))
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(name)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                Compound::end(self, ser::$trait::end)
            }
        }
    )*};
}

structs! { SerializeStruct SerializeStructVariant }

impl<C: ser::SerializeMap> ser::SerializeMap for Compound<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.named(key)?;
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let name = std::mem::take(&mut self.name);
        self.member(&name, |inner, at| inner.serialize_value(&Value { value, at }))
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), C::Error> {
        self.named(key)?;
        let name = std::mem::take(&mut self.name);
        self.member(&name, |inner, at| inner.serialize_entry(key, &Value { value, at }))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        Compound::end(self, ser::SerializeMap::end)
    }
}
