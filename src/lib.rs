//! Payload encryption, crypto-shredding and schema evolution for event stores.
//!
//! [`SealedStore`] wraps any [`EventStore`]. On append it encrypts the sensitive fields of each payload with data keys.
//! A data key belongs to the aggregate or to a data subject. On read it decrypts the fields, and brings payloads of old
//! versions up to date. To answer an erasure request, destroy the subject's keys: from that commit on, the fields are
//! unreadable in every event, and no event is rewritten.
//!
//! ```
//! use eventseal::ExpectedVersion::NoStream;
//! use eventseal::{
//!     Event, EventPart, EventStore, EventStoreExt, Events, Keyring, Namespace, NewEvent, Result, Schemas, Scope,
//!     SealedStore, Sensitive, aggregate,
//! };
//! use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Scope)]
//! #[scope("Customer")]
//! struct Customer;
//!
//! // What is Sensitive is protected, and belongs to the customer with this id.
//! #[derive(Serialize, Deserialize, Event)]
//! #[event(type = "OrderPlaced", version = 2, owner = Customer(customer_id), previous = OrderPlacedV1)]
//! struct OrderPlaced { customer_id: String, contact: Contact }
//!
//! #[derive(Serialize, Deserialize, EventPart)]
//! struct Contact { email: Sensitive<String> }
//!
//! #[derive(Serialize, Deserialize, Event)]
//! #[event(type = "OrderPlaced", version = 1, owner = Customer(customer_id))]
//! struct OrderPlacedV1 { customer_id: String, email: Sensitive<String> }
//!
//! impl From<OrderPlacedV1> for OrderPlaced {
//!     fn from(old: OrderPlacedV1) -> Self {
//!         OrderPlaced { customer_id: old.customer_id, contact: Contact { email: old.email } }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #[derive(Serialize, Deserialize, Event)]
//! #[event(type = "CustomerRegistered", version = 1, owner = aggregate)]
//! struct CustomerRegistered { name: Sensitive<String>, email: Sensitive<String> }
//!
//! #[derive(Events)]
//! enum ShopEvent { Placed(OrderPlaced), Registered(CustomerRegistered) }
//!
//! let schemas = Schemas::of::<ShopEvent>().build()?;
//!
//! let db = MemoryDb::new(Namespace::new("shop")?); // SqliteStore and SqliteKeys work the same way
//! let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main")?, schemas);
//! store.keys().prepare(&mut db.begin()).await?; // idempotent, at startup
//!
//! let order = aggregate("Order", "ord_123");
//! let placed = OrderPlaced { customer_id: "cust_42".into(), contact: Contact { email: "ada@example.org".into() } };
//! let mut tx = db.begin();
//! store.append(&mut tx, &order, NoStream, &[NewEvent::of(&placed)?]).await?;
//! tx.commit()?;
//!
//! for event in store.read_stream(&mut db.begin(), &order).await? {
//!     let placed: OrderPlaced = event.decode()?;
//!     assert_eq!(placed.contact.email.expose().unwrap(), "ada@example.org");
//!     assert_eq!(format!("{:?}", placed.contact.email), "Sensitive(***)");
//! }
//!
//! let mut tx = db.begin();
//! store.keys().shred(&mut tx, &Customer::scope("cust_42"), "erasure request 118").await?;
//! tx.commit()?;
//!
//! let event = store.read_stream(&mut db.begin(), &order).await?.events.remove(0);
//! assert!(event.decode::<OrderPlaced>()?.contact.email.is_redacted());
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//! 1. To wrap a store, see [`SealedStore`]. It wraps any [`EventStore`]: in [`memory`], on SQLite, on PostgreSQL, or
//!    your own.
//! 2. To say what is protected and how payloads evolve, [derive](derive@Event) [`Event`], or declare it by hand with
//!    [`event()`]: see [`Schemas`] and the rest of [`schema`].
//! 3. To shred, rotate or look at keys, see [`keys::KeyManager`], which [`SealedStore::keys`] gives out.
//! 4. To choose where master keys live, see [`Keyring`] for a start, and [`kms`].
//! 5. To write and read events as Rust types, see [`Event`], [`Sensitive`] and, for projections, [`consumer`]. To read
//!    a long history with little memory, see [`EventStoreExt`].
//! 6. To count, seal or copy a whole log, see [`maintenance`]. To seal payloads for a store that can't be an
//!    [`EventStore`], see [`Sealer`].
//! 7. To protect metadata, see [`protect_metadata`](schema::SchemasBuilder::protect_metadata). To seal values that are
//!    in no event, such as columns of a read model, see [`values`]. To look up what is sealed, see [`blind_index`].
//! 8. To keep the states of aggregates, so that not all events are folded again, see [`snapshots`].
//! 9. To run it, from set-up to emergencies, read the guides in [`manual`].
//!
//! # How a payload travels
//! ```text
//!  append  NewEvent ─► schema ─► plan ─► scan ─► keys ─► seal ─► inner store
//!                      which     which   where   one     what
//!                      version   values  they    for     is
//!                                        stand   each    stored
//!                                                owner
//!
//!  read    inner store ─► keys ─► open ─► upcast ─► reader
//!                         those   or      to the
//!                         named   redact  newest
//!                         in it           version
//! ```
//!
//! # Features
//! - `derive` (default): the derives of [`Event`], [`EventPart`], [`Events`] and [`Scope`].
//! - `chrono`, `rust_decimal`: their types can be fields of types with a derive of [`EventPart`].
//! - `sqlite` (default): `SqliteStore`, `SqliteKeys`, `SqliteSnapshots` and `SqliteBlindIndex`.
//! - `aws-lc-rs`: ciphers, hashes and the random generator of AWS-LC, in place of those of RustCrypto. The sealed bytes
//!   are the same.
//! - `metrics`: counters and histograms through the facade of the crate `metrics`: see
//!   [`manual::operations`](manual::operations#what-to-watch). Spans need no feature.
//! - `conformance`: the contracts of the ports as functions to run your own implementation through.
//!
//! The crate `eventseal-testing` has guards for your own CI: a golden corpus, a taint check, a schema lock.
//!
//! A service that uses an SQL adapter must use sqlx 0.9 too. With another version, connections and transactions are
//! other types, and the compiler says `expected sqlx_postgres::connection::PgConnection, found PgConnection`.
//!
//! The sealed format is specified in [`manual::format`], the threat model in `SECURITY.md`.

// The documentation site shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Stricter lints for the library. Tests, benchmarks and examples need not keep them.
#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::needless_pass_by_value
)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)
)]

// What the derives write names the crate, in its own tests too.
#[cfg(test)]
extern crate self as eventseal;

pub mod blind_index;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod consumer;
mod crypto;
pub mod erasure;
pub mod error;
mod event;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod json;
pub mod keys;
pub mod kms;
pub mod maintenance;
#[cfg(any(doc, docsrs))]
#[cfg(not(doctest))]
pub mod manual;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod schema;
mod seal;
mod sealed_store;
mod sealer;
mod sensitive;
pub mod snapshots;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub mod split;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod store;
mod telemetry;
pub mod values;

pub use error::variants::{Error, Result};
pub use event::{
    AggregateRef, AggregateVersion, Appended, EventFilter, EventPage, EventType, EventVersion, ExpectedVersion,
    GlobalPosition, NewEvent, PageSize, Part, PersistedEvent, SealedPlace, Stream, VersionRange, aggregate,
};
pub use json::pointer::JsonPointer;
pub use keys::names::{KeyScope, Namespace};
pub use kms::keyring::Keyring;
pub use schema::declare::{Owner, caller, caller_at, event, metadata, subject};
pub use schema::layout::EventPart;
pub use schema::registry::Schemas;
pub use schema::scope::Scope;
pub use schema::typed::{Event, Events};
pub use schema::upcast::changes::Changes;
pub use seal::normalize::Normalize;
pub use sealed_store::SealedStore;
pub use sealer::Sealer;
pub use sensitive::Sensitive;
pub use store::event_store::EventStore;
pub use store::ext::EventStoreExt;

#[cfg(feature = "derive")]
pub use eventseal_derive::{Event, EventPart, Events, Scope};

/// What the derives expand to. No stability is promised.
#[doc(hidden)]
pub mod __private {
    pub use crate::event::PayloadType;
    pub use crate::schema::declare::Owner;
    pub use crate::schema::layout::{
        Body, FieldLayout, OwnerRule, Rules, StandInRule, Tagging, TypeLayout, VariantLayout,
    };
    pub use crate::schema::scope::Scope;
    pub use crate::schema::typed::{Twice, catch_all, decode, encode, schema, schema_after, unexpected_type};
    pub use serde_json::Value;
    pub use std::any::type_name;

    use crate::event::PersistedEvent;
    use crate::schema::layout::{EventPart, OwnerId};

    /// The event's own aggregate.
    #[must_use]
    pub fn aggregate() -> Owner {
        Owner::Aggregate
    }

    /// A value for a catch-all.
    #[must_use]
    pub fn boxed(event: &PersistedEvent) -> Box<PersistedEvent> {
        Box::new(event.clone())
    }

    /// Compiles if the value names an owner.
    pub fn id<T: EventPart + ?Sized>(_: &T)
    where
        T::Id: OwnerId,
    {
    }

    /// Looks whether a type that is called plain is a part that protects something. For all other types, `Unknown` has
    /// the constant.
    #[derive(Debug)]
    pub struct Probe<T: ?Sized>(std::marker::PhantomData<T>);

    impl<T: EventPart + ?Sized> Probe<T> {
        /// What the type says.
        pub const PROTECTS: bool = T::PROTECTS;
    }

    /// See [`Probe`].
    pub trait Unknown {
        /// Nothing is known of the type.
        const PROTECTS: bool = false;
    }

    impl<T: ?Sized> Unknown for Probe<T> {}

    /// Compiles if the value is an `Option`, and goes through it.
    #[must_use]
    pub fn through<T>(option: &Option<T>) -> Option<&T> {
        option.as_ref()
    }

    /// Is one version of an event type just before another?
    #[must_use]
    pub const fn follows(old_type: &str, old_version: u32, new_type: &str, new_version: u32) -> bool {
        let is_before = old_version < new_version && new_version - old_version == 1;
        is_before && crate::schema::typed::is_same(old_type, new_type)
    }
}

/// The code of the pages, compiled and run. That of the page on evolution needs `eventseal-testing`, and runs there.
#[cfg(all(doctest, feature = "sqlite"))]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[cfg(feature = "derive")]
    #[doc = include_str!("../crates/eventseal-derive/src/event.md")]
    struct DeriveOfEvent;

    #[doc = include_str!("../SECURITY.md")]
    struct Security;

    #[doc = include_str!("../docs/operations.md")]
    struct Operations;

    #[doc = include_str!("../docs/erasure.md")]
    struct Erasure;

    #[doc = include_str!("../docs/command-json.md")]
    struct CommandJson;

    #[doc = include_str!("../docs/format.md")]
    struct Format;

    #[cfg(feature = "postgres")]
    #[doc = include_str!("../docs/scaling.md")]
    struct Scaling;
}
