//! What the types of std, `serde_json`, `time` and `uuid` say of protected places, and `Sensitive` itself.

use super::{EventPart, IsId, Layout, NoId};
use crate::sensitive::Sensitive;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::marker::PhantomData;
use std::num::{
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize, NonZeroU8, NonZeroU16, NonZeroU32,
    NonZeroU64, NonZeroU128, NonZeroUsize,
};
use std::rc::Rc;
use std::sync::Arc;

/// Whoever holds the key gets the whole value, so it does not matter what a `T` says.
impl<T> EventPart for Sensitive<T> {
    const PROTECTS: bool = true;
    type Id = NoId;

    fn layout() -> Layout {
        Layout::PROTECTED
    }
}

macro_rules! plain {
    ($id:ty: $($type:ty)*) => {$(
        impl EventPart for $type {
            type Id = $id;
        }
    )*};
}

plain! { IsId: String str u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize uuid::Uuid }
plain! { IsId: NonZeroU8 NonZeroU16 NonZeroU32 NonZeroU64 NonZeroU128 NonZeroUsize }
plain! { IsId: NonZeroI8 NonZeroI16 NonZeroI32 NonZeroI64 NonZeroI128 NonZeroIsize }
plain! { NoId: () bool char f32 f64 std::time::Duration std::time::SystemTime std::path::PathBuf std::ffi::OsString }
plain! { NoId: std::net::IpAddr std::net::Ipv4Addr std::net::Ipv6Addr std::net::SocketAddr }
plain! { NoId: time::OffsetDateTime time::PrimitiveDateTime time::Date time::Time time::Duration time::UtcOffset }
plain! { NoId: time::Month time::Weekday time::UtcDateTime }
plain! { NoId: serde_json::Value serde_json::Number serde_json::value::RawValue }

#[cfg(feature = "chrono")]
plain! { NoId: chrono::NaiveDate chrono::NaiveTime chrono::NaiveDateTime chrono::TimeDelta chrono::FixedOffset }
#[cfg(feature = "chrono")]
plain! { NoId: chrono::Weekday chrono::Month }
#[cfg(feature = "rust_decimal")]
plain! { NoId: rust_decimal::Decimal }

#[cfg(feature = "chrono")]
impl<Z: chrono::TimeZone> EventPart for chrono::DateTime<Z> {
    type Id = NoId;
}

/// It is an object, and holds no `Sensitive`.
impl EventPart for serde_json::Map<String, serde_json::Value> {
    const IS_OBJECT: bool = true;
    type Id = NoId;
}

impl<T: ?Sized> EventPart for PhantomData<T> {
    type Id = NoId;
}

/// What is written as a `T` is. An `Option` names no owner by itself, because it may be `null`.
macro_rules! same {
    ($($type:ty => $id:ty, ($($generics:tt)*);)*) => {$(
        impl<$($generics)*> EventPart for $type {
            const PROTECTS: bool = T::PROTECTS;
            const NEEDS_OWNER: bool = T::NEEDS_OWNER;
            const IS_OBJECT: bool = T::IS_OBJECT;
            const REFUSED: Option<&'static str> = T::REFUSED;
            type Id = $id;

            fn layout() -> Layout {
                Layout::same::<T>()
            }
        }
    )*};
}

same! {
    Box<T> => T::Id, (T: EventPart + ?Sized);
    Rc<T> => T::Id, (T: EventPart + ?Sized);
    Arc<T> => T::Id, (T: EventPart + ?Sized);
    &T => T::Id, (T: EventPart + ?Sized);
    Cow<'_, T> => T::Id, (T: EventPart + ToOwned + ?Sized);
    Option<T> => NoId, (T: EventPart);
    std::cell::Cell<T> => T::Id, (T: EventPart);
    std::cell::RefCell<T> => T::Id, (T: EventPart);
    std::num::Wrapping<T> => T::Id, (T: EventPart);
    std::cmp::Reverse<T> => T::Id, (T: EventPart);
}

macro_rules! each {
    ($($type:ty, ($($generics:tt)*);)*) => {$(
        impl<T: EventPart, $($generics)*> EventPart for $type {
            const PROTECTS: bool = T::PROTECTS;
            const NEEDS_OWNER: bool = T::NEEDS_OWNER;
            const REFUSED: Option<&'static str> = T::REFUSED;
            type Id = NoId;

            fn layout() -> Layout {
                Layout::each::<T>()
            }
        }
    )*};
}

each! {
    Vec<T>, ();
    [T], ();
    [T; N], (const N: usize);
    VecDeque<T>, ();
    LinkedList<T>, ();
    BTreeSet<T>, ();
    BinaryHeap<T>, ();
    HashSet<T, S>, (S);
}

const IN_A_NAME: &str = "the keys of a map hold Sensitive values, and names of members can't be protected: use a list \
    of pairs, or make the map itself a Sensitive";

macro_rules! maps {
    ($($type:ty, ($($generics:tt)*);)*) => {$(
        impl<K: EventPart, V: EventPart, $($generics)*> EventPart for $type {
            const PROTECTS: bool = K::PROTECTS || V::PROTECTS;
            const NEEDS_OWNER: bool = K::NEEDS_OWNER || V::NEEDS_OWNER;
            const IS_OBJECT: bool = true;
            const REFUSED: Option<&'static str> =
                if K::PROTECTS { Some(IN_A_NAME) } else { first_of(&[K::REFUSED, V::REFUSED]) };
            type Id = NoId;

            fn layout() -> Layout {
                Layout::map::<K, V>()
            }
        }
    )*};
}

maps! {
    BTreeMap<K, V>, ();
    HashMap<K, V, S>, (S);
}

macro_rules! tuples {
    ($(($first:ident $($rest:ident)*))*) => {$(
        impl<$first: EventPart $(, $rest: EventPart)*> EventPart for ($first, $($rest,)*) {
            const PROTECTS: bool = $first::PROTECTS $(|| $rest::PROTECTS)*;
            const NEEDS_OWNER: bool = $first::NEEDS_OWNER $(|| $rest::NEEDS_OWNER)*;
            const REFUSED: Option<&'static str> = first_of(&[$first::REFUSED $(, $rest::REFUSED)*]);
            type Id = NoId;

            fn layout() -> Layout {
                Layout::elements(const { &[$first::layout $(, $rest::layout)*] })
            }
        }
    )*};
}

tuples! {
    (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) (A B C D E F G H I)
    (A B C D E F G H I J) (A B C D E F G H I J K) (A B C D E F G H I J K L)
}

/// The first reason of several types, if any has one.
const fn first_of(reasons: &[Option<&'static str>]) -> Option<&'static str> {
    let mut index = 0;
    while index < reasons.len() {
        if reasons[index].is_some() {
            return reasons[index];
        }
        index += 1;
    }
    None
}
