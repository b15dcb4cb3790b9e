//! The shred log as a whole: its copies, its check, and its replay after a restore.

mod adopt;
mod at_once;
mod chain;
mod copy;
mod export;
mod file_copy;
mod forks;
pub(crate) mod lines;
mod look;
mod page;
mod replay;
mod replay_batch;
pub(crate) mod required;
mod rules;
mod several;
mod verify;

pub use adopt::AdoptedEntries;
pub use copy::ShredLogCopy;
pub use export::ExportedLog;
pub use file_copy::FileCopy;
pub(crate) use look::{Chain, LookedCopy};
pub use replay::{PlannedScope, ReplayOptions, Replayed};
pub use rules::check_copied_lines;
pub use verify::{CopyReport, CopyState, LogFinding, LogReport};

/// The progress of work on the shred log, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogProgress {
    /// How many there are.
    pub total: u64,
    /// How many are done.
    pub done: u64,
}

/// How many entries are read at a time.
const PAGE: u32 = 500;
