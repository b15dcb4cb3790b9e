//! The one error type of the crate: its outer variants, what each of them prints, and the questions that most callers
//! ask of an error.
//!
//! Every outcome that a caller must treat differently is a variant of its own, here or in an inner type. A shredded
//! key, a missing key, an altered seal and a KMS that does not answer must never be mistaken for one another. Messages
//! say what to do next. They name places (pointers, ids, types) and never values: no payload, no key, no wrapped key is
//! ever put into an error (invariant I9).

use crate::error::driver::{self, DriverError, Failure};
use crate::error::{
    BlindIndexFault, EventFault, InputFault, KeyFault, KmsFault, MaintenanceFault, SetUpFault, StepError, StorageFault,
    TransactionFault, ValueFault,
};
use crate::event::{AggregateRef, AggregateVersion, ExpectedVersion};
use crate::keys::names::KeyScope;
use crate::schema::SchemaErrors;
use crate::values::ValueContext;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and what to do about it.
///
/// Most callers ask [`is_conflict`](Error::is_conflict), [`is_retryable`](Error::is_retryable),
/// [`is_outage`](Error::is_outage) or [`is_shredded`](Error::is_shredded), and log the word of [`kind`](Error::kind).
/// Callers that need the detail match on the variants. A variant that comes in many forms holds an inner type of
/// [`error`](crate::error): [`Event`](Error::Event) has an [`EventFault`], [`SetUp`](Error::SetUp) a [`SetUpFault`].
///
/// ```
/// use eventseal::Error;
/// use eventseal::error::EventFault;
///
/// /// What to do with an event that can't be read.
/// fn decide(error: &Error) -> &'static str {
///     match error {
///         error if error.is_retryable() => "read it again",
///         Error::Disabled { .. } => "wait for an operator",
///         Error::Event { fault: EventFault::NewerVersion { .. }, .. } => "deploy the newer code first",
///         Error::Event { .. } => "put the event aside, and call somebody",
///         _ => "stop",
///     }
/// }
/// # assert_eq!(decide(&Error::Collision { source: None }), "read it again");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    // ---- outcomes that an application decides on
    /// The aggregate is not at the expected version: read it again, and decide anew. No event was written, and the
    /// transaction can go on. (Keys that were made for the events may have been written. They do no harm.)
    VersionConflict {
        /// The aggregate.
        aggregate: AggregateRef,
        /// What the caller expected.
        expected: ExpectedVersion,
        /// The version it is at, `None` if it has no events.
        actual: Option<AggregateVersion>,
    },
    /// Two events of one batch have the same id, or the store already holds an event with this id.
    DuplicateEventId {
        /// The id.
        event_id: Uuid,
    },
    /// The scope's keys were destroyed, so nothing can be sealed for it. This is final unless the scope is reopened.
    Shredded {
        /// The scope.
        scope: KeyScope,
    },
    /// The scope is disabled, which an operator can reverse. Nothing of it can be read or sealed until then.
    Disabled {
        /// The scope.
        scope: KeyScope,
    },
    /// Another transaction got in the way: roll back, and run the whole transaction again.
    Collision {
        /// What the database said.
        source: Option<DriverError>,
    },
    /// A consumer failed, or the state of an aggregate could not apply an event: roll the transaction back.
    Consumer {
        /// The name of the consumer or of the state.
        consumer: String,
        /// The event's aggregate.
        aggregate: AggregateRef,
        /// The event's version.
        version: AggregateVersion,
        /// The error that the consumer returned.
        source: StepError,
    },

    // ---- what was passed, or is stored
    /// Something is wrong with one event: with its payload, its metadata or its seal, or it does not fit the schemas or
    /// the Rust types.
    Event {
        /// Which event.
        event_id: Uuid,
        /// What is wrong with it.
        fault: EventFault,
    },
    /// Something is wrong with one [value](crate::values) that is sealed outside of events.
    Value {
        /// Which value.
        context: ValueContext,
        /// What is wrong with it.
        fault: ValueFault,
    },
    /// Something is wrong in a [blind index](crate::blind_index), such as a value that another owner has.
    BlindIndex {
        /// The name of the index.
        index: Arc<str>,
        /// What is wrong.
        fault: BlindIndexFault,
    },
    /// The caller passed an argument that is refused whatever the event: an empty name, a number out of range, no
    /// events.
    Input(InputFault),
    /// The schemas contradict themselves. All problems are listed.
    Schemas(SchemaErrors),

    // ---- keys
    /// Something is wrong with the keys of a scope, or with a key-encryption key.
    Keys(KeyFault),
    /// The KMS does not answer, or refuses, or the keyring can't be used.
    Kms(KmsFault),

    // ---- the database
    /// The database failed. [`is_outage`](Error::is_outage) says whether it can't be reached for now; nothing was
    /// committed in that case.
    Database {
        /// What was being done.
        operation: &'static str,
        /// What the driver said.
        source: DriverError,
    },
    /// Something is not set up as it has to be: tables, names, grants, the namespace, a pooler.
    SetUp(SetUpFault),
    /// The call needs a transaction or must not be in one, or the outcome of its commit is not known.
    Transaction(TransactionFault),
    /// A table holds something that this crate never writes, a change had no effect, or the wrapped store breaks its
    /// contract.
    Storage(StorageFault),
    /// A backfill or a rewrite can't go on.
    Maintenance(MaintenanceFault),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VersionConflict { aggregate, expected, actual } => {
                let actual = actual.map_or(0, AggregateVersion::get);
                write!(f, "{aggregate} is at version {actual}, expected {expected}: read it again and decide anew")
            }
            Self::DuplicateEventId { event_id } => write!(
                f,
                "event id {event_id} is used twice: give every event an id of its own, or treat this as a repeated \
                 append"
            ),
            Self::Shredded { scope } => write!(
                f,
                "the keys of {scope} were shredded: nothing can be sealed for it; reopen() starts a new generation if \
                 that is lawful"
            ),
            Self::Disabled { scope } => {
                write!(
                    f,
                    "the keys of {scope} are disabled, or withheld by a scheduled shred: enable() makes them usable \
                     again, or cancel() if a shred is scheduled"
                )
            }
            Self::Collision { .. } => {
                f.write_str("the transaction collided with another one: roll it back and run it again")
            }
            Self::Consumer { consumer, aggregate, version, .. } => {
                write!(f, "consumer {consumer} failed at {aggregate} version {version}: roll the transaction back")
            }
            Self::Event { event_id, fault } => write!(f, "event {event_id}: {fault}"),
            Self::Value { context, fault } => write!(f, "value {context}: {fault}"),
            Self::BlindIndex { index, fault } => write!(f, "blind index {index:?}: {fault}"),
            Self::Database { operation, source } => {
                write!(f, "the database failed while {operation}{}", driver::remedy(source))
            }
            Self::Input(fault) => fault.fmt(f),
            Self::Schemas(errors) => errors.fmt(f),
            Self::Keys(fault) => fault.fmt(f),
            Self::Kms(fault) => fault.fmt(f),
            Self::SetUp(fault) => fault.fmt(f),
            Self::Transaction(fault) => fault.fmt(f),
            Self::Storage(fault) => fault.fmt(f),
            Self::Maintenance(fault) => fault.fmt(f),
        }
    }
}

// Written by hand: an inner type is not a source, because its text is part of this error's text and would be printed
// twice.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::VersionConflict { .. }
            | Self::DuplicateEventId { .. }
            | Self::Shredded { .. }
            | Self::Disabled { .. } => None,
            Self::Collision { source } => {
                source.as_ref().map(|source| -> &(dyn std::error::Error + 'static) { source })
            }
            Self::Consumer { source, .. } => Some(&**source),
            Self::Database { source, .. } => Some(source),
            Self::Event { fault, .. } => fault.source(),
            Self::Value { fault, .. } => fault.source(),
            Self::BlindIndex { fault, .. } => fault.source(),
            Self::Input(fault) => fault.source(),
            Self::Schemas(errors) => errors.source(),
            Self::Keys(fault) => fault.source(),
            Self::Kms(fault) => fault.source(),
            Self::SetUp(fault) => fault.source(),
            Self::Transaction(fault) => fault.source(),
            Self::Storage(fault) => fault.source(),
            Self::Maintenance(fault) => fault.source(),
        }
    }
}

/// Lets `?` turn an inner type into the outer variant that holds it.
macro_rules! from {
    ($($variant:ident($inner:ty)),*) => {
        $(impl From<$inner> for Error {
            fn from(inner: $inner) -> Self {
                Self::$variant(inner)
            }
        })*
    };
}

from!(
    Input(InputFault),
    Schemas(SchemaErrors),
    Keys(KeyFault),
    Kms(KmsFault),
    SetUp(SetUpFault),
    Transaction(TransactionFault),
    Storage(StorageFault),
    Maintenance(MaintenanceFault)
);

impl Error {
    /// This error, as one of the event's metadata.
    pub(crate) fn in_metadata(self) -> Self {
        match self {
            Self::Event { event_id, fault } => Self::Event { event_id, fault: fault.in_metadata() },
            error => error,
        }
    }

    /// The aggregate was not at the expected version, an event with this id exists already, or a value of a unique
    /// [blind index](crate::blind_index) belongs to somebody else ([`BlindIndexFault::Taken`]). After the last of
    /// these, ask for another value: to try again does not help.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::VersionConflict { .. }
                | Self::DuplicateEventId { .. }
                | Self::BlindIndex { fault: BlindIndexFault::Taken, .. }
        )
    }

    /// The same call may succeed later without a change: in a new transaction, or when the database or the KMS answers
    /// again.
    ///
    /// Nothing of the transaction was committed. [`OutcomeUnknown`](TransactionFault::OutcomeUnknown) is an outage too,
    /// but is not retryable: look first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Collision { .. } | Self::Kms(KmsFault::Unavailable { .. }) => true,
            Self::Database { source, .. } => source.is_outage(),
            Self::Maintenance(MaintenanceFault::Unreadable(unreadable)) => unreadable.error.is_retryable(),
            Self::Consumer { source, .. } | Self::Keys(KeyFault::Consumer { source, .. }) => {
                matches!(driver::meaning(&**source), Failure::Collision | Failure::Outage)
            }
            _ => false,
        }
    }

    /// The database or the KMS can't be reached, is starting or stopping, accepts no connections or no writes, or has
    /// no room left. An outage says nothing about keys or events: it is never an erasure.
    ///
    /// PostgreSQL: errors of the connection, SQLSTATE class 08, 25006 (a read-only server, as after a fail-over), 25P03
    /// and 57P05 (it ended an idle session), 53100, 53200, 53300, 57P01 to 57P03, 58030; a pool's time-out. SQLite:
    /// `IOERR`, `CANTOPEN`, `FULL`. A lock that others hold is a [`Collision`](Self::Collision) instead.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Kms(KmsFault::Unavailable { .. }) | Self::Transaction(TransactionFault::OutcomeUnknown { .. }) => {
                true
            }
            Self::Database { source, .. } => source.is_outage(),
            Self::Maintenance(MaintenanceFault::Unreadable(unreadable)) => unreadable.error.is_outage(),
            Self::Consumer { source, .. } | Self::Keys(KeyFault::Consumer { source, .. }) => {
                driver::meaning(&**source) == Failure::Outage
            }
            _ => false,
        }
    }

    /// Does the database take no writes here, so that nothing but reads can succeed on this connection?
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::Database { source, .. } if source.is_read_only())
    }

    /// An append met a shredded scope.
    #[must_use]
    pub fn is_shredded(&self) -> bool {
        matches!(self, Self::Shredded { .. })
    }

    /// Was a stored event or value altered, or is a protected value of an event not sealed?
    #[must_use]
    pub fn is_tampered(&self) -> bool {
        matches!(
            self,
            Self::Event { fault: EventFault::Tampered { .. } | EventFault::Unsealed { .. }, .. }
                | Self::Value { fault: ValueFault::Tampered { .. } | ValueFault::OtherOwner, .. }
        )
    }

    /// The id of the event that the error is about, if it is about one. Use it to put the event aside, or to look at
    /// its row.
    #[must_use]
    pub fn event_id(&self) -> Option<Uuid> {
        match self {
            Self::Event { event_id, .. }
            | Self::DuplicateEventId { event_id }
            | Self::Maintenance(MaintenanceFault::NotVerified { event_id, .. }) => Some(*event_id),
            Self::Maintenance(MaintenanceFault::Unreadable(unreadable)) => Some(unreadable.event_id),
            _ => None,
        }
    }
}
