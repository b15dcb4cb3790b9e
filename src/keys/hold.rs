//! Holds and scheduled shreds: what is decided about a scope before it is shredded.

use crate::error::Error;
use crate::keys::names::KeyScope;
use std::fmt;
use time::OffsetDateTime;
use uuid::Uuid;

/// A legal hold: while it is in force, its scope can't be shredded. [`KeyManager::hold`](crate::keys::KeyManager::hold)
/// places one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The hold's id: that of its entry in the shred log.
    pub id: Uuid,
    /// The scope that is held.
    pub scope: KeyScope,
    /// The reason, in the words of whoever placed it.
    pub reason: String,
    /// Who placed it, as far as it was said.
    pub actor: Option<String>,
    /// When it was placed.
    pub since: OffsetDateTime,
    /// When it ends by itself; `None` if it holds until it is released.
    pub until: Option<OffsetDateTime>,
}

impl Hold {
    /// Is the hold in force at this time, if nobody released it?
    #[must_use]
    pub fn is_in_force(&self, at: OffsetDateTime) -> bool {
        self.until.is_none_or(|until| at < until)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hold {}", self.id)
    }
}

/// A shred that comes due at a time, and can be cancelled until it is done.
/// [`KeyManager::schedule_shred`](crate::keys::KeyManager::schedule_shred) makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The id of its entry in the shred log.
    pub id: Uuid,
    /// The scope that is to be shredded.
    pub scope: KeyScope,
    /// When it comes due.
    pub due: OffsetDateTime,
    /// What happens to appends and reads until then.
    pub mode: ShredMode,
    /// The reason, in the words of whoever scheduled it.
    pub reason: String,
    /// Who scheduled it, as far as it was said.
    pub actor: Option<String>,
    /// When it was scheduled.
    pub since: OffsetDateTime,
}

/// A scope whose shred is scheduled, as the rows of the key table say. The order is that in which scopes come due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueScope {
    /// When the shred comes due.
    pub due: OffsetDateTime,
    /// The scope.
    pub scope: KeyScope,
}

/// A part of the holds that are in force. [`KeyManager::holds`](crate::keys::KeyManager::holds) returns it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HoldPage {
    /// The holds, by scope.
    pub holds: Vec<Hold>,
    /// The scopes that may be held, and whose entries in the shred log are not as they were written.
    pub failed: Vec<FailedScope>,
    /// Pass it for the next page. `None` if this was the last one.
    pub next: Option<KeyScope>,
}

/// A part of the scheduled shreds. [`KeyManager::schedules`](crate::keys::KeyManager::schedules) returns it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SchedulePage {
    /// The scheduled shreds, in the order in which they come due.
    pub schedules: Vec<Schedule>,
    /// The scopes whose rows name a time, and whose entries in the shred log do not, or are not as they were written.
    pub failed: Vec<FailedScope>,
    /// Pass it for the next page. `None` if this was the last one.
    pub next: Option<DueScope>,
}

/// A scope at which something failed, while others went on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedScope {
    /// The scope.
    pub scope: KeyScope,
    /// What is wrong.
    pub error: Error,
}

/// A scope whose shred has come due, and that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldScope {
    /// The scope.
    pub scope: KeyScope,
    /// The holds in force.
    pub holds: Vec<Hold>,
}

/// What happens to the appends and reads of a scope from the time its shred is scheduled until it is done or cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShredMode {
    /// They go on.
    KeepWorking,
    /// Both fail with [`Error::Disabled`](crate::Error::Disabled).
    Disable,
    /// Readers get stand-ins, as if the keys were destroyed. Appends fail with
    /// [`Error::Disabled`](crate::Error::Disabled).
    Redact,
}
