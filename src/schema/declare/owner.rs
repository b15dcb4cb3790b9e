//! The owners that declarations name.

use crate::seal::in_the_clear::{InTheClear, OwnerFn};
use crate::seal::normalize::Normalize;
use std::sync::Arc;

/// A data subject that owns protected fields: `subject("Customer", "/customer_id")` is the customer
/// whose id stands at `/customer_id` in the same payload.
///
/// The id is a string or an integer. A `*` in the pointer stands for the same array element as the `*` in the field's
/// pointer: fields at `/guests/*/name` can belong to `subject("Guest", "/guests/*/id")`.
///
/// The id can also be the name of a member: [`protect`](crate::schema::EventSchema::protect) shows how.
#[must_use]
pub fn subject(kind: impl Into<Arc<str>>, id: impl Into<String>) -> Owner {
    Owner::Subject { kind: kind.into(), id: id.into(), normalize: None }
}

/// A data subject that owns protected fields, and that the event's metadata names: `metadata("Customer", "/actor/id")`
/// is the customer whose id stands at `/actor/id` in the metadata.
///
/// ```
/// # use eventseal::{NewEvent, Schemas, aggregate, event, metadata};
/// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
/// # use eventseal::{EventStore, EventStoreExt, ExpectedVersion, KeyScope, Keyring, Namespace, SealedStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let login = event("LoggedIn").version(1).protect(&["/ip"], metadata("Customer", "/actor/id"));
/// let schemas = Schemas::new([login])?;
/// # let db = MemoryDb::new(Namespace::new("shop")?);
/// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main")?, schemas);
/// # store.keys().prepare(&mut db.begin()).await?;
/// # let mut tx = db.begin();
/// let logged_in = NewEvent::raw("LoggedIn", 1, r#"{"ip":"192.0.2.7"}"#);
/// let logged_in = logged_in.with_metadata(r#"{"actor":{"id":"cust_42"}}"#);
/// let session = aggregate("Session", "s1");
/// store.append(&mut tx, &session, ExpectedVersion::NoStream, &[logged_in]).await?;
/// store.keys().shred(&mut tx, &KeyScope::new("Customer", "cust_42"), "request 118").await?;
/// assert_eq!(store.read_stream(&mut tx, &session).await?.events[0].payload, br#"{"ip":null}"#);
/// # Ok(())
/// # }
/// ```
///
/// The id is a string or an integer, and **stays in the clear**. It is read from the metadata as it is stored, before
/// [`upcast_metadata`](crate::schema::EventSchema::upcast_metadata). So backfill and the other maintenance come to the
/// same owner as the append. The pointer has no `*`, because nothing would say which element is meant. An event with a
/// protected value whose owner its metadata does not name can't be appended.
#[must_use]
pub fn metadata(kind: impl Into<Arc<str>>, id: impl Into<String>) -> Owner {
    Owner::Metadata { kind: kind.into(), id: id.into(), normalize: None }
}

/// A data subject that owns protected fields, and that the caller of the append names:
/// [`NewEvent::for_subject`](crate::NewEvent::for_subject). The append writes the subject's id into the metadata, at
/// `/subject`; [`caller_at`] chooses another place. From then on it is as with [`metadata`].
///
/// ```
/// # use eventseal::{NewEvent, Schemas, aggregate, caller, event};
/// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
/// # use eventseal::{EventStore, EventStoreExt, ExpectedVersion, KeyScope, Keyring, Namespace, SealedStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let schemas = Schemas::new([event("LoggedIn").version(1).protect(&["/ip"], caller("Customer"))])?;
/// # let db = MemoryDb::new(Namespace::new("shop")?);
/// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main")?, schemas);
/// # store.keys().prepare(&mut db.begin()).await?;
/// # let mut tx = db.begin();
/// let logged_in = NewEvent::raw("LoggedIn", 1, r#"{"ip":"192.0.2.7"}"#).for_subject(KeyScope::new("Customer", "42"));
/// let session = aggregate("Session", "s1");
/// store.append(&mut tx, &session, ExpectedVersion::NoStream, &[logged_in]).await?;
/// let read = store.read_stream(&mut tx, &session).await?;
/// assert_eq!(read.events[0].metadata.as_deref(), Some(&br#"{"subject":"42"}"#[..]));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn caller(kind: impl Into<Arc<str>>) -> Owner {
    caller_at(kind, "/subject")
}

/// As [`caller`], with the subject's id at this JSON Pointer of the metadata.
#[must_use]
pub fn caller_at(kind: impl Into<Arc<str>>, id: impl Into<String>) -> Owner {
    Owner::Caller { kind: kind.into(), id: id.into(), normalize: None }
}

/// Whose keys protect a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// The event's own aggregate. Its type is the scope's kind.
    Aggregate,
    /// The event's own aggregate, under a scope kind of its own, which survives a rename of the aggregate type.
    AggregateAs {
        /// The scope's kind.
        kind: Arc<str>,
        /// How ids of this kind are brought to one spelling; `None` if they are taken as they are.
        normalize: Option<Normalize>,
    },
    /// A data subject named in the payload; see [`subject`].
    Subject {
        /// The scope's kind.
        kind: Arc<str>,
        /// Where the scope's id stands.
        id: String,
        /// How ids of this kind are brought to one spelling; `None` if they are taken as they are.
        normalize: Option<Normalize>,
    },
    /// A data subject named in the metadata; see [`metadata`].
    Metadata {
        /// The scope's kind.
        kind: Arc<str>,
        /// Where the scope's id stands in the metadata: a JSON Pointer.
        id: String,
        /// How ids of this kind are brought to one spelling; `None` if they are taken as they are.
        normalize: Option<Normalize>,
    },
    /// A data subject that the caller of the append names; see [`caller`].
    Caller {
        /// The scope's kind.
        kind: Arc<str>,
        /// Where the append writes the scope's id in the metadata: a JSON Pointer.
        id: String,
        /// How ids of this kind are brought to one spelling; `None` if they are taken as they are.
        normalize: Option<Normalize>,
    },
    /// A data subject that a function names; see [`Owner::by`].
    Function {
        /// The scope's kind.
        kind: Arc<str>,
        /// The function, with its name.
        function: OwnerFn,
        /// How ids of this kind are brought to one spelling; `None` if they are taken as they are.
        normalize: Option<Normalize>,
    },
}

impl Owner {
    /// A data subject that a function names. The function sees what is stored [in the clear](InTheClear): the
    /// aggregate, the stored metadata, and the payload without its protected places.
    ///
    /// ```
    /// # use eventseal::{Owner, Schemas, event};
    /// let buyer = Owner::by("Customer", "buyer-v1", |event| {
    ///     let parties = event.payload()["parties"].as_array()?;
    ///     let buyer = parties.iter().find(|party| party["role"] == "buyer")?;
    ///     Some(buyer["id"].as_str()?.to_owned())
    /// });
    /// let schemas = Schemas::new([event("Signed").version(1).protect(&["/parties/*/name"], buyer)])?;
    /// # Ok::<(), eventseal::schema::SchemaErrors>(())
    /// ```
    ///
    /// `name` stands for the function in reports and in the schema lock: change it when you change what the function
    /// does. It must be pure, because backfill and rewrite call it again. If it names nobody for a value, or panics,
    /// the event is not appended ([`EventFault::NotNamed`](crate::error::EventFault::NotNamed)). Take ids from texts: a
    /// database may spell a number of the metadata in another way.
    #[must_use]
    pub fn by(
        kind: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
        function: impl Fn(&InTheClear<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::Function { kind: kind.into(), function: OwnerFn::new(name, function), normalize: None }
    }

    /// Sets the scope kind of the owner.
    #[must_use]
    pub fn scope_kind(self, kind: impl Into<Arc<str>>) -> Self {
        let kind = kind.into();
        match self {
            Self::Aggregate => Self::AggregateAs { kind, normalize: None },
            Self::AggregateAs { normalize, .. } => Self::AggregateAs { kind, normalize },
            Self::Subject { id, normalize, .. } => Self::Subject { kind, id, normalize },
            Self::Metadata { id, normalize, .. } => Self::Metadata { kind, id, normalize },
            Self::Caller { id, normalize, .. } => Self::Caller { kind, id, normalize },
            Self::Function { function, normalize, .. } => Self::Function { kind, function, normalize },
        }
    }

    /// How ids are brought to one spelling, if they are.
    pub(crate) fn normalized_by(&self) -> Option<&Normalize> {
        match self {
            Self::Aggregate => None,
            Self::AggregateAs { normalize, .. }
            | Self::Subject { normalize, .. }
            | Self::Metadata { normalize, .. }
            | Self::Caller { normalize, .. }
            | Self::Function { normalize, .. } => normalize.as_ref(),
        }
    }

    /// Brings the ids of this owner's kind to one spelling. Then an id that is spelled in two ways names one key scope,
    /// and one shred reaches all of it.
    ///
    /// ```
    /// # use eventseal::{Normalize, Schemas, event, subject};
    /// let customer = || subject("Customer", "/customer_id").normalize(Normalize::Uuid);
    /// let schemas = Schemas::new([
    ///     event("OrderPlaced").version(1).protect(&["/email"], customer()),
    ///     event("OrderShipped").version(1).protect(&["/address"], customer()),
    /// ])?;
    /// let scope = schemas.scope_for("Customer", "{0B9F6A9E-7D0C-4D3E-9F0E-3C1F3F0A7B11}")?;
    /// assert_eq!(scope.id(), "0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// - Every declaration of a kind must say the same, or the schemas are not built. It also holds for events whose
    ///   aggregate has this kind as its type. The event's own aggregate has no kind in the schemas: give it one with
    ///   [`scope_kind`](Self::scope_kind).
    /// - It must not make one id of two people's: a shred of one would erase both.
    /// - It is applied when an event is sealed. The payload keeps its spelling, byte for byte. Only the key table has
    ///   the normalized id.
    /// - Pass ids through [`Schemas::scope_for`](crate::Schemas::scope_for) before you shred or look at keys. The
    ///   methods of [`KeyManager`](crate::keys::KeyManager) take scopes as they are.
    /// - It does not change keys that exist. Events that were sealed before stay readable, under the scopes that they
    ///   have: [`similar_scopes`](crate::keys::KeyManager::similar_scopes) finds those that differ as
    ///   [`Normalize::Uuid`] and [`Normalize::LowerCase`] do. Shred each of them.
    #[must_use]
    pub fn normalize(self, how: Normalize) -> Self {
        let normalize = Some(how);
        match self {
            // The check of the schemas asks for the kind.
            Self::Aggregate => Self::AggregateAs { kind: "".into(), normalize },
            Self::AggregateAs { kind, .. } => Self::AggregateAs { kind, normalize },
            Self::Subject { kind, id, .. } => Self::Subject { kind, id, normalize },
            Self::Metadata { kind, id, .. } => Self::Metadata { kind, id, normalize },
            Self::Caller { kind, id, .. } => Self::Caller { kind, id, normalize },
            Self::Function { kind, function, .. } => Self::Function { kind, function, normalize },
        }
    }
}
