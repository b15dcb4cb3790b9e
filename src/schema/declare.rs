//! The declaration of event types. Nothing is checked here: `check` looks at all declarations together.

mod owner;

pub use owner::{Owner, caller, caller_at, metadata, subject};

use crate::error::BoxError;
use crate::event::EventType;
use crate::schema::problem::SchemaProblem;
use crate::schema::type_version::TypeVersion;
use crate::schema::upcast::changes::Changes;
use crate::schema::upcast::step::{MetadataFn, SplitPart, Step, StepContext, metadata_step};
use crate::seal::in_the_clear::InTheClear;
use crate::seal::stand_in::StandInFn;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// Declares an event type: its versions, what each protects, and the steps between them.
///
/// See [`EventSchema`].
pub fn event(name: impl Into<EventType>) -> EventSchema {
    EventSchema {
        name: name.into(),
        versions: Vec::new(),
        steps: Vec::new(),
        metadata_steps: Vec::new(),
        legacy: Vec::new(),
        misplaced: false,
    }
}

/// The declaration of one event type.
///
/// `version(n)` begins the declaration of a version. The calls after it apply to that version, until the next
/// `version`. Steps name the version that they start from, and can stand anywhere. The highest version is the current
/// one. [`Schemas::new`](crate::Schemas::new) checks everything.
#[must_use = "declare it to Schemas::new"]
pub struct EventSchema {
    pub(crate) name: EventType,
    pub(crate) versions: Vec<VersionDecl>,
    pub(crate) steps: Vec<(u32, StepDecl)>,
    pub(crate) metadata_steps: Vec<(u32, MetadataFn)>,
    pub(crate) legacy: Vec<u32>,
    /// Something was declared before the first `version`.
    pub(crate) misplaced: bool,
}

pub(crate) enum StepDecl {
    Ready(Step),
    /// The step that the type of this name declares, which several enums may hold.
    Derived(&'static str, Step),
    Changes(Changes),
}

#[derive(Clone, Default)]
pub(crate) struct VersionDecl {
    pub(crate) number: u32,
    pub(crate) fields: Vec<FieldDecl>,
    pub(crate) whole: Option<FieldDecl>,
    pub(crate) unprotected: bool,
    /// A `protect` that names no pointer.
    pub(crate) names_nothing: bool,
    /// The whole payload is protected more than once.
    pub(crate) whole_twice: bool,
    pub(crate) same_as: Vec<u32>,
    /// The stand-ins that `redact_as` and `redact_with` declared, by pointer.
    pub(crate) stand_ins: Vec<(String, StandInDecl)>,
    pub(crate) pads: Vec<(String, usize)>,
    /// What is protected in the metadata, declared as for payloads.
    pub(crate) metadata: Option<Box<VersionDecl>>,
    /// The Rust type that declares the version by its derive.
    pub(crate) derived: Option<Derived>,
    /// What is wrong with that type.
    pub(crate) problems: Vec<SchemaProblem>,
}

/// A stand-in that was declared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StandInDecl {
    Value(Value),
    Computed(StandInFn),
}

impl VersionDecl {
    pub(crate) fn redact_as(&mut self, pointer: &str, stand_in: Value) {
        self.stand_ins.push((pointer.to_owned(), StandInDecl::Value(stand_in)));
    }

    pub(crate) fn redact_with(&mut self, pointer: &str, function: StandInFn) {
        self.stand_ins.push((pointer.to_owned(), StandInDecl::Computed(function)));
    }

    pub(crate) fn protect(&mut self, pointers: &[&str], owner: &Owner) {
        self.names_nothing |= pointers.is_empty();
        let field = |pointer: &&str| FieldDecl { pointer: (*pointer).to_owned(), owner: owner.clone() };
        self.fields.extend(pointers.iter().map(field));
    }

    /// Do two declarations of metadata say the same?
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        let of = |declared: &Self| {
            (declared.fields.clone(), declared.stand_ins.clone(), declared.pads.clone(), declared.unprotected)
        };
        of(self) == of(other)
    }

    /// Does it say anything about payloads?
    pub(crate) fn is_about_payloads(&self) -> bool {
        !self.fields.is_empty()
            || self.whole.is_some()
            || self.unprotected
            || self.names_nothing
            || !self.stand_ins.is_empty()
            || !self.pads.is_empty()
    }
}

/// A Rust type that declares a version by its derive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) name: &'static str,
    /// Where its code stands: two types may have one name.
    pub(crate) stands: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldDecl {
    pub(crate) pointer: String,
    pub(crate) owner: Owner,
}

impl EventSchema {
    /// Begins version `number`, from 1 on.
    pub fn version(mut self, number: u32) -> Self {
        self.versions.push(VersionDecl { number, ..VersionDecl::default() });
        self
    }

    /// Protects the values at these JSON Pointers, in which a `*` stands for every element of an array
    /// (a member that is itself named `*` is written `~2`).
    ///
    /// A value of any JSON type can be protected. Absent values, and `null`s whose subject is not named, are not
    /// sealed. A payload whose shape does not fit the pointers can't be appended
    /// ([`EventFault::ShapeMismatch`](crate::error::EventFault::ShapeMismatch)). A pointer can't begin with `*`: a
    /// payload with protected members is an object, and an object has no elements. Name the members, or use
    /// [`protect_whole`](Self::protect_whole).
    ///
    /// # Members of an object
    /// A name in braces stands for every member of an object. It can be the id of the owner:
    ///
    /// ```
    /// # use eventseal::{Schemas, event, subject};
    /// let met = event("Met").version(1).protect(&["/guests/{guest}/name"], subject("Guest", "{guest}"));
    /// Schemas::new([met])?; // {"guests":{"g1":{"name":"Ada"},"g2":{"name":"Grace"}}}
    /// # Ok::<(), eventseal::schema::SchemaErrors>(())
    /// ```
    ///
    /// - **The names of members stay in the clear**, also after an erasure: use ids that mean nothing.
    /// - No member of such an object may occur twice, and its names are not empty. An array there is refused, as is an
    ///   object where a `*` needs an array.
    /// - No other pointer of the version names a single member of such an object.
    /// - Declarative changes can move the whole object, and no member of it. Between a version with a list and one with
    ///   a map, use a typed step with [`Sensitive`](crate::Sensitive) fields.
    /// - A member whose own name begins with `{` is written with `~3` in place of the `{`.
    #[allow(clippy::needless_pass_by_value, reason = "reads as an owner at the call site")]
    pub fn protect(self, pointers: &[&str], owner: Owner) -> Self {
        self.in_version(|version| version.protect(pointers, &owner))
    }

    /// Protects the whole payload, JSON or not.
    ///
    /// No step is called for such a payload once it is redacted. Readers get it at the current version, redacted at the
    /// root (`""`), with the stand-in of the current version, or with this version's stand-in if the current version
    /// protects fields. Decode it as a [`Sensitive<T>`](crate::Sensitive), or as a `#[serde(transparent)]` newtype over
    /// one. A struct does not fit `null`, and a single event that does not fit keeps a whole stream from being
    /// [decoded](crate::Stream::decode). [`decodes`](crate::schema::SchemasBuilder::decodes) checks that at startup.
    pub fn protect_whole(self, owner: Owner) -> Self {
        self.in_version(|version| {
            version.whole_twice |= version.whole.is_some();
            version.whole = Some(FieldDecl { pointer: String::new(), owner });
        })
    }

    /// Protects the same places as version `number`, with the same owners, stand-ins and paddings, those in the
    /// metadata included.
    pub fn protect_same_as(self, number: u32) -> Self {
        self.in_version(|version| version.same_as.push(number))
    }

    /// Declares that this version of a protected type protects nothing, and why that is right.
    pub fn unprotected(self, _reason: &str) -> Self {
        self.in_version(|version| version.unprotected = true)
    }

    /// Sets the stand-in that readers get in place of the value at a protected pointer once its keys are shredded.
    /// Without it, the stand-in is `null`. For the whole payload, the pointer is `""`.
    pub fn redact_as(self, pointer: &str, stand_in: impl Into<Value>) -> Self {
        let stand_in = stand_in.into();
        self.in_version(|version| version.redact_as(pointer, stand_in))
    }

    /// As [`redact_as`](Self::redact_as), with a stand-in that a function computes from what is stored [in the
    /// clear](InTheClear): the aggregate, the metadata and the payload, without their protected places.
    ///
    /// ```
    /// # use eventseal::{NewEvent, Owner, Schemas, aggregate, event};
    /// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
    /// # use eventseal::{EventStore, EventStoreExt, ExpectedVersion, KeyScope, Keyring, Namespace, SealedStore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registered = event("Registered").version(1).protect(&["/name"], Owner::Aggregate).redact_with(
    ///     "/name",
    ///     "numbered-v1",
    ///     |event| format!("Customer {}", event.payload()["number"]).into(),
    /// );
    /// let schemas = Schemas::new([registered])?;
    /// # let db = MemoryDb::new(Namespace::new("shop")?);
    /// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main")?, schemas);
    /// # store.keys().prepare(&mut db.begin()).await?;
    /// # let mut tx = db.begin();
    /// let customer = aggregate("Customer", "c1");
    /// let event = NewEvent::raw("Registered", 1, r#"{"number":42,"name":"Ada"}"#);
    /// store.append(&mut tx, &customer, ExpectedVersion::NoStream, &[event]).await?;
    /// store.keys().shred(&mut tx, &KeyScope::new("Customer", "c1"), "request 118").await?;
    /// let event = store.read_stream(&mut tx, &customer).await?.events.remove(0);
    /// assert_eq!(event.payload, br#"{"number":42,"name":"Customer 42"}"#);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// - `name` stands for the function in reports and in the schema lock: change it when you change what the function
    ///   does. The function must be pure, because every read of an erased event calls it again.
    /// - If it panics, the stand-in is `null`, and a warning in the log names the function. The same holds if
    ///   serde_json can't hold what is in the clear, such as `1e400`, or if it is no JSON.
    /// - For a version that a step leads to, it sees the new payload without what the new version protects, and the
    ///   metadata as the steps have made them. It does not see what was sealed before the step, as far as that is
    ///   known: see [`upcast`](Self::upcast). If a step changed metadata in which something was sealed, it sees none.
    /// - A step over values that makes up the stand-in which the function would compute is not taken for a redaction;
    ///   `null` is.
    /// - The whole payload (`""`) takes a fixed stand-in only, because nothing of it is in the clear.
    pub fn redact_with(
        self,
        pointer: &str,
        name: impl Into<Arc<str>>,
        function: impl Fn(&InTheClear<'_>) -> Value + Send + Sync + 'static,
    ) -> Self {
        let function = StandInFn::new(name, function);
        self.in_version(|version| version.redact_with(pointer, function))
    }

    /// Pads the plaintext at a protected pointer to a multiple of `multiple` bytes, which is itself a multiple of 32
    /// and at most 65,536. Without it, plaintexts are padded to multiples of 32. Values with the same padded length
    /// can't be told apart by their length. An event whose values need more than 16 MiB of padding together can't be
    /// appended ([`EventFault::LimitExceeded`](crate::error::EventFault::LimitExceeded)).
    pub fn pad_to(self, pointer: &str, multiple: usize) -> Self {
        self.in_version(|version| version.pads.push((pointer.to_owned(), multiple)))
    }

    /// The step from version `from` to the next: a function from the old payload type to the new one.
    ///
    /// It must be pure. It may be called for payloads in which any protected value is redacted. It is not called for a
    /// redacted payload that was [protected whole](Self::protect_whole), because nothing is left of it.
    ///
    /// # What is redacted afterwards
    /// With [`Sensitive`](crate::Sensitive) fields in both types, redactions follow values exactly. If the old type
    /// reads a redacted place in another way (as an `Option`, or as part of a `serde_json::Value`), the step can't say
    /// where the redaction went. Then a place of the new payload counts as redacted only if all of this holds:
    /// - The new version protects it.
    /// - It holds `null`, its stand-in, or the stand-in of a value that was redacted before the step.
    /// - Its owner in the new payload (the aggregate, or the id at the subject's pointer) is one whose keys were
    ///   shredded in this event. Or the place was itself redacted before the step, its value has not changed, no live
    ///   owner is named for it, and it is in no array whose elements may have changed places.
    /// - It did not hold the same value before the step as a live value.
    ///
    /// So a live value that stays where it was, or whose owner is live, is not taken for a redacted one. A live value
    /// is taken for a redacted one if it is `null` or looks like a stand-in, and the step puts it at a protected place
    /// of a shredded owner: the step made it up, or it was not protected before.
    ///
    /// Redactions get lost in these cases: at places that the new version does not protect; if a value moved and the id
    /// of its owner is gone, renamed or redacted itself; in arrays whose ids are redacted, unless all elements are; if
    /// a value moved to a place that held the same value before; if serde_json rounds the ids of two owners to one
    /// number. A lost redaction reads like a value that was written. Use `Sensitive` in both types if redactions must
    /// be exact.
    ///
    /// # What it can read
    /// A step reads the JSON that serde can read into the old type. A `serde_json::Value` can't hold all JSON: it has
    /// no numbers beyond `f64` such as `1e400`, no unpaired surrogates such as `"\ud800"` and nothing nested deeper
    /// than 127, and it rounds numbers of many digits. The same holds for functions before or after one over a `Value`
    /// in a chain. Append accepts such payloads, because sealing does not need to read them. A step over a value then
    /// fails with [`EventFault::Upcast`](crate::error::EventFault::Upcast) for good: see
    /// [`deny_unreadable_payloads`](crate::schema::SchemasBuilder::deny_unreadable_payloads). [`change`](Self::change)
    /// reads any JSON.
    ///
    /// # Its errors
    /// An error that the step returns becomes the source of [`EventFault::Upcast`](crate::error::EventFault::Upcast).
    /// Logs of a chain of errors show its `Display`: put no payload values into it. Errors of serde_json quote values.
    /// So an error of serde_json, or one whose source is an error of serde_json, is replaced by a description without
    /// values.
    pub fn upcast<A, B, E, F>(self, from: u32, step: F) -> Self
    where
        A: DeserializeOwned + 'static,
        B: Serialize + 'static,
        E: Into<BoxError>,
        F: Fn(A) -> Result<B, E> + Send + Sync + 'static,
    {
        self.upcast_with(from, move |old, _| step(old))
    }

    /// [`upcast`](Self::upcast) with a function that also gets the event's [`StepContext`]: its aggregate, its time,
    /// its metadata and its redacted places.
    ///
    /// ```
    /// # use eventseal::event;
    /// # use serde_json::{Value, json};
    /// event("OrderPlaced").version(1).version(2).upcast_with(1, |mut order: Value, context| {
    ///     order["placed_on"] = json!(context.created_at.date().to_string());
    ///     Ok::<_, std::convert::Infallible>(order)
    /// });
    /// ```
    pub fn upcast_with<A, B, E, F>(self, from: u32, step: F) -> Self
    where
        A: DeserializeOwned + 'static,
        B: Serialize + 'static,
        E: Into<BoxError>,
        F: Fn(A, &StepContext<'_>) -> Result<B, E> + Send + Sync + 'static,
    {
        self.with_step(from, StepDecl::Ready(Step::function(step)))
    }

    /// The step from version `from` to the next as a list of changes. With [`Changes::rename_type`], it leads to a
    /// version of another type. Protection and redactions follow the changes exactly. Building the registry checks that
    /// no protected value gets to an unprotected place.
    ///
    /// Prefer it wherever it is enough: it can be checked, it is faster than a function, and values that it does not
    /// name keep their spelling.
    pub fn change(self, from: u32, changes: Changes) -> Self {
        self.with_step(from, StepDecl::Changes(changes))
    }

    /// The step of the metadata from version `from`, beside the step of the payload. The function gets `None` if there
    /// is no metadata, and may return `None`. Stored metadata never changes.
    ///
    /// ```
    /// # use eventseal::{Changes, event};
    /// # use serde_json::Value;
    /// event("OrderPlaced").version(1).version(2)
    ///     .change(1, Changes::new()) // the payload stays
    ///     .upcast_metadata(1, |metadata: Option<Value>, _| {
    ///         let mut metadata = metadata.unwrap_or_default();
    ///         metadata["channel"] = "web".into();
    ///         Ok::<_, std::convert::Infallible>(Some(metadata))
    ///     });
    /// ```
    pub fn upcast_metadata<E, F>(mut self, from: u32, step: F) -> Self
    where
        E: Into<BoxError>,
        F: Fn(Option<Value>, &StepContext<'_>) -> Result<Option<Value>, E> + Send + Sync + 'static,
    {
        self.metadata_steps.push((from, metadata_step(step)));
        self
    }

    /// Reads events of this type that are stored without a version (0, or NULL) as version `number`. Stores that were
    /// filled before schemas had versions have such events. Without this, reading one is
    /// [`EventFault::UnknownVersion`](crate::error::EventFault::UnknownVersion).
    pub fn legacy_version(mut self, number: u32) -> Self {
        self.legacy.push(number);
        self
    }

    /// The step from version `from` to any number of events of the types and versions in `targets`. These events share
    /// the stored event's id, version and position, and go on through their own steps.
    ///
    /// The rules of [`upcast`](Self::upcast) for steps over values hold here too, with one difference: a place that was
    /// redacted before the step, and that the step did not change, counts as redacted only if the part does not name
    /// its owner. A redacted payload that was protected whole can't be split: readers get the event unchanged, at this
    /// type and version.
    pub fn split<E, F>(self, from: u32, targets: &[(&str, u32)], step: F) -> Self
    where
        E: Into<BoxError>,
        F: Fn(Value, &StepContext<'_>) -> Result<Vec<SplitPart>, E> + Send + Sync + 'static,
    {
        let targets =
            targets.iter().map(|(name, version)| TypeVersion::new(EventType::from(*name), *version)).collect();
        self.with_step(from, StepDecl::Ready(Step::split(targets, step)))
    }

    /// Drops events of version `from`: readers no longer see them. They stay in the store and keep their positions.
    pub fn drop_from(self, from: u32) -> Self {
        self.with_step(from, StepDecl::Ready(Step::Drop))
    }

    /// Protects the values at these JSON Pointers into the metadata, as [`protect`](Self::protect) does in the payload.
    /// [`SchemasBuilder::protect_metadata`](crate::schema::SchemasBuilder::protect_metadata) does it for all events.
    ///
    /// ```
    /// # use eventseal::{NewEvent, Owner, Schemas, aggregate, event, metadata};
    /// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
    /// # use eventseal::{EventStore, EventStoreExt, ExpectedVersion, KeyScope, Keyring, Namespace, SealedStore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let logged_in = event("LoggedIn").version(1).protect_metadata(&["/ip"], metadata("Customer", "/actor"));
    /// let schemas = Schemas::new([logged_in])?;
    /// # let db = MemoryDb::new(Namespace::new("shop")?);
    /// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main")?, schemas);
    /// # store.keys().prepare(&mut db.begin()).await?;
    /// # let mut tx = db.begin();
    /// let event = NewEvent::raw("LoggedIn", 1, "{}").with_metadata(r#"{"actor":"cust_42","ip":"192.0.2.7"}"#);
    /// let session = aggregate("Session", "s1");
    /// store.append(&mut tx, &session, ExpectedVersion::NoStream, &[event]).await?;
    /// store.keys().shred(&mut tx, &KeyScope::new("Customer", "cust_42"), "request 118").await?;
    /// let event = store.read_stream(&mut tx, &session).await?.events.remove(0);
    /// assert_eq!(event.metadata.as_deref(), Some(&br#"{"actor":"cust_42","ip":null}"#[..]));
    /// assert_eq!(event.redacted_metadata[0].as_str(), "/ip");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The owner is named in the metadata ([`metadata`](crate::metadata()), [`caller`](crate::caller())), in the
    /// payload ([`subject`](crate::subject()), without a `*`), by a function, or is the aggregate. **What names an
    /// owner stays in the clear**: a pointer to an id at a protected place is a problem of the schemas.
    ///
    /// An event with a protected value whose owner is not named can't be appended, as with payloads. Nothing but the
    /// pointers protects: no Rust type says what is in metadata, so a misspelled pointer is not found.
    ///
    /// If one version of a type protects metadata, all of them say what they do: see
    /// [`metadata_in_the_clear`](Self::metadata_in_the_clear). Metadata in which something is protected is a JSON
    /// object, and no member of its root is called `$seal`.
    #[allow(clippy::needless_pass_by_value, reason = "reads as an owner at the call site")]
    pub fn protect_metadata(self, pointers: &[&str], owner: Owner) -> Self {
        self.in_metadata(|metadata| metadata.protect(pointers, &owner))
    }

    /// As [`redact_as`](Self::redact_as), for a protected pointer into the metadata.
    pub fn redact_metadata_as(self, pointer: &str, stand_in: impl Into<Value>) -> Self {
        let stand_in = stand_in.into();
        self.in_metadata(|metadata| metadata.redact_as(pointer, stand_in))
    }

    /// As [`redact_with`](Self::redact_with), for a protected pointer into the metadata.
    pub fn redact_metadata_with(
        self,
        pointer: &str,
        name: impl Into<Arc<str>>,
        function: impl Fn(&InTheClear<'_>) -> Value + Send + Sync + 'static,
    ) -> Self {
        let function = StandInFn::new(name, function);
        self.in_metadata(|metadata| metadata.redact_with(pointer, function))
    }

    /// As [`pad_to`](Self::pad_to), for a protected pointer into the metadata.
    pub fn pad_metadata_to(self, pointer: &str, multiple: usize) -> Self {
        self.in_metadata(|metadata| metadata.pads.push((pointer.to_owned(), multiple)))
    }

    /// Declares that this version protects nothing in the metadata, though others do, and why that is right.
    pub fn metadata_in_the_clear(self, _reason: &str) -> Self {
        self.in_metadata(|metadata| metadata.unprotected = true)
    }

    fn in_metadata(self, declare: impl FnOnce(&mut VersionDecl)) -> Self {
        self.in_version(|version| declare(version.metadata.get_or_insert_default()))
    }

    fn with_step(mut self, from: u32, step: StepDecl) -> Self {
        self.steps.push((from, step));
        self
    }

    fn in_version(mut self, declare: impl FnOnce(&mut VersionDecl)) -> Self {
        match self.versions.last_mut() {
            Some(version) => declare(version),
            None => self.misplaced = true,
        }
        self
    }
}

impl std::fmt::Debug for EventSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let versions: Vec<_> = self.versions.iter().map(|version| version.number).collect();
        f.debug_struct("EventSchema").field("name", &self.name).field("versions", &versions).finish_non_exhaustive()
    }
}
