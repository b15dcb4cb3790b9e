//! The declaration of a registry: its event types and its policies.

use crate::event::EventType;
use crate::schema::Schemas;
use crate::schema::check::check;
use crate::schema::check::decoders::Decoder;
use crate::schema::declare::{EventSchema, Owner, VersionDecl};
use crate::schema::problem::SchemaErrors;
use crate::schema::typed::Events;
use crate::seal::in_the_clear::InTheClear;
use crate::seal::stand_in::StandInFn;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// A registry with its policies, before it is checked. Made by [`Schemas::builder`].
#[must_use = "build() it"]
pub struct SchemasBuilder {
    pub(crate) events: Vec<EventSchema>,
    pub(crate) accept_plaintext: Vec<EventType>,
    pub(crate) allow_unknown_types: bool,
    pub(crate) pass_through_sealed: bool,
    pub(crate) distinct_kinds: Vec<(Arc<str>, Arc<str>)>,
    pub(crate) pass_through_newer: bool,
    pub(crate) allow_older_appends: bool,
    pub(crate) deny_unreadable_payloads: bool,
    pub(crate) legacy_version: Option<u32>,
    pub(crate) max_parts: usize,
    pub(crate) max_steps: usize,
    pub(crate) decoders: Vec<Decoder>,
    /// What is protected in the metadata of all events.
    pub(crate) metadata: VersionDecl,
}

impl SchemasBuilder {
    pub(crate) fn new(events: impl IntoIterator<Item = EventSchema>) -> Self {
        Self {
            events: events.into_iter().collect(),
            accept_plaintext: Vec::new(),
            allow_unknown_types: false,
            pass_through_sealed: false,
            distinct_kinds: Vec::new(),
            pass_through_newer: false,
            allow_older_appends: false,
            deny_unreadable_payloads: false,
            legacy_version: None,
            max_parts: 1_000,
            max_steps: 1_000,
            decoders: Vec::new(),
            metadata: VersionDecl::default(),
        }
    }

    /// Adds what Rust types declare, as [`Schemas::of`] has it.
    pub fn and_of<E: Events>(self) -> Self {
        self.and(E::schemas()).decodes::<E>()
    }

    /// Adds event types that are declared by hand.
    ///
    /// What a type with a [derive](derive@crate::Event) declares can be named here again, such as to add steps or older
    /// versions. Where both declare one version, they must say the same.
    pub fn and(mut self, events: impl IntoIterator<Item = EventSchema>) -> Self {
        self.events.extend(events);
        self
    }

    /// Reads plaintext at protected places of this type instead of failing with
    /// [`EventFault::Unsealed`](crate::error::EventFault::Unsealed): for events stored before the store was wrapped.
    ///
    /// While this is set, anybody who can write to the store can put forged plaintext at protected places, and it is
    /// read as if it were genuine.
    pub fn accept_plaintext(mut self, event_type: impl Into<EventType>) -> Self {
        self.accept_plaintext.push(event_type.into());
        self
    }

    /// Protects the values at these JSON Pointers into the metadata of all events, whatever their type and version.
    ///
    /// ```
    /// # use eventseal::{Schemas, event, metadata};
    /// let events = [event("LoggedIn").version(1), event("OrderPlaced").version(1)];
    /// let schemas = Schemas::builder(events)
    ///     .protect_metadata(&["/ip", "/user_agent"], metadata("Customer", "/actor/id"))
    ///     .build()?;
    /// # Ok::<(), eventseal::schema::SchemaErrors>(())
    /// ```
    ///
    /// The rules are those of [`EventSchema::protect_metadata`], which protects more in the metadata of one version. A
    /// version that protects none of it says so with
    /// [`metadata_in_the_clear`](EventSchema::metadata_in_the_clear). Events of types that are not registered are
    /// covered too, where they are allowed.
    #[allow(clippy::needless_pass_by_value, reason = "reads as an owner at the call site")]
    pub fn protect_metadata(mut self, pointers: &[&str], owner: Owner) -> Self {
        self.metadata.protect(pointers, &owner);
        self
    }

    /// As [`EventSchema::redact_metadata_as`], for what is protected in the metadata of all events.
    pub fn redact_metadata_as(mut self, pointer: &str, stand_in: impl Into<Value>) -> Self {
        self.metadata.redact_as(pointer, stand_in.into());
        self
    }

    /// As [`EventSchema::redact_metadata_with`], for what is protected in the metadata of all events.
    pub fn redact_metadata_with(
        mut self,
        pointer: &str,
        name: impl Into<Arc<str>>,
        function: impl Fn(&InTheClear<'_>) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.metadata.redact_with(pointer, StandInFn::new(name, function));
        self
    }

    /// As [`EventSchema::pad_metadata_to`], for what is protected in the metadata of all events.
    pub fn pad_metadata_to(mut self, pointer: &str, multiple: usize) -> Self {
        self.metadata.pads.push((pointer.to_owned(), multiple));
        self
    }

    /// Lets events of types that are not registered pass through untouched, at append and on read, instead of failing
    /// with [`EventFault::UnknownType`](crate::error::EventFault::UnknownType).
    ///
    /// **Nothing in their payloads is protected**: a type whose name is misspelt, or that was forgotten here, is stored
    /// in the clear. Often, reading only registered types is enough:
    ///
    /// - Reads that name their types in [`EventFilter::event_types`](crate::EventFilter::event_types) never meet
    ///   others.
    /// - [`read_events_each`](crate::SealedStore::read_events_each) shows an unknown type as an error beside its
    ///   position.
    /// - `event("Pinged").version(1)` registers a type in which there is nothing to protect.
    pub fn allow_unknown_types(mut self) -> Self {
        self.allow_unknown_types = true;
        self
    }

    /// Hands out sealed events of types that are not registered as they are stored. It is for a service that carries
    /// events on without opening them, such as a relay. Without it, they fail with
    /// [`EventFault::StillSealed`](crate::error::EventFault::StillSealed).
    ///
    /// Their payloads are ciphertext, whether their keys were shredded or not: never show them as values. With this,
    /// events of types that are not registered can be read, sealed or not. Appending them takes
    /// [`allow_unknown_types`](Self::allow_unknown_types) as well. A sealed store never appends a sealed payload: to
    /// store one elsewhere, append it to the wrapped store itself.
    pub fn pass_through_sealed(mut self) -> Self {
        self.pass_through_sealed = true;
        self
    }

    /// Says that two scope kinds are different on purpose, such as `Item` and `Items`.
    ///
    /// Without this, kinds that differ by case, by white space or by one letter are a problem of the schemas: a shred
    /// of `Customer` does not reach values that are sealed for `customer`.
    ///
    /// ```
    /// # use eventseal::{Schemas, event, subject};
    /// let of = |name: &str, kind: &str| event(name).version(1).protect(&["/text"], subject(kind, "/id"));
    /// let both = || [of("Sold", "Item"), of("Listed", "Items")];
    /// assert!(Schemas::new(both()).is_err());
    /// assert!(Schemas::builder(both()).distinct_kinds("Item", "Items").build().is_ok());
    /// ```
    pub fn distinct_kinds(mut self, kind: impl Into<Arc<str>>, other: impl Into<Arc<str>>) -> Self {
        self.distinct_kinds.push((kind.into(), other.into()));
        self
    }

    /// Hands out events of versions newer than the registered ones, opened but not upcast, instead of failing with
    /// [`EventFault::NewerVersion`](crate::error::EventFault::NewerVersion). What is
    /// [protected in the metadata of all events](Self::protect_metadata) must be sealed in them too: deploy a version
    /// with [`metadata_in_the_clear`](EventSchema::metadata_in_the_clear) everywhere before it is appended.
    pub fn pass_through_newer(mut self) -> Self {
        self.pass_through_newer = true;
        self
    }

    /// Allows appends of declared versions that are no longer current.
    pub fn allow_older_appends(mut self) -> Self {
        self.allow_older_appends = true;
        self
    }

    /// Refuses to append payloads and metadata of registered types that no step could ever read, with
    /// [`EventFault::UnreadablePayload`](crate::error::EventFault::UnreadablePayload), instead of accepting any bytes
    /// that can be sealed.
    ///
    /// It costs a parse of every payload. Without it, an event with such a payload fails every read as soon as its
    /// version gets a step, and no reader of the log gets past it. Do not use it with types whose payloads are not
    /// JSON.
    pub fn deny_unreadable_payloads(mut self) -> Self {
        self.deny_unreadable_payloads = true;
        self
    }

    /// Reads events that are stored without a version (0, or NULL) as version `number`. It applies to all types that
    /// declare that version and have no [`legacy_version`](EventSchema::legacy_version) of their own.
    pub fn legacy_version(mut self, number: u32) -> Self {
        self.legacy_version = Some(number);
        self
    }

    /// Sets how many events one stored event may become: 1,000 by default. More are an error
    /// ([`EventFault::Upcast`](crate::error::EventFault::Upcast)).
    pub fn max_parts(mut self, limit: usize) -> Self {
        self.max_parts = limit;
        self
    }

    /// Sets how many steps a chain may have: 1,000 by default. A longer chain is a problem of the schemas.
    pub fn max_steps(mut self, limit: usize) -> Self {
        self.max_steps = limit;
        self
    }

    /// Checks that events can be decoded into this type: an enum with a derive of [`Events`], or a single
    /// [`Event`](crate::Event). Each of its event types must be registered, and be declared with the
    /// current version. Call it once for each such type of the application.
    ///
    /// Readers never see an event type whose last version is split, dropped or renamed, so nothing should decode it.
    /// There is one exception: a redacted event that was [protected whole](EventSchema::protect_whole) can't be split,
    /// and readers get it unchanged. An enum that decodes the types that it would be split into needs a catch-all for
    /// it.
    ///
    /// If a type is protected whole and not split, its payload type must be able to hold the stand-in of a redacted
    /// event: `null`, unless [`redact_as`](EventSchema::redact_as) says otherwise. A catch-all does not help there. A
    /// newtype over a [`Sensitive`](crate::Sensitive) can hold it:
    ///
    /// ```
    /// # use eventseal::{Event, Owner, Schemas, Sensitive, event};
    /// # use eventseal::schema::SchemaErrors;
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Scan { text: String }
    ///
    /// #[derive(Serialize, Deserialize)]
    /// #[serde(transparent)]
    /// struct Scanned(Sensitive<Scan>);
    ///
    /// impl Event for Scanned {
    ///     const TYPE: &'static str = "Scanned";
    ///     const VERSION: u32 = 1;
    /// }
    ///
    /// Schemas::builder([event("Scanned").version(1).protect_whole(Owner::Aggregate)]).decodes::<Scanned>().build()?;
    /// # Ok::<(), SchemaErrors>(())
    /// ```
    pub fn decodes<E: Events>(mut self) -> Self {
        self.decoders.push(Decoder::of::<E>());
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`SchemaErrors`] lists everything that is contradictory, at once.
    pub fn build(self) -> Result<Schemas, SchemaErrors> {
        check(self)
    }
}

/// Lists the event types.
impl fmt::Debug for SchemasBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemasBuilder").field("events", &self.events).finish_non_exhaustive()
    }
}
