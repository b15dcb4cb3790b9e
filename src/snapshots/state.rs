//! The state of an aggregate: how it is folded from events, and what is remembered of these.

use crate::error::{BoxError, Error, InputFault, Result, StepError, describe_without_values};
use crate::event::{AggregateRef, AggregateVersion, ExpectedVersion, PersistedEvent};
use crate::json::pointer::JsonPointer;
use crate::keys::names::Namespace;
use crate::sealer::UsedKeys;
use crate::sensitive;
use crate::snapshots::outcome::Discarded;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;
use uuid::Uuid;

/// The state of an aggregate, which is folded from its events: see [`snapshots`](crate::snapshots).
///
/// The state is whatever the events say, and nothing else. An [`apply`](Self::apply) that reads something besides, such
/// as a clock or a global variable, makes a state that is no longer the fold of the events. It may keep what they do
/// not hold, and what no key of theirs seals.
///
/// Serde writes it as JSON, and reads it back. So what serde skips is lost. Fields with what can be erased are
/// [`Sensitive`](crate::Sensitive), and stay exact.
pub trait AggregateState: Default + Serialize + DeserializeOwned + Send + Sync {
    /// The name under which snapshots of this state are kept: 1 to 255 bytes. An aggregate may have several states,
    /// each with a name of its own.
    const NAME: &'static str;

    /// The version of this code. Increase it whenever the type or [`apply`](Self::apply) changes, or a step of the
    /// schemas that is a function. Snapshots of another version are discarded.
    const VERSION: u32;

    /// Applies an event, as a reader gets it: opened and upcast, or redacted. Events come in their order, and none is
    /// left out, except those that a step drops.
    ///
    /// # Errors
    /// Those of the application, which fail the call as [`Error::Consumer`](crate::Error::Consumer).
    fn apply(&mut self, event: &PersistedEvent) -> Result<(), BoxError>;
}

/// The state of an aggregate as [`SealedSnapshots::load`](crate::snapshots::SealedSnapshots::load) rebuilt it from a
/// snapshot and the events after it, or from all events.
///
/// It remembers the keys of everything that was folded, so that a snapshot of it is sealed under all of them. So it can
/// be read, and not changed.
pub struct Rebuilt<A> {
    pub(super) aggregate: AggregateRef,
    pub(super) state: A,
    /// The last event that was folded.
    pub(super) last: Option<(AggregateVersion, Uuid)>,
    pub(super) folded: u64,
    pub(super) used: UsedKeys,
    pub(super) namespace: Namespace,
    pub(super) fingerprint: [u8; 32],
    pub(super) snapshot: Option<AggregateVersion>,
    pub(super) discarded: Option<Discarded>,
    /// Which snapshot was discarded; `None` if its row could not be read.
    pub(super) discarded_row: Option<RowId>,
}

/// Tells the snapshots of one aggregate and state apart: the version, the last event and the fingerprint.
pub(super) type RowId = (AggregateVersion, Uuid, [u8; 32]);

impl<A> Rebuilt<A> {
    /// The state.
    #[must_use]
    pub fn state(&self) -> &A {
        &self.state
    }

    /// The state, taken out.
    #[must_use]
    pub fn into_state(self) -> A {
        self.state
    }

    /// The aggregate.
    #[must_use]
    pub fn aggregate(&self) -> &AggregateRef {
        &self.aggregate
    }

    /// The version of the last event; `None` if there is none.
    #[must_use]
    pub fn version(&self) -> Option<AggregateVersion> {
        self.last.map(|(version, _)| version)
    }

    /// What an append of events that were decided on this state expects.
    #[must_use]
    pub fn expected_version(&self) -> ExpectedVersion {
        self.version().map_or(ExpectedVersion::NoStream, ExpectedVersion::Exact)
    }

    /// How many stored events were folded: those after the snapshot, or all.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// The version of the snapshot with which it began; `None` if all events were folded.
    #[must_use]
    pub fn snapshot(&self) -> Option<AggregateVersion> {
        self.snapshot
    }

    /// Why the snapshot that was there was not used; `None` if it was used or there was none.
    #[must_use]
    pub fn discarded(&self) -> Option<&Discarded> {
        self.discarded.as_ref()
    }
}

impl<A: AggregateState> Rebuilt<A> {
    /// Applies what became of stored events.
    pub(super) fn apply(&mut self, events: &[PersistedEvent]) -> Result<()> {
        events.iter().try_for_each(|event| {
            self.state.apply(event).map_err(|error| Error::Consumer {
                consumer: A::NAME.to_owned(),
                aggregate: event.aggregate.clone(),
                version: event.aggregate_version,
                source: StepError::new(error),
            })
        })
    }
}

/// Shows where it is, and no contents.
impl<A> fmt::Debug for Rebuilt<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebuilt")
            .field("aggregate", &self.aggregate)
            .field("version", &self.version().map(AggregateVersion::get))
            .field("folded", &self.folded)
            .field("keys", &self.used.len())
            .field("snapshot", &self.snapshot.map(AggregateVersion::get))
            .field("discarded", &self.discarded)
            .finish_non_exhaustive()
    }
}

/// A state as it is sealed.
#[derive(Serialize, Deserialize)]
struct Written<'s> {
    /// The places in `state` that are redacted.
    redacted: Vec<String>,
    #[serde(borrow)]
    state: &'s RawValue,
}

/// Writes a state.
///
/// # Errors
/// [`InputFault::Encode`](crate::error::InputFault::Encode) if JSON can't express it.
pub(super) fn write<A: AggregateState>(state: &A) -> Result<Vec<u8>> {
    let (value, redacted) = sensitive::encode(state)?;
    let unwritable = |error: serde_json::Error| {
        let (target, problem) = (std::any::type_name::<A>(), describe_without_values(&error, b""));
        Error::Input(InputFault::Encode { target, problem })
    };
    let state = RawValue::from_string(value.to_string()).map_err(unwritable)?;
    let redacted = redacted.iter().map(|place| place.as_str().to_owned()).collect();
    serde_json::to_vec(&Written { redacted, state: &state }).map_err(unwritable)
}

/// Reads a state; `None` if it is none of this type.
pub(super) fn read<A: AggregateState>(written: &[u8]) -> Option<A> {
    let Written { redacted, state } = serde_json::from_slice(written).ok()?;
    let redacted: Vec<JsonPointer> = redacted.iter().map(|place| JsonPointer::parse(place)).collect::<Option<_>>()?;
    sensitive::decode(state.get().as_bytes(), &redacted).ok()
}
