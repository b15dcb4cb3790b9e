//! What the operator has to set up first: tables, their names, grants, sequences, poolers.

use crate::error::{DriverError, ErrorKind};
use crate::keys::names::Namespace;

/// What is not set up as it has to be: see [`Error::SetUp`](crate::Error::SetUp). Nothing was changed.
///
/// `eventseal doctor` looks for most of them before an application meets them.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetUpFault {
    /// The key tables have not been set up: run their migrations.
    #[error("the key tables are not set up: run their migrations first, with migrate() of the key store")]
    NotMigrated,
    /// The database was migrated for another namespace than the one configured, or than the one of the
    /// database that the store was used on before.
    #[error(
        "the key tables belong to namespace {found}, but {configured} is expected: use the namespace that this \
         database has, or connect to the other database"
    )]
    NamespaceMismatch {
        /// What the process was configured for, or has used before.
        configured: Namespace,
        /// What the database says.
        found: Namespace,
    },
    /// A table of events has not been set up, or has another name.
    #[error(
        "the {of} has no event tables ({table} is missing): call migrate() of the event store on it, or configure the \
         names that its tables have"
    )]
    NoEventTables {
        /// `target` of a rewrite, or `database`.
        of: &'static str,
        /// The table.
        table: String,
    },
    /// A migration would make tables that exist already, without having been made by it.
    #[error(
        "the tables exist already, and were not made by this migration: an existing event store needs only the key \
         tables; otherwise configure other names"
    )]
    TablesExist {
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// A column that this version of the crate needs is not in its table: a migration was forgotten, or the columns
    /// have other names.
    #[error(
        "the tables have not the columns that are needed for {operation}: run the newest migrations, with migrate() \
         of the event store and of the key store, or correct the names that the columns were configured with"
    )]
    OutdatedTables {
        /// For what.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// The tables were migrated by a newer version of the crate, in a way that this version must not work with. Other
    /// newer migrations do not stop it.
    #[error(
        "the tables are at migration {found}, which this version of eventseal (it knows {known}) can't work with: \
         deploy the newer code"
    )]
    NewerTables {
        /// The newest migration that was run.
        found: u32,
        /// The newest one that this version has.
        known: u32,
    },
    /// The user that the connection was made with may not do this.
    #[error("the database's user may not do what is needed for {operation}: grant it, or connect as another user")]
    PermissionDenied {
        /// For what.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// A prepared statement is not where it was prepared: a pooler between this process and the database gives each
    /// transaction another session.
    #[error(
        "a prepared statement was lost or met another one while {operation}: a pooler such as PgBouncer gives \
         transactions to different sessions; let it track statements (max_prepared_statements, PgBouncer 1.21), or \
         connect directly"
    )]
    PooledStatements {
        /// During what.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// An append can't be written in the configured order: a table lacks the unique constraint that it needs. A table
    /// that is partitioned by position can't have one on the version in the stream.
    #[error(
        "the table {table:?}, or that of its heads, lacks the unique constraint on type, id and version of a stream \
         (of the heads: on type and id) that appends in this order need: if all writers take the head row first, as \
         eventsalsa/store does from 0.1 on, configure PostgresTables::heads_first(); otherwise add the constraint"
    )]
    NoUniqueVersion {
        /// The table of events.
        table: String,
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// The position that the sequence gave to an event is in the table already. Repeating it fails again, as often as
    /// there are such positions.
    #[error(
        "the sequence of positions is behind the events of the table: set it beyond the last one, with setval() and \
         max(global_position)"
    )]
    PositionTaken {
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// Events with positions of their own were to be inserted, and it can't be found out which sequence gives out the
    /// next ones.
    #[error(
        "no sequence is found that the positions of {table} come from: let global_position be an identity, or have \
         the default nextval() of a sequence; nothing was inserted"
    )]
    NoSequence {
        /// The table.
        table: String,
    },
}

impl SetUpFault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NotMigrated => ErrorKind::NotMigrated,
            Self::NamespaceMismatch { .. } => ErrorKind::NamespaceMismatch,
            Self::NoEventTables { .. } => ErrorKind::NoEvents,
            Self::TablesExist { .. } => ErrorKind::TablesExist,
            Self::OutdatedTables { .. } => ErrorKind::OutdatedTables,
            Self::NewerTables { .. } => ErrorKind::NewerTables,
            Self::PermissionDenied { .. } => ErrorKind::PermissionDenied,
            Self::PooledStatements { .. } => ErrorKind::Pooler,
            Self::NoUniqueVersion { .. } | Self::PositionTaken { .. } | Self::NoSequence { .. } => ErrorKind::Database,
        }
    }
}
