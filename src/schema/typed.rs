//! Rust types for events: payload types that know their event type and version, and enums of the events of a stream.

use crate::error::{BoxError, Error, EventFault, Result};
use crate::event::{EventPage, EventVersion, NewEvent, PayloadType, PersistedEvent, Stream};
use crate::schema::declare::{EventSchema, StepDecl, event};
use crate::schema::layout::{EventPart, declared};
use crate::schema::upcast::step::{Step, StepContext};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;

/// The payload of one event type, at one version.
///
/// [Derive](derive@crate::Event) it: then the type also says what in it is protected, and whose it is.
///
/// ```
/// use eventseal::{Event, NewEvent, Scope, Sensitive};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Scope)]
/// #[scope("Customer")]
/// struct Customer;
///
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(type = "OrderShipped", version = 1, owner = Customer(customer_id))]
/// struct OrderShipped { customer_id: u64, address: Sensitive<String> }
///
/// let event = NewEvent::of(&OrderShipped { customer_id: 42, address: "Ockham Park".into() })?;
/// assert_eq!((event.event_type.as_str(), event.event_version.get()), ("OrderShipped", 1));
/// # Ok::<(), eventseal::Error>(())
/// ```
///
/// By hand, only [`TYPE`](Self::TYPE) and [`VERSION`](Self::VERSION) are needed. [`event`](crate::event()) then
/// declares
/// what is protected.
///
/// The name of the event type is written out, so that renaming the Rust type does not change the name that is stored. A
/// payload type is [`Events`] by itself, and a variant of the enums that [derive](derive@crate::Events) it.
///
/// The payload of a type that is [protected whole](crate::schema::EventSchema::protect_whole) is a
/// `#[serde(transparent)]` newtype over a [`Sensitive`](crate::Sensitive), because nothing else is left of such a
/// payload once it is erased.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is the payload of no event type",
    note = "`#[derive(eventseal::Event)]` with `#[event(type = \"…\", version = 1)]` names the event type and the \
    version"
)]
pub trait Event: Serialize + DeserializeOwned {
    /// The event type, as it is stored and registered.
    const TYPE: &'static str;
    /// The version of the payload: the current one in the schemas, unless a newer type is made from it.
    const VERSION: u32;

    /// What the type declares: this version with its protected places, and all versions before it that it names.
    /// `None`, the default, if [`event`](crate::event()) declares it by hand.
    #[must_use]
    fn schema() -> Option<EventSchema> {
        None
    }
}

/// One or several types of events as a Rust type: an enum, or a single [`Event`].
///
/// [Derive](derive@crate::Events) it. Implement it by hand only if that does not fit.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither the payload of an event nor an enum of events",
    note = "`#[derive(eventseal::Events)]` for an enum of payload types, or `#[derive(eventseal::Event)]` for the \
        payload of a single event type"
)]
pub trait Events: Sized {
    /// The event types that are decoded, each with the version of its payload. No type twice.
    const DECODES: &'static [(&'static str, u32)];

    /// Are events of other types decoded too, into a catch-all?
    const HAS_CATCH_ALL: bool = false;

    /// Reads an event into this type, in one pass over its payload.
    ///
    /// [`Sensitive`](crate::Sensitive) fields are exact, as in [`PersistedEvent::decode`].
    ///
    /// # Errors
    /// [`EventFault::UnexpectedType`] if the event is of another type, [`EventFault::UnexpectedVersion`] if it is of
    /// another version of this type, [`EventFault::Decode`] if the payload does not fit.
    fn decode(event: &PersistedEvent) -> Result<Self>;

    /// The event to append, with a new id.
    ///
    /// # Errors
    /// [`InputFault::Encode`](crate::error::InputFault::Encode) if serde can't write the payload as JSON;
    /// [`EventFault::CatchAll`] for an event in a catch-all, which was read from the store and is stored already.
    fn encode(&self) -> Result<NewEvent>;

    /// What the types declare; see [`Event::schema`]. [`Schemas::of`](crate::Schemas::of) registers it.
    #[must_use]
    fn schemas() -> Vec<EventSchema> {
        Vec::new()
    }

    /// The Rust types of the payloads, in the order of [`DECODES`](Self::DECODES). Empty if they are not known.
    ///
    /// The guards of the crate `eventseal-testing` learn from them what payloads look like.
    #[must_use]
    fn payload_types() -> Vec<PayloadType> {
        Vec::new()
    }
}

impl<T: Event> Events for T {
    const DECODES: &'static [(&'static str, u32)] = &[(T::TYPE, T::VERSION)];

    fn decode(event: &PersistedEvent) -> Result<Self> {
        if event.event_type.as_str() != T::TYPE {
            return Err(unexpected_type::<T>(event));
        }
        if event.event_version.get() != T::VERSION {
            return Err(Error::Event {
                event_id: event.event_id,
                fault: EventFault::UnexpectedVersion {
                    event_type: event.event_type.clone(),
                    event_version: event.event_version,
                    expected: EventVersion::new(T::VERSION),
                    target: type_name::<T>(),
                },
            });
        }
        event.decode()
    }

    fn encode(&self) -> Result<NewEvent> {
        NewEvent::json(T::TYPE, T::VERSION, self)
    }

    fn schemas() -> Vec<EventSchema> {
        T::schema().into_iter().collect()
    }

    fn payload_types() -> Vec<PayloadType> {
        vec![PayloadType::of::<T>()]
    }
}

impl NewEvent {
    /// An event of a Rust type that knows its event type and version: an [`Event`], or an enum of
    /// them.
    ///
    /// # Errors
    /// Those of [`Events::encode`].
    pub fn of<E: Events>(event: &E) -> Result<Self> {
        event.encode()
    }
}

impl Stream {
    /// Its events as a Rust type, such as an enum with a derive of [`Events`]: one for each of
    /// [`events`](Self::events), in their order.
    ///
    /// # Errors
    /// Those of [`Events::decode`], for the first event that has one.
    pub fn decode<E: Events>(&self) -> Result<Vec<E>> {
        self.events.iter().map(E::decode).collect()
    }
}

impl EventPage {
    /// Its events as a Rust type, such as an enum with a derive of [`Events`]: one for each of
    /// [`events`](Self::events), in their order, so that they can be zipped.
    ///
    /// # Errors
    /// Those of [`Events::decode`], for the first event that has one.
    pub fn decode<E: Events>(&self) -> Result<Vec<E>> {
        self.events.iter().map(E::decode).collect()
    }
}

/// What the derive of `Events` writes.
///
/// All names in here begin with `__`, so that payload types may have any other name: generic parameters are not
/// hygienic, and a binding can't shadow a tuple struct.
#[doc(hidden)]
#[macro_export]
macro_rules! __events_impl {
    (
        $name:ident, $has_catch_all:literal, $event:ident, $otherwise:expr,
        { $($arm:ident($payload:ty),)+ }
        { $($encode_other:tt)* }
    ) => {
        const _: () = {
            const TWICE: $crate::__private::Twice =
                $crate::__private::Twice::of(<$name as $crate::Events>::DECODES);
            // The assertion is here, so that the compiler points at the enum.
            ::std::assert!(TWICE.is_not(), "{}", TWICE.message());
        };

        #[automatically_derived]
        impl $crate::Events for $name {
            const DECODES: &'static [(&'static str, u32)] =
                &[$((<$payload as $crate::Event>::TYPE, <$payload as $crate::Event>::VERSION)),+];
            const HAS_CATCH_ALL: bool = $has_catch_all;

            fn decode($event: &$crate::PersistedEvent) -> $crate::Result<Self> {
                match $event.event_type.as_str() {
                    $(<$payload as $crate::Event>::TYPE => {
                        $crate::__private::decode::<$payload>($event).map($name::$arm)
                    })+
                    _ => $otherwise,
                }
            }

            fn encode(&self) -> $crate::Result<$crate::NewEvent> {
                match self {
                    $($name::$arm(__payload) => $crate::__private::encode::<$payload>(__payload),)+
                    $($encode_other)*
                }
            }

            fn schemas() -> ::std::vec::Vec<$crate::schema::EventSchema> {
                [$(<$payload as $crate::Event>::schema()),+].into_iter().flatten().collect()
            }

            fn payload_types() -> ::std::vec::Vec<$crate::__private::PayloadType> {
                ::std::vec![$($crate::__private::PayloadType::of::<$payload>()),+]
            }
        }

        $(#[automatically_derived]
        impl ::std::convert::From<$payload> for $name {
            fn from(__payload: $payload) -> Self {
                $name::$arm(__payload)
            }
        })+
    };
}

/// The declaration of a type with a derive.
pub fn schema<T: Event + EventPart>() -> EventSchema {
    let mut schema = event(T::TYPE);
    schema.versions.push(declared::<T>(T::VERSION));
    schema
}

/// The declaration of a type with a derive that is made from the type of the version before it.
pub fn schema_after<T, P, E>(step: fn(P) -> std::result::Result<T, E>) -> EventSchema
where
    T: Event + EventPart + 'static,
    P: Event + 'static,
    E: Into<BoxError> + 'static,
{
    let mut schema = P::schema().unwrap_or_else(|| event(T::TYPE));
    schema.versions.push(declared::<T>(T::VERSION));
    let step = Step::function(move |old: P, _: &StepContext<'_>| step(old));
    schema.steps.push((P::VERSION, StepDecl::Derived(type_name::<T>(), step)));
    schema
}

/// Bound to `Event`, so that the compiler reports a wrong variant at the variant and not inside the macro.
#[allow(clippy::missing_errors_doc, reason = "that of the trait")]
pub fn decode<T: Event>(event: &PersistedEvent) -> Result<T> {
    Events::decode(event)
}

/// Bound to `Event`, so that the compiler reports a wrong variant at the variant and not inside the macro.
#[allow(clippy::missing_errors_doc, reason = "that of the trait")]
pub fn encode<T: Event>(payload: &T) -> Result<NewEvent> {
    payload.encode()
}

/// The error for an event whose type `E` does not decode.
#[must_use]
pub fn unexpected_type<E>(event: &PersistedEvent) -> Error {
    Error::Event {
        event_id: event.event_id,
        fault: EventFault::UnexpectedType { event_type: event.event_type.clone(), target: type_name::<E>() },
    }
}

/// The error for an event in a catch-all of `E`, which can't be encoded.
#[must_use]
pub fn catch_all<E>(event: &PersistedEvent) -> Error {
    Error::Event {
        event_id: event.event_id,
        fault: EventFault::CatchAll { event_type: event.event_type.clone(), target: type_name::<E>() },
    }
}

/// A check at compile time: do two variants of an enum name one event type? It holds the compiler's message, which is
/// empty if they do not.
#[derive(Debug)]
pub struct Twice {
    /// Nothing formats at compile time, so the text is put together by hand.
    text: [u8; 512],
    length: usize,
}

impl Twice {
    /// Looks for an event type that two variants name.
    #[must_use]
    pub const fn of(arms: &[(&str, u32)]) -> Self {
        let mut twice = Self { text: [0; 512], length: 0 };
        let mut index = 0;
        while index < arms.len() {
            let mut other = 0;
            while other < index {
                if is_same(arms[index].0, arms[other].0) && twice.is_not() {
                    twice.push("two variants are of the event type ");
                    twice.push(arms[index].0);
                    twice.push(": keep the newest, which brings the older ones with `previous`");
                }
                other += 1;
            }
            index += 1;
        }
        twice
    }

    const fn push(&mut self, text: &str) {
        let mut index = 0;
        while index < text.len() && self.length < self.text.len() {
            self.text[self.length] = text.as_bytes()[index];
            self.length += 1;
            index += 1;
        }
    }

    /// Does every variant name another event type?
    #[must_use]
    pub const fn is_not(&self) -> bool {
        self.length == 0
    }

    /// The message for the compiler.
    #[must_use]
    pub const fn message(&self) -> &str {
        match std::str::from_utf8(self.text.split_at(self.length).0) {
            Ok(text) => text,
            // The name is too long, and cut within a character.
            Err(_) => "two variants are of the same event type: keep the newest",
        }
    }
}

/// `==` of texts is not const.
pub(crate) const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}
