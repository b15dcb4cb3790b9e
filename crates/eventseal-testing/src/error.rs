//! Why a guard fails. Reads well as what a test returns: `Debug` is the report.

use crate::golden::Difference;
use crate::lock::SchemaChange;
use crate::taint::TaintFinding;
use eventseal::Error;
use eventseal::schema::SchemaErrors;
use std::fmt;
use std::path::{Path, PathBuf};

/// Why a guard fails: what it found and what to do about it, or why it could not look.
///
/// Shows values of test data (the corpus, samples, canaries): that is what they are for. Its `Debug` is its
/// `Display`, so that a test that returns it prints the report.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// Stored events no longer come out as recorded, or do not stand being redacted.
    #[error("{}", Report(differences, "the golden corpus differs", &crate::golden::advice(differences)))]
    Golden {
        /// What differs. Never empty.
        differences: Vec<Difference>,
    },
    /// A step carries a protected value to where it is not protected, or could not be checked.
    #[error("{}", Report(findings, "the taint check found", crate::taint::ADVICE))]
    Taint {
        /// What was found. Never empty.
        findings: Vec<TaintFinding>,
    },
    /// The schemas are not those that were recorded.
    #[error("{}", Report(changes, "the schemas changed", crate::lock::ADVICE))]
    Schema {
        /// What changed. Never empty.
        changes: Vec<SchemaChange>,
    },
    /// A file of the guard can't be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// An environment variable says what no guard knows.
    #[error(
        "{variable} is {value:?}: set it to `record` (write what is new) or `accept` (write what changed, too), or not \
         at all"
    )]
    Variable {
        /// Which variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// The schemas contradict themselves.
    #[error(transparent)]
    Schemas(#[from] SchemaErrors),
    /// Something else of eventseal failed.
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

/// A headline, one line for each finding, and what to do.
struct Report<'a, T>(&'a [T], &'static str, &'a str);

impl<T: fmt::Display> fmt::Display for Report<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(findings, headline, advice) = self;
        write!(f, "{headline}:")?;
        findings.iter().try_for_each(|finding| write!(f, "\n- {finding}"))?;
        write!(f, "\n\n{advice}")
    }
}

/// An error with its sources. Of test data, so what a step of the application says may be shown.
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
