//! The report of a golden corpus: what differs, and what to do.

use eventseal::KeyScope;
use serde_json::Value;
use std::fmt;

/// The text that says what to do about these differences.
pub(crate) fn advice(differences: &[Difference]) -> String {
    let any = |wanted: fn(&Mismatch) -> bool| differences.iter().any(|difference| wanted(&difference.mismatch));
    let mut lines = Vec::new();
    if any(|mismatch| matches!(mismatch, Mismatch::Differs { .. } | Mismatch::OtherEvent { .. })) {
        lines.push(
            "If a change is meant: run the test with EVENTSEAL_GOLDEN=accept, read the difference in version control, \
             and commit it.",
        );
    }
    if any(|mismatch| matches!(mismatch, Mismatch::Differs { .. })) {
        lines.push(
            "If not: readers of stored events would get something else than before, so correct the step or the schema.",
        );
    }
    if any(|mismatch| *mismatch == Mismatch::NotRecorded) {
        lines.push("New cases are recorded with EVENTSEAL_GOLDEN=record.");
    }
    lines.push(match lines.is_empty() {
        true => "None of this can be accepted: correct the step, the schema or the test, or put the file back.",
        false => "No CI's configuration says record or accept.",
    });
    lines.join("\n")
}

/// One difference between a case and its recorded results.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// The name of the case: its file name without `.json`.
    pub case: String,
    /// How the event was read.
    pub run: Run,
    /// What is wrong.
    pub mismatch: Mismatch,
}

/// How a stored event was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Run {
    /// With all its keys.
    Live,
    /// After all its keys were shredded.
    Redacted,
    /// After the keys of one of several owners were shredded.
    RedactedFor(KeyScope),
}

/// What is wrong with an event that was read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Mismatch {
    /// The event can't be read. Holds the text of the error.
    Unreadable(String),
    /// The event that the test gives can't be sealed. Holds the text of the error.
    NotSealed(String),
    /// The result differs from the recorded one.
    Differs {
        /// The place of the difference: a JSON Pointer into the list of resulting events.
        pointer: String,
        /// The recorded value. `None` if there was none.
        expected: Option<Value>,
        /// The value in the result. `None` if there is none.
        actual: Option<Value>,
    },
    /// Two readings gave different results: a step uses the time, a random number, or something that it remembers.
    NotDeterministic {
        /// The place of the difference: a JSON Pointer into the list of resulting events.
        pointer: String,
        /// The value in the first result. `None` if there was none.
        first: Option<Value>,
        /// The value in the second result. `None` if there was none.
        second: Option<Value>,
    },
    /// A shredded value is still in the result.
    Survives {
        /// The place of the value: a JSON Pointer into the list of resulting events.
        pointer: String,
        /// The protected place of the stored payload at which it was.
        protected: String,
    },
    /// The case is new, and its results are not recorded yet.
    NotRecorded,
    /// The test gives another event than the one that was recorded under this name.
    OtherEvent {
        /// What differs: `"payload"`, `"metadata"`, `"event type"`, `"version"` or `"aggregate"`.
        what: &'static str,
    },
    /// The version protects something, but nothing of the event that the test gives is sealed.
    NothingSealed,
    /// The test keys of the corpus lack a key under which the event was sealed.
    KeyLost,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {}", self.case, self.run, self.mismatch)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => Ok(()),
            Self::Redacted => f.write_str(", redacted"),
            Self::RedactedFor(scope) => write!(f, ", redacted for {scope}"),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "can't be read: {error}"),
            Self::NotSealed(error) => write!(f, "can't be sealed, as no service could append it: {error}"),
            Self::Differs { pointer, expected, actual } => {
                write!(f, "{pointer} was {}, is {}", Shown(expected.as_ref()), Shown(actual.as_ref()))
            }
            Self::NotDeterministic { pointer, first, second } => write!(
                f,
                "{pointer} is not deterministic: first {}, then {}; a step must depend on the event alone",
                Shown(first.as_ref()),
                Shown(second.as_ref())
            ),
            Self::Survives { pointer, protected } => write!(
                f,
                "the value at {protected} was shredded, but is still at {pointer}: protect that place too, or give the \
                 case a value that is nowhere else"
            ),
            Self::NotRecorded => f.write_str("not recorded yet: run with EVENTSEAL_GOLDEN=record, and commit the file"),
            Self::OtherEvent { what } => write!(
                f,
                "the test names another {what} than the recorded one: put it back (use literal JSON), or choose \
                 another name for a new case"
            ),
            Self::NothingSealed => f.write_str(
                "its version protects something, but nothing of it is sealed: give it a value at each protected place, \
                 correct a pointer that is misspelt, or say .case_without_protected(…)",
            ),
            Self::KeyLost => {
                f.write_str("test-keys.json is missing or lacks the key of this case: restore it from version control")
            }
        }
    }
}

/// Prints a value, or that there is none.
struct Shown<'a>(Option<&'a Value>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("absent"),
        }
    }
}
