//! The port to a copy of the shred log.

use crate::error::{BoxError, Error, KeyFault, StepError};
use async_trait::async_trait;
use std::sync::Arc;

/// A copy of the shred log, kept where a restore of the key database does not reach: a [file](super::FileCopy), a table
/// in another database (`PostgresCopy`, `SqliteCopy`), an object in another account.
///
/// It holds lines of text, which this crate makes and reads, and which are only ever added. It need not understand
/// them: [`check_copied_lines`](super::check_copied_lines) decides what may be added. It must not reveal them either:
/// they name scopes. The conformance suite checks a copy of your own.
///
/// **A copy must not be restored together with the key database.** It is what shows that a restore happened.
#[async_trait]
pub trait ShredLogCopy: Send + Sync {
    /// A name for messages, such as a path. The command `eventseal shred-log replay` should understand it.
    fn name(&self) -> String;

    /// The last whole line. `None` if there is none.
    ///
    /// # Errors
    /// Those of the copy.
    async fn last(&self) -> Result<Option<String>, BoxError>;

    /// Whole lines in the order in which they were added, from the line of this index on (the first is 0), at most
    /// `limit`.
    ///
    /// # Errors
    /// Those of the copy.
    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError>;

    /// Adds lines at the end, all of them or none, and returns once they would outlast a crash. It fails if the last
    /// line is not `last`, because somebody else has added lines meanwhile, and wherever
    /// [`check_copied_lines`](super::check_copied_lines) fails. Between that check and the end of the append, nobody
    /// else may add. An export that fails looks at the last line again, and goes on if it has moved.
    ///
    /// # Errors
    /// Those of the copy.
    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError>;
}

#[async_trait]
impl<C: ShredLogCopy + ?Sized> ShredLogCopy for Arc<C> {
    fn name(&self) -> String {
        (**self).name()
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        (**self).last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        (**self).lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        (**self).append(last, lines).await
    }
}

/// The error for a copy that says what it must not.
pub(super) fn wrong(copy: &dyn ShredLogCopy, line: Option<u64>, problem: impl Into<String>) -> Error {
    Error::Keys(KeyFault::LogCopy { copy: copy.name(), line, problem: problem.into(), source: None })
}

/// The error for a copy that failed.
pub(super) fn failed(copy: &dyn ShredLogCopy, problem: &'static str) -> impl FnOnce(BoxError) -> Error {
    let copy = copy.name();
    move |source| {
        let source = Some(StepError::new(source));
        Error::Keys(KeyFault::LogCopy { copy, line: None, problem: problem.to_owned(), source })
    }
}

pub(super) const UNREADABLE: &str = "can't be read: see the cause";
pub(super) const UNWRITABLE: &str = "can't be written: nothing was added to it; see the cause, and export again";
