//! What the operator has to set up first: tables, their names, grants, sequences, poolers.

use crate::error::{DriverError, ErrorKind};
use crate::keys::names::Namespace;

/// Something in the database is not set up as it has to be: see [`Error::SetUp`](crate::Error::SetUp). Nothing was
/// changed.
///
/// `eventseal doctor` looks for most of them before an application meets them.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetUpFault {
    /// The key tables have not been set up: run their migrations.
    #[error("the key tables are not set up: run their migrations first, with migrate() of the key store")]
    NotMigrated,
    /// The database was migrated for another namespace than the configured one, or than that of the database on which
    /// this store was used before.
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
    /// The table of snapshots has not been made, or has another name.
    #[error(
        "there is no table of snapshots by the name of {table}: call migrate() of the snapshot store on the database, \
         or configure the name that it has"
    )]
    NoSnapshotTable {
        /// The table.
        table: String,
    },
    /// The table of blind indexes has not been set up, or has another name.
    #[error("there is no table of blind indexes: call migrate() of the table first, or configure the name that it has")]
    NoBlindIndex,
    /// A migration would create tables that exist already, and that no earlier run of it created.
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
        /// What it is needed for.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// A newer version of the crate migrated the tables in a way that this version must not work with. Newer migrations
    /// that it can work with do not stop it.
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
    /// The user of the connection lacks a permission.
    #[error("the database's user may not do what is needed for {operation}: grant it, or connect as another user")]
    PermissionDenied {
        /// What it is needed for.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// A prepared statement is not in the session: a pooler between this process and the database gives transactions to
    /// different sessions.
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
    /// The configured order of an append's statements needs a unique constraint that a table lacks. A table that is
    /// partitioned by position can't have one on the version in the stream.
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
    /// The sequence gave an event a position that is in the table already. Another append fails too, until the sequence
    /// has passed all such positions.
    #[error(
        "the sequence of positions is behind the events of the table: set it beyond the last one, with setval() and \
         max(global_position)"
    )]
    PositionTaken {
        /// What the database said.
        #[source]
        source: DriverError,
    },
    /// Events were to be inserted with the positions that they have, but no sequence was found that gives out the next
    /// positions.
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
            Self::NotMigrated | Self::NoSnapshotTable { .. } => ErrorKind::NotMigrated,
            Self::NamespaceMismatch { .. } => ErrorKind::NamespaceMismatch,
            Self::NoEventTables { .. } => ErrorKind::NoEvents,
            Self::NoBlindIndex => ErrorKind::NotMigrated,
            Self::TablesExist { .. } => ErrorKind::TablesExist,
            Self::OutdatedTables { .. } => ErrorKind::OutdatedTables,
            Self::NewerTables { .. } => ErrorKind::NewerTables,
            Self::PermissionDenied { .. } => ErrorKind::PermissionDenied,
            Self::PooledStatements { .. } => ErrorKind::Pooler,
            Self::NoUniqueVersion { .. } | Self::PositionTaken { .. } | Self::NoSequence { .. } => ErrorKind::Database,
        }
    }
}
