//! What an [`Error`] means, in one word.

use crate::error::driver::{Failure, meaning};
use crate::error::{Error, StepError};
use std::fmt;

/// Makes the enum, its list and its words from one table, so that none of them lacks a kind.
macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident = $word:literal,)*) => {
        /// What an [`Error`] means, in one stable word: for logs, metrics and statuses. See [`Error::kind`].
        ///
        /// [`as_str`](Self::as_str) and `Display` give the word. It never changes its meaning, unlike the messages.
        /// Other kinds may be added. The command `eventseal` prints the same words with `--json`.
        ///
        /// The kinds come in five groups, by who has something to do:
        ///
        /// - **Nobody**: do the same again in a new transaction. [`is_retryable`](Self::is_retryable) is true for these
        ///   kinds only: [`Collision`](Self::Collision), [`DatabaseUnavailable`](Self::DatabaseUnavailable),
        ///   [`KmsUnavailable`](Self::KmsUnavailable).
        /// - **The caller**, whose call can't be done, or not now: [`Conflict`](Self::Conflict),
        ///   [`InvalidText`](Self::InvalidText), [`InvalidInput`](Self::InvalidInput), [`Shredded`](Self::Shredded),
        ///   [`Disabled`](Self::Disabled), [`ScopeState`](Self::ScopeState), [`Held`](Self::Held),
        ///   [`KekInUse`](Self::KekInUse), [`OutcomeUnknown`](Self::OutcomeUnknown).
        /// - **The developer**: [`Schemas`](Self::Schemas), [`Application`](Self::Application),
        ///   [`Misuse`](Self::Misuse).
        /// - **The operator**, who has to correct the set-up: [`NotMigrated`](Self::NotMigrated),
        ///   [`NoEvents`](Self::NoEvents), [`TablesExist`](Self::TablesExist),
        ///   [`OutdatedTables`](Self::OutdatedTables), [`NewerTables`](Self::NewerTables),
        ///   [`NamespaceMismatch`](Self::NamespaceMismatch), [`NoActiveKek`](Self::NoActiveKek),
        ///   [`Keyring`](Self::Keyring), [`KmsRefused`](Self::KmsRefused),
        ///   [`PermissionDenied`](Self::PermissionDenied), [`Pooler`](Self::Pooler), [`NotCopied`](Self::NotCopied),
        ///   [`NoEffect`](Self::NoEffect), [`Database`](Self::Database), [`Other`](Self::Other).
        /// - **Somebody on call**, now, because what is stored is not what was written: [`Tampered`](Self::Tampered),
        ///   [`LogAltered`](Self::LogAltered), [`ShredLogBehind`](Self::ShredLogBehind), [`LogCopy`](Self::LogCopy),
        ///   [`CopiesDiffer`](Self::CopiesDiffer), [`MissingKey`](Self::MissingKey), [`MissingKek`](Self::MissingKek),
        ///   [`WrongKey`](Self::WrongKey), [`InvalidRow`](Self::InvalidRow).
        ///
        /// A service counts its errors by kind, and gives each its status:
        ///
        /// ```
        /// use eventseal::Error;
        /// use eventseal::error::{ErrorKind, InputFault};
        /// use std::collections::BTreeMap;
        ///
        /// fn status(error: &Error) -> u16 {
        ///     match error.kind() {
        ///         ErrorKind::InvalidText | ErrorKind::InvalidInput => 400,
        ///         ErrorKind::Conflict => 409,
        ///         ErrorKind::Shredded => 410,
        ///         ErrorKind::Disabled => 503,
        ///         kind if kind.is_retryable() => 503,
        ///         _ => 500,
        ///     }
        /// }
        ///
        /// // The label of a counter. Create every series at startup, so that an alert sees the first error.
        /// let mut errors: BTreeMap<&str, u64> = ErrorKind::ALL.iter().map(|kind| (kind.as_str(), 0)).collect();
        ///
        /// let error = Error::database("beginning", std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        /// *errors.entry(error.kind().as_str()).or_default() += 1;
        /// assert_eq!(errors["database_unavailable"], 1);
        /// assert_eq!(status(&error), 503);
        /// assert_eq!(status(&InputFault::EmptyAppend.into()), 400);
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$about])* $kind,)*
        }

        impl ErrorKind {
            /// All kinds that this version has.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The word for it: stable, of lower-case letters and `_`, such as `kms_unavailable`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)*
                }
            }
        }
    };
}

kinds! {
    // ---- do the same again
    /// Another transaction was in the way. Roll back, and run the whole transaction again. Retryable.
    Collision = "collision",
    /// The database can't be reached, or takes no writes; nothing was committed. Retryable once it is back.
    DatabaseUnavailable = "database_unavailable",
    /// The KMS does not answer. Nothing is known about the key: this is no erasure. Retryable once it is back.
    KmsUnavailable = "kms_unavailable",

    // ---- the caller
    /// The aggregate is not at the expected version, or the event's id is there already: read again, and decide anew.
    /// Or a value of a unique blind index belongs to somebody else: ask for another one. Not retryable as it is.
    Conflict = "conflict",
    /// A name, id, reason or actor is empty, too long, or has characters that it can't have. Correct it. Not retryable.
    InvalidText = "invalid_text",
    /// Another argument is refused: the payload, the metadata, a number. Correct it. Not retryable.
    InvalidInput = "invalid_input",
    /// The keys of the scope were destroyed: the subject is gone. Leave the event out, or reopen the scope if that is
    /// lawful. Not retryable.
    Shredded = "shredded",
    /// The scope is disabled, which can be undone. Not retryable before an operator enables it.
    Disabled = "disabled",
    /// The scope is in a state in which this can't be done. The message says what would be possible. Not retryable.
    ScopeState = "scope_state",
    /// The scope is on hold, so it can't be shredded. Release the holds if that is lawful. Not retryable.
    Held = "held",
    /// The key-encryption key is active, wraps data keys, or does not exist. Rotate and rewrap first. Not retryable.
    KekInUse = "kek_in_use",
    /// The connection was lost during a commit of this crate, so it may be done or not. Look first. Not retryable
    /// blindly.
    OutcomeUnknown = "outcome_unknown",

    // ---- the developer
    /// The schemas or the Rust types do not fit the event: they do not know its type or version, or its payload has
    /// another shape. Or the schemas contradict themselves. Correct them, or deploy the newer code. Not retryable.
    Schemas = "schemas",
    /// A step or a consumer of the application failed; its own error is the source. If that is a collision or an
    /// outage, the kind says so instead. Not retryable otherwise.
    Application = "application",
    /// The call was given something that it can't work with: no transaction where it needs one, a transaction where it
    /// commits on its own, a connection whose commits can be lost, a target that holds other events, or a store that
    /// breaks its contract. Correct the program. Not retryable.
    Misuse = "misuse",

    // ---- the operator
    /// There are no key tables by that name, or no table of snapshots. Run the migrations. Not retryable.
    NotMigrated = "not_migrated",
    /// There is no table of events by that name, or its columns have other names. Migrate, or correct the names. Not
    /// retryable.
    NoEvents = "no_events",
    /// There are tables by that name already, made by something else. Configure other names. Not retryable.
    TablesExist = "tables_exist",
    /// The tables are older than this version of the crate. Run the newest migrations. Not retryable.
    OutdatedTables = "outdated_tables",
    /// A newer version changed the tables so that this one must not use them. Deploy the newer code. Not retryable.
    NewerTables = "newer_tables",
    /// The key tables are of another namespace. Connect to the right database. Not retryable.
    NamespaceMismatch = "namespace_mismatch",
    /// The partition has no active key-encryption key. Prepare it once, at startup. Not retryable.
    NoActiveKek = "no_active_kek",
    /// The keyring can't be read. The message says what is wrong with it. Not retryable.
    Keyring = "keyring",
    /// The KMS refused to use the master key, or the master key does not open the key-encryption key. Look at its
    /// policy and its state. Not retryable.
    KmsRefused = "kms_refused",
    /// The database's user may not do that. Grant it. Not retryable.
    PermissionDenied = "permission_denied",
    /// Something between the process and the database changes sessions. Let it track statements, or connect directly.
    /// Not retryable.
    Pooler = "pooler",
    /// What was decided is committed, but a copy of the shred log does not have it yet. Make the copy reachable, and
    /// export: the shred itself is done. Not retryable.
    NotCopied = "not_copied",
    /// The database accepted a change, but did not make all of it. A shred that ends with this error has not certainly
    /// destroyed anything. Look at triggers, rules and policies. Not retryable.
    NoEffect = "no_effect",
    /// The database refused a statement. The message and its source say why. Not retryable.
    Database = "database",
    /// Anything else, such as an operating system without random bytes. The message says what. Not retryable.
    Other = "other",

    // ---- somebody on call
    /// A stored event or value is not what was written: it was altered, moved, or never sealed. Restore it, and find
    /// out who could write it. Not retryable.
    Tampered = "tampered",
    /// The shred log is not what was written: an entry was altered, dropped, moved or invented. Compare it with a copy,
    /// and find out who could write it. Not retryable.
    LogAltered = "log_altered",
    /// The key table and its shred log, or the log and its required copy, do not agree: what was shredded may have come
    /// back, for instance with a restore. Nothing is opened or sealed. Replay the copy. Not retryable.
    ShredLogBehind = "shred_log_behind",
    /// A copy of the shred log is empty, altered or of another namespace, or can't be read or written. The message says
    /// what to do. Not retryable.
    LogCopy = "log_copy",
    /// Two copies of the shred log are not of one log. Nothing was done: find out which is right. Not retryable.
    CopiesDiffer = "copies_differ",
    /// The row of a data key is missing, which no erasure does. Restore the key tables, or connect to the right
    /// database. Not retryable.
    MissingKey = "missing_key",
    /// The row of a key-encryption key is missing. Restore the key tables. Not retryable.
    MissingKek = "missing_kek",
    /// A data key does not open under its key-encryption key: its row was altered. Restore it. Not retryable.
    WrongKey = "wrong_key",
    /// A row of the tables holds something that this crate never writes. Correct or restore it. Not retryable.
    InvalidRow = "invalid_row",
}

impl ErrorKind {
    /// Are errors of this kind retryable? [`Error::is_retryable`] says the same of each of them.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Collision | Self::DatabaseUnavailable | Self::KmsUnavailable)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Error {
    /// The meaning of the error in one stable word: for logs, metrics and statuses. If maintenance stops at an
    /// [`Unreadable`](crate::error::MaintenanceFault::Unreadable) event, the kind is that of what is wrong with the
    /// event.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        // There is no wildcard here nor in the inner types, so that a new variant has to choose a kind.
        match self {
            Self::VersionConflict { .. } | Self::DuplicateEventId { .. } => ErrorKind::Conflict,
            Self::Shredded { .. } => ErrorKind::Shredded,
            Self::Disabled { .. } => ErrorKind::Disabled,
            Self::Collision { .. } => ErrorKind::Collision,
            Self::Consumer { source, .. } => of_the_application(source),
            Self::Event { fault, .. } => fault.kind(),
            Self::Value { fault, .. } => fault.kind(),
            Self::BlindIndex { fault, .. } => fault.kind(),
            Self::Input(fault) => fault.kind(),
            Self::Schemas(_) => ErrorKind::Schemas,
            Self::Keys(fault) => fault.kind(),
            Self::Kms(fault) => fault.kind(),
            Self::Database { source, .. } if source.is_outage() => ErrorKind::DatabaseUnavailable,
            Self::Database { .. } => ErrorKind::Database,
            Self::SetUp(fault) => fault.kind(),
            Self::Transaction(fault) => fault.kind(),
            Self::Storage(fault) => fault.kind(),
            Self::Maintenance(fault) => fault.kind(),
        }
    }
}

/// A retryable error keeps its kind, just as it keeps `is_retryable`. Any other error is `Application`.
fn of_the_application(source: &StepError) -> ErrorKind {
    match meaning(&**source) {
        Failure::Collision => ErrorKind::Collision,
        Failure::Outage | Failure::ReadOnly => {
            source.downcast_ref::<Error>().map_or(ErrorKind::DatabaseUnavailable, Error::kind)
        }
        Failure::Permission
        | Failure::MissingTable
        | Failure::MissingColumn
        | Failure::LostStatement
        | Failure::Other => ErrorKind::Application,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kms::KmsFailure;
    use crate::error::{BoxError, KeyFault, KmsFault, MaintenanceFault, SetUpFault};
    use crate::event::{AggregateVersion, GlobalPosition, Unreadable, aggregate};
    use std::collections::BTreeSet;
    use uuid::Uuid;

    fn outage() -> Error {
        Error::database("reading", std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    }

    fn kms_outage() -> Error {
        let source = BoxError::from("it took too long").into();
        Error::Kms(KmsFault::Unavailable { failure: KmsFailure::TimedOut, source })
    }

    fn consumer(source: impl Into<BoxError>) -> Error {
        let version = AggregateVersion::FIRST;
        Error::Consumer {
            consumer: "c".to_owned(),
            aggregate: aggregate("Order", "1"),
            version,
            source: StepError::new(source.into()),
        }
    }

    fn unreadable(error: Error) -> Error {
        Error::Maintenance(MaintenanceFault::Unreadable(Box::new(Unreadable {
            aggregate: aggregate("Order", "1"),
            aggregate_version: AggregateVersion::FIRST,
            global_position: GlobalPosition::START,
            event_id: Uuid::nil(),
            error,
        })))
    }

    #[test]
    fn the_words_are_unique_and_fit_for_a_label() {
        let words: BTreeSet<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            let word = kind.as_str();
            assert!(
                word.split('_').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase())),
                "{word}"
            );
            // The name in Rust is the same word.
            assert_eq!(word.replace('_', ""), format!("{kind:?}").to_lowercase());
            assert_eq!(format!("{kind:>30}"), format!("{word:>30}"));
        }
    }

    /// Each kind is the kind of some error, and is listed in a group of the documentation.
    #[test]
    fn no_kind_is_left_over() {
        let sources = [
            include_str!("kind.rs"),
            include_str!("blind_index.rs"),
            include_str!("event.rs"),
            include_str!("input.rs"),
            include_str!("keys.rs"),
            include_str!("kms.rs"),
            include_str!("maintenance.rs"),
            include_str!("set_up.rs"),
            include_str!("storage.rs"),
            include_str!("transaction.rs"),
            include_str!("value.rs"),
        ];
        let choice = |source: &'static str| source.split("fn kind(&self)").nth(1)?.split("\n}\n").next();
        let choice: String = sources.into_iter().filter_map(choice).collect();
        let groups = include_str!("kind.rs").split("in five groups").nth(1).unwrap().split("```").next().unwrap();
        for kind in ErrorKind::ALL {
            let name = format!("ErrorKind::{kind:?}");
            let ends = |text: &str| !text.starts_with(|c: char| c.is_ascii_alphanumeric());
            assert!(choice.split(&name).skip(1).any(ends), "no error is {name}");
            assert_eq!(groups.matches(&format!("(Self::{kind:?})")).count(), 1, "{name}");
        }
    }

    #[test]
    fn a_kind_is_retryable_where_the_error_is() {
        for (error, kind) in [
            (outage(), ErrorKind::DatabaseUnavailable),
            (kms_outage(), ErrorKind::KmsUnavailable),
            (Error::Collision { source: None }, ErrorKind::Collision),
            (Error::database("reading", "no"), ErrorKind::Database),
            (Error::committing("shredding", std::io::Error::other("gone")), ErrorKind::OutcomeUnknown),
            (unreadable(outage()), ErrorKind::DatabaseUnavailable),
            (unreadable(Error::Keys(KeyFault::Random)), ErrorKind::Other),
            (consumer(Error::Collision { source: None }), ErrorKind::Collision),
            (consumer(outage()), ErrorKind::DatabaseUnavailable),
            (consumer(kms_outage()), ErrorKind::KmsUnavailable),
            (consumer(Error::committing("shredding", std::io::Error::other("gone"))), ErrorKind::Application),
            (consumer(Error::SetUp(SetUpFault::NotMigrated)), ErrorKind::Application),
            (consumer("its own"), ErrorKind::Application),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(kind.is_retryable(), error.is_retryable(), "{error}");
        }
    }
}
