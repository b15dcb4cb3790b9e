//! Erasure: what comes before a shred and after it, and what a person may ask to see.
//!
//! The operations on keys ([`shred`](crate::keys::KeyManager::shred), [`hold`](crate::keys::KeyManager::hold),
//! [`schedule_shred`](crate::keys::KeyManager::schedule_shred) and their kin) are methods of
//! [`KeyManager`](crate::keys::KeyManager). Each of them writes an [entry](crate::keys::LogEntry) of the *shred log*,
//! in its own transaction.
//!
//! [`SealedStore::certificate`](crate::SealedStore::certificate) looks at everything afterwards, and issues a
//! [`Certificate`]. Its [`Horizon`] says by when no copy of the keys opens what was shredded.
//! [`SealedStore::export`](crate::SealedStore::export) hands out the data of one owner, and
//! [`SealedStore::verify`](crate::SealedStore::verify) looks at everything that is stored.

mod certificate;
mod export;
mod horizon;
mod json;
mod verify;

pub use certificate::{
    Authenticity, Certificate, CertificateFinding, CertificateFindingKind, CertificateOptions, CertificateProgress,
    CertificateScan, Certified, CertifiedEntry, CertifiedHold, CertifiedKey, CertifiedLog, CertifiedSchedule,
    CertifiedType, Doubtful, DoubtfulEvent, EventCounts, KeyStanding, LogStanding,
};
pub use horizon::{Horizon, Retention};

pub use crate::keys::erasure_consumer::ErasureConsumer;
pub use crate::keys::hold::{DueScope, FailedScope, HeldScope, Hold, HoldPage, Schedule, SchedulePage, ShredMode};
pub use crate::keys::shred_log::{
    AdoptedEntries, CopyReport, CopyState, ExportedLog, FileCopy, LogFinding, LogProgress, LogReport, PlannedScope,
    ReplayOptions, Replayed, ShredLogCopy, check_copied_lines,
};
pub use crate::keys::sweep::{SweepOptions, SweepProgress, Swept};
pub use export::{
    ExportItem, ExportLines, ExportOptions, ExportProgress, Exported, ExportedEvent, ExportedPayload, ExportedPlaces,
};
pub use verify::{FoundAt, Verified, VerifyFinding, VerifyFindingKind, VerifyOptions, VerifyProgress};
