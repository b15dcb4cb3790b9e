//! Prints the result of a command, and decides its exit code.

mod progress;
mod table;
mod words;

pub(crate) use progress::{Progress, rate};
pub(crate) use table::table;
pub(crate) use words::in_commands;

use eventseal::error::{ErrorKind, InputFault, KeyFault, MaintenanceFault, SetUpFault, TransactionFault};
use eventseal::{Error, Namespace};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The exit code. Scripts depend on these codes, so their meanings never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Failed, and will fail again.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// The same command may succeed later as it is.
    Retryable = 3,
    /// Nothing was done: not confirmed, or the keys are in a state that does not allow it.
    Refused = 4,
    /// `doctor`, `verify`, or `status` or `census` with `--check`, found something to do; `sweep`, a shred of many,
    /// `shred-log replay` or `adopt` did what could be done, and left something to somebody; `certificate`: the shred
    /// log or its copy does not prove the erasure.
    Problems = 5,
    /// `certificate`: the scope is not erased, or a scope of a list has no certificate.
    NotErased = 6,
    /// Interrupted by Ctrl-C (SIGINT).
    Interrupted = 130,
    /// Terminated by a supervisor (SIGTERM).
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The result of a command: for people, and for programs.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) json: Value,
    pub(crate) exit: Exit,
    /// The text is meant for programs, so its lines must not be wrapped.
    as_it_is: bool,
    /// The command has printed its output itself.
    is_printed: bool,
}

impl Report {
    pub(crate) fn new(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json, exit: Exit::Done, as_it_is: false, is_printed: false }
    }

    /// A report whose lines must not be wrapped: SQL, a script, a man page.
    pub(crate) fn verbatim(text: impl Into<String>, json: Value) -> Self {
        Self { as_it_is: true, ..Self::new(text, json) }
    }

    /// The report of a command that has printed its output itself.
    pub(crate) fn printed() -> Self {
        Self { is_printed: true, ..Self::new(String::new(), Value::Null) }
    }

    /// Adds to the JSON which key database this is about. People were told before, on standard error.
    pub(crate) fn of(mut self, namespace: &Namespace, place: &str) -> Self {
        self.json["namespace"] = namespace.as_str().into();
        self.json["database"] = place.into();
        self
    }

    pub(crate) fn ending(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    pub(crate) fn print(&self, json: bool) -> ExitCode {
        if self.is_printed {
            return self.exit.into();
        }
        let mut text = if json { in_json(&self.json) } else { in_lines(self.text.trim_end()) };
        text.push('\n');
        let mut out = std::io::stdout().lock();
        if !json && !self.as_it_is {
            text = table::wrapped(&text, table::width(&out));
        }
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // A broken pipe means that the reader has seen enough, as with `head`.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed.into(),
            _ => self.exit.into(),
        }
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments make no sense.
    Usage(String),
    /// The command refused to do it, and nothing was done.
    Refused { kind: &'static str, problem: String },
    /// Something outside of the library failed.
    Failed { kind: &'static str, problem: String },
    /// A signal ended the command.
    Interrupted { exit: Exit, problem: String },
    /// An error of the library.
    Library(Box<Error>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(Box::new(error))
    }
}

impl Failure {
    pub(crate) fn refused(kind: &'static str, problem: impl Into<String>) -> Self {
        Self::Refused { kind, problem: problem.into() }
    }

    pub(crate) fn failed(kind: &'static str, problem: impl Into<String>) -> Self {
        Self::Failed { kind, problem: problem.into() }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Refused { .. } => Exit::Refused,
            Self::Failed { .. } => Exit::Failed,
            Self::Interrupted { exit, .. } => *exit,
            Self::Library(error) if matches!(**error, Error::Input(InputFault::Time { .. })) => Exit::Usage,
            Self::Library(error) => match error.kind() {
                kind if kind.is_retryable() => Exit::Retryable,
                ErrorKind::InvalidText => Exit::Usage,
                ErrorKind::ScopeState
                | ErrorKind::Held
                | ErrorKind::Shredded
                | ErrorKind::Disabled
                | ErrorKind::KekInUse
                | ErrorKind::NamespaceMismatch
                | ErrorKind::TablesExist => Exit::Refused,
                _ => Exit::Failed,
            },
        }
    }

    /// A stable word for programs. The message may change.
    fn kind(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Interrupted { .. } => "interrupted",
            Self::Refused { kind, .. } | Self::Failed { kind, .. } => kind,
            Self::Library(error) => error.kind().as_str(),
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Self::Usage(problem)
            | Self::Refused { problem, .. }
            | Self::Failed { problem, .. }
            | Self::Interrupted { problem, .. } => problem.clone(),
            Self::Library(error) => in_commands(&error.to_string()),
        }
    }

    /// What to do, if the message does not say it.
    fn help(&self) -> Option<&'static str> {
        let Self::Library(error) = self else { return None };
        match &**error {
            Error::Keys(KeyFault::KekInUse { .. }) => {
                Some("eventseal status shows what is to be done first: rotate-kek, then rewrap")
            }
            Error::SetUp(SetUpFault::TablesExist { .. }) => {
                Some("leave --events out if the event store is there already")
            }
            Error::Collision { .. } => Some("run it again; --lock-timeout says how long to wait for others"),
            Error::SetUp(SetUpFault::OutdatedTables { .. }) => {
                Some("eventseal migrate --namespace NAME, by this version of eventseal")
            }
            Error::SetUp(SetUpFault::NewerTables { .. }) => Some("use a newer eventseal"),
            Error::Maintenance(MaintenanceFault::ForeignSealIndex { .. }) => Some("eventseal index-seals --anew"),
            Error::SetUp(SetUpFault::PermissionDenied { .. }) => {
                Some("eventseal doctor shows what this user may do; --database names another one")
            }
            Error::SetUp(SetUpFault::PooledStatements { .. }) => {
                Some("let --database name the database itself, not the pooler")
            }
            Error::Transaction(TransactionFault::OutcomeUnknown { .. }) => {
                Some("eventseal status, or keys show, says what is there now; then run it again if it is needed")
            }
            _ => None,
        }
    }

    fn causes(&self) -> Vec<String> {
        let Self::Library(error) = self else { return Vec::new() };
        causes(&**error)
    }

    pub(crate) fn print(&self, json: bool) -> ExitCode {
        let text = if json {
            let mut error = json!({
                "kind": self.kind(),
                "message": self.message(),
                "retryable": self.exit() == Exit::Retryable,
                "exit_code": self.exit() as u8,
                "causes": self.causes(),
            });
            if let Some(help) = self.help() {
                error["help"] = help.into();
            }
            in_json(&json!({ "error": error })) + "\n"
        } else if let Self::Usage(problem) = self {
            format!("error: {}\n", in_lines(problem.trim_start_matches("error: ")))
        } else if let Self::Interrupted { problem, .. } = self {
            // The terminal has printed ^C, so the message starts on a new line.
            format!("{}{problem}\n", if std::io::stderr().is_terminal() { "\n" } else { "" })
        } else {
            let mut text = format!("error: {}\n", shown(&self.message()));
            for cause in self.causes() {
                let _ = writeln!(text, "  because: {}", shown(&cause));
            }
            if let Some(help) = self.help() {
                let _ = writeln!(text, "  help: {help}");
            }
            text
        };
        let mut err = std::io::stderr().lock();
        let text = if json { text } else { table::wrapped(&text, table::width(&err)) };
        // If standard error is closed, the exit code still tells it.
        let _ = err.write_all(text.as_bytes());
        self.exit().into()
    }
}

/// The sources of an error, without those that only repeat the one before.
pub(crate) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let sources = std::iter::successors(error.source(), |source| source.source());
    let mut causes: Vec<String> = Vec::new();
    for cause in sources.map(|source| in_commands(&source.to_string())) {
        if !causes.last().is_some_and(|last| last.ends_with(&cause)) {
            causes.push(cause);
        }
    }
    causes
}

/// Prints something on standard error before the result is there.
pub(crate) fn tell(text: &str) -> Result<(), Failure> {
    let mut err = std::io::stderr().lock();
    let text = table::wrapped(text, table::width(&err));
    let told = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    told.map_err(|error| Failure::failed("terminal", format!("standard error failed: {error}")))
}

/// A time for people: RFC 3339 in UTC, in whole seconds.
pub(crate) fn time(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_default()
}

/// A time for programs: RFC 3339 in UTC, with all its digits.
pub(crate) fn exact_time(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

/// A number for people, with thousands separators.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 data key`, `2,000 data keys`.
pub(crate) fn count(how_many: u64, what: &str) -> String {
    format!("{} {what}{}", number(how_many), if how_many == 1 { "" } else { "s" })
}

/// Makes a text from elsewhere safe to print on one line of a terminal, by escaping control characters. They could
/// forge lines, or do worse.
pub(crate) fn shown(text: &str) -> String {
    escaped(text, &[])
}

/// Makes a text of several lines safe to print on a terminal. A part that did not go through [`shown`] can forge a
/// line, but nothing worse.
fn in_lines(text: &str) -> String {
    escaped(text, &['\n', '\t'])
}

/// JSON text that is safe to print on a terminal. serde_json does not escape all control characters, and terminals obey
/// them. Outside of strings, JSON text has none except line ends.
fn in_json(value: &Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}").chars() {
        if forges(c) && c != '\n' {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

/// Is this a control character, or one that changes the direction of the text after it?
fn forges(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, kept: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if forges(c) && !kept.contains(&c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([count(1, "key"), count(2_000, "key")], ["1 key", "2,000 keys"]);
    }

    #[test]
    fn nobody_forges_lines() {
        assert_eq!(shown("a\n\u{1b}[2Jé\u{202e}"), "a\\n\\u{1b}[2Jé\\u{202e}");
        let value = json!({ "a": "\u{9b}2J\u{202e}\n" });
        assert_eq!(in_json(&value), "{\n  \"a\": \"\\u009b2J\\u202e\\n\"\n}");
        assert_eq!(serde_json::from_str::<Value>(&in_json(&value)).unwrap(), value);
        assert_eq!(in_lines("a\n\t\u{1b}[2J\r"), "a\n\t\\u{1b}[2J\\r");
    }
}
