//! Erasure: what comes before a shred and after it.
//!
//! The operations on keys ([`shred`](crate::keys::KeyManager::shred), [`hold`](crate::keys::KeyManager::hold),
//! [`schedule_shred`](crate::keys::KeyManager::schedule_shred) and their kin) are methods of
//! [`KeyManager`](crate::keys::KeyManager). Each of them writes an [entry](crate::keys::LogEntry) of the *shred log*,
//! in its own transaction.
//!
//! [`SealedStore::certificate`](crate::SealedStore::certificate) looks at everything afterwards, and issues a
//! [`Certificate`]. Its [`Horizon`] says by when no copy of the keys opens what was shredded.

mod certificate;
mod horizon;
mod json;

pub use certificate::{
    Authenticity, Certificate, CertificateOptions, CertificateScan, CertifiedEntry, CertifiedHold, CertifiedKey,
    CertifiedSchedule, CertifiedType, Doubtful, DoubtfulEvent, EventCounts, Finding, FindingKind, KeyStanding,
    LogStanding,
};
pub use horizon::{Horizon, Retention};

pub use crate::keys::erasure_consumer::ErasureConsumer;
pub use crate::keys::hold::{DueScope, FailedScope, HeldScope, Hold, HoldPage, Schedule, SchedulePage, ShredMode};
pub use crate::keys::sweep::{SweepOptions, SweepProgress, Swept};
