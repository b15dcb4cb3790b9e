//! Rust types for events: payload types that know their event type and version, and enums of the events of a stream.
//!
//! Nothing here knows of schemas: `SchemasBuilder::decodes` compares what is declared here with them.

use crate::error::{Error, EventFault, Result};
use crate::event::{EventPage, EventVersion, NewEvent, PayloadType, PersistedEvent, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The payload of one event type, at its current version.
///
/// ```
/// use eventseal::{EventPayload, NewEvent};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct OrderShipped { carrier: String }
///
/// impl EventPayload for OrderShipped {
///     const TYPE: &'static str = "OrderShipped";
///     const VERSION: u32 = 1;
/// }
///
/// let event = NewEvent::of(&OrderShipped { carrier: "by bike".into() })?;
/// assert_eq!((event.event_type.as_str(), event.event_version.get()), ("OrderShipped", 1));
/// # Ok::<(), eventseal::Error>(())
/// ```
///
/// The name of the event type is written out, so that renaming the Rust type does not change the name that is stored. A
/// payload type is a [`TypedEvent`] by itself, and an arm of the enums that [`events!`](crate::events) makes. Only
/// current versions need it: the types that a typed step starts from are never decoded otherwise.
///
/// The payload of a type that is [protected whole](crate::schema::EventSchema::protect_whole) is a
/// `#[serde(transparent)]` newtype over a [`Sensitive`](crate::Sensitive), because nothing else is left of such a
/// payload once it is erased.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is the payload of no event type",
    note = "implement `eventseal::EventPayload` for it, which names the event type and the version"
)]
pub trait EventPayload: Serialize + DeserializeOwned {
    /// The event type, as it is stored and registered.
    const TYPE: &'static str;
    /// The version of the payload: the current one in the schemas.
    const VERSION: u32;
}

/// One or several types of events as a Rust type: an enum made by [`events!`](crate::events), or a single
/// [`EventPayload`].
///
/// Implement it by hand only if neither fits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type of events",
    note = "make an enum with `eventseal::events!`, or implement `eventseal::EventPayload` for the payload of a single \
        event type"
)]
pub trait TypedEvent: Sized {
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

    /// The Rust types of the payloads, in the order of [`DECODES`](Self::DECODES). Empty if they are not known.
    ///
    /// The guards of the crate `eventseal-testing` learn from them what payloads look like.
    #[must_use]
    fn payload_types() -> Vec<PayloadType> {
        Vec::new()
    }
}

impl<T: EventPayload> TypedEvent for T {
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
                    target: std::any::type_name::<T>(),
                },
            });
        }
        event.decode()
    }

    fn encode(&self) -> Result<NewEvent> {
        NewEvent::json(T::TYPE, T::VERSION, self)
    }

    fn payload_types() -> Vec<PayloadType> {
        vec![PayloadType::of::<T>()]
    }
}

impl NewEvent {
    /// An event of a Rust type that knows its event type and version: an [`EventPayload`], or an enum made by
    /// [`events!`](crate::events).
    ///
    /// # Errors
    /// Those of [`TypedEvent::encode`].
    pub fn of<E: TypedEvent>(event: &E) -> Result<Self> {
        event.encode()
    }
}

impl Stream {
    /// Its events as a Rust type, such as an enum made by [`events!`](crate::events): one for each of
    /// [`events`](Self::events), in their order.
    ///
    /// # Errors
    /// Those of [`TypedEvent::decode`], for the first event that has one.
    pub fn decode<E: TypedEvent>(&self) -> Result<Vec<E>> {
        self.events.iter().map(E::decode).collect()
    }
}

impl EventPage {
    /// Its events as a Rust type, such as an enum made by [`events!`](crate::events): one for each of
    /// [`events`](Self::events), in their order, so that they can be zipped.
    ///
    /// # Errors
    /// Those of [`TypedEvent::decode`], for the first event that has one.
    pub fn decode<E: TypedEvent>(&self) -> Result<Vec<E>> {
        self.events.iter().map(E::decode).collect()
    }
}

/// Makes an enum of the events of a stream, with a [`TypedEvent`] implementation.
///
/// Each arm names a variant and its [`EventPayload`]. `_ => Other` at the end is a catch-all: a variant that holds the
/// [`PersistedEvent`], in a `Box`, for all events of other types. Without it, such an event is an error.
///
/// ```
/// use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
/// use eventseal::{
///     EventPayload, EventStore, EventStoreExt, ExpectedVersion, Keyring, Namespace, NewEvent, Result, Schemas,
///     SealedStore, Sensitive, aggregate, event, events, subject,
/// };
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct OrderPlaced { customer_id: String, email: Sensitive<String> }
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct OrderShipped { carrier: String }
///
/// impl EventPayload for OrderPlaced {
///     const TYPE: &'static str = "OrderPlaced";
///     const VERSION: u32 = 1;
/// }
///
/// impl EventPayload for OrderShipped {
///     const TYPE: &'static str = "OrderShipped";
///     const VERSION: u32 = 1;
/// }
///
/// events! {
///     /// What happens to an order.
///     #[derive(Debug)]
///     pub enum OrderEvent {
///         /// Somebody ordered.
///         Placed(OrderPlaced),
///         /// It is on its way.
///         Shipped(OrderShipped),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let schemas = Schemas::builder([
///     event("OrderPlaced").version(1).protect(&["/email"], subject("Customer", "/customer_id")),
///     event("OrderShipped").version(1),
/// ])
/// .decodes::<OrderEvent>() // each arm is the current version of a registered type, or build() says so
/// .build()?;
/// # let db = MemoryDb::new(Namespace::new("shop")?);
/// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main")?, schemas);
/// # store.keys().prepare(&mut db.begin()).await?;
/// # let order = aggregate("Order", "ord_123");
/// # let mut tx = db.begin();
///
/// let placed = OrderPlaced { customer_id: "cust_42".into(), email: "ada@example.org".into() };
/// let shipped = OrderEvent::from(OrderShipped { carrier: "by bike".into() });
/// store.append(&mut tx, &order, ExpectedVersion::NoStream, &[NewEvent::of(&placed)?, NewEvent::of(&shipped)?]).await?;
///
/// for event in store.read_stream(&mut tx, &order).await?.decode::<OrderEvent>()? {
///     match event {
///         OrderEvent::Placed(placed) => assert!(!placed.email.is_redacted()),
///         OrderEvent::Shipped(shipped) => assert_eq!(shipped.carrier, "by bike"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # What is generated
/// The enum with its attributes, doc comments and visibility as written; [`TypedEvent`] for it; `From` of each payload.
/// A type that two arms share does not compile.
///
/// # Versions
/// An event whose type has an arm, but whose version is not the arm's, is an error, even if the enum has a catch-all:
/// it would be read as something else, or ignored as unknown. [`SchemasBuilder::decodes`] finds at startup where a
/// version in the code differs from that in the schemas. Afterwards the error can come only from versions that
/// [`pass_through_newer`](crate::schema::SchemasBuilder::pass_through_newer) lets through, and from stores that are
/// read without schemas.
///
/// # What a catch-all is for
/// A catch-all is for enums that name some of the types of a stream only, such as the enum of a read model. An event in
/// it can't be encoded: it is stored already, may have been upcast, and may hold stand-ins for shredded values.
///
/// # Why this is not a derive
/// A derive would need a second crate, and `syn` in everybody's build, for what fits into a declarative macro: the
/// enum has no generics, and the attributes of serde stay where they matter, on the payloads. A `#[cfg]` on an arm is
/// not understood.
///
/// [`SchemasBuilder`]: crate::schema::SchemasBuilder
/// [`SchemasBuilder::decodes`]: crate::schema::SchemasBuilder::decodes
#[macro_export]
macro_rules! events {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident { $($(#[$arm_attribute:meta])* $arm:ident($payload:ty)),+ $(,)? }
    ) => {
        $(#[$attribute])*
        $visibility enum $name { $($(#[$arm_attribute])* $arm($payload),)+ }

        $crate::__events_impl! {
            $name, false, __event,
            ::std::result::Result::Err($crate::__private::unexpected_type::<$name>(__event)),
            { $($arm($payload),)+ }
            {}
        }
    };
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$arm_attribute:meta])* $arm:ident($payload:ty),)+
            _ => $other:ident $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visibility enum $name {
            $($(#[$arm_attribute])* $arm($payload),)+
            /// An event of another type, as it was read.
            $other(::std::boxed::Box<$crate::PersistedEvent>),
        }

        $crate::__events_impl! {
            $name, true, __event,
            ::std::result::Result::Ok($name::$other(::std::boxed::Box::new(::std::clone::Clone::clone(__event)))),
            { $($arm($payload),)+ }
            { $name::$other(__event) => ::std::result::Result::Err($crate::__private::catch_all::<$name>(__event)), }
        }
    };
    ($($anything:tt)*) => {
        ::std::compile_error!(
            "events! takes one enum: `pub enum OrderEvent { Placed(OrderPlaced), Shipped(OrderShipped), _ => Other }`, \
             each variant with one payload type, and a catch-all (`_ => Other`, without attributes) or none at the end"
        );
    };
}

/// The implementations that enums with and without a catch-all share.
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
                $crate::__private::Twice::of(<$name as $crate::TypedEvent>::DECODES);
            // The assertion is here, so that the compiler points at the enum.
            ::std::assert!(TWICE.is_not(), "{}", TWICE.message());
        };

        #[automatically_derived]
        impl $crate::TypedEvent for $name {
            const DECODES: &'static [(&'static str, u32)] =
                &[$((<$payload as $crate::EventPayload>::TYPE, <$payload as $crate::EventPayload>::VERSION)),+];
            const HAS_CATCH_ALL: bool = $has_catch_all;

            fn decode($event: &$crate::PersistedEvent) -> $crate::Result<Self> {
                match $event.event_type.as_str() {
                    $(<$payload as $crate::EventPayload>::TYPE => {
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

/// Bound to `EventPayload`, so that the compiler reports a wrong arm at the arm and not inside the macro.
#[allow(clippy::missing_errors_doc, reason = "that of the trait")]
pub fn decode<T: EventPayload>(event: &PersistedEvent) -> Result<T> {
    TypedEvent::decode(event)
}

/// Bound to `EventPayload`, so that the compiler reports a wrong arm at the arm and not inside the macro.
#[allow(clippy::missing_errors_doc, reason = "that of the trait")]
pub fn encode<T: EventPayload>(payload: &T) -> Result<NewEvent> {
    payload.encode()
}

/// The error for an event whose type `E` does not decode.
#[must_use]
pub fn unexpected_type<E>(event: &PersistedEvent) -> Error {
    Error::Event {
        event_id: event.event_id,
        fault: EventFault::UnexpectedType { event_type: event.event_type.clone(), target: std::any::type_name::<E>() },
    }
}

/// The error for an event in a catch-all of `E`, which can't be encoded.
#[must_use]
pub fn catch_all<E>(event: &PersistedEvent) -> Error {
    Error::Event {
        event_id: event.event_id,
        fault: EventFault::CatchAll { event_type: event.event_type.clone(), target: std::any::type_name::<E>() },
    }
}

/// A check at compile time: do two arms of an enum name one event type? It holds the message for the compiler, which is
/// empty if they do not.
#[derive(Debug)]
pub struct Twice {
    /// Nothing formats at compile time, so the text is put together by hand.
    text: [u8; 512],
    length: usize,
}

impl Twice {
    /// Looks for an event type that two arms name.
    #[must_use]
    pub const fn of(arms: &[(&str, u32)]) -> Self {
        let mut twice = Self { text: [0; 512], length: 0 };
        let mut index = 0;
        while index < arms.len() {
            let mut other = 0;
            while other < index {
                if is_same(arms[index].0, arms[other].0) && twice.is_not() {
                    twice.push("two arms are of the event type ");
                    twice.push(arms[index].0);
                    twice.push(": keep one");
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

    /// Does every arm name another event type?
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
            Err(_) => "two arms are of the same event type: keep one",
        }
    }
}

/// `==` of texts is not const.
const fn is_same(a: &str, b: &str) -> bool {
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
