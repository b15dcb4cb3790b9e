//! The error of all guards. A test can return it: its `Debug` is the report.

use crate::golden::Difference;
use crate::lock::SchemaChange;
use crate::taint::TaintFinding;
use eventseal::Error;
use eventseal::schema::SchemaErrors;
use std::fmt;
use std::path::{Path, PathBuf};

/// Why a guard failed: what it found and what to do about it, or why it could not run.
///
/// The error shows values of test data: of the corpus, the samples and the canaries. Its `Debug` is the same as its
/// `Display`, so that a test which returns it prints the report.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// Stored events no longer open and upcast to the recorded results, or fail once they are erased.
    #[error("{}", Report(differences, "the golden corpus differs", &crate::golden::advice(differences)))]
    Golden {
        /// What differs. Never empty.
        differences: Vec<Difference>,
    },
    /// A step copies a protected value to an unprotected place, or a step could not be checked.
    #[error("{}", Report(findings, "the taint check found", crate::taint::ADVICE))]
    Taint {
        /// What was found. Never empty.
        findings: Vec<TaintFinding>,
    },
    /// The schemas differ from the recorded ones.
    #[error("{}", Report(changes, "the schemas changed", crate::lock::ADVICE))]
    Schema {
        /// What changed. Never empty.
        changes: Vec<SchemaChange>,
    },
    /// A file or folder of the guard can't be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The path of the file or folder.
        path: PathBuf,
        /// Why it can't be used, and what to do.
        problem: String,
    },
    /// An environment variable has a value that is not allowed.
    #[error(
        "{variable} is {value:?}: set it to `record` (write what is new) or `accept` (write what changed, too), or not \
         at all"
    )]
    Variable {
        /// The name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// The schemas contradict themselves.
    #[error(transparent)]
    Schemas(#[from] SchemaErrors),
    /// Another call of eventseal failed.
    #[error("{}", chain(.0))]
    Other(#[from] Error),
}

impl GuardError {
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), problem: problem.into() }
    }
}

impl fmt::Debug for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints a headline, one line for each finding, and what to do.
struct Report<'a, T>(&'a [T], &'static str, &'a str);

impl<T: fmt::Display> fmt::Display for Report<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(findings, headline, advice) = self;
        write!(f, "{headline}:")?;
        findings.iter().try_for_each(|finding| write!(f, "\n- {finding}"))?;
        write!(f, "\n\n{advice}")
    }
}

/// The text of an error and of its sources. They may quote values, because the guards work on test data.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
