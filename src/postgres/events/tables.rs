//! The names of the event tables in PostgreSQL, and the order in which an append writes them.

use super::batch::{ARRAYS, FIRST, ONE, VALUES};
use crate::error::{Error, InputFault, Result};
use crate::sql::events::{COLUMNS, WRITTEN};
use crate::sql::{check_name, fill, qualified};
use std::collections::BTreeSet;

/// The names of the tables and columns of an event store in PostgreSQL, and the order in which an append writes them.
///
/// ```
/// # use eventseal::Result;
/// # use eventseal::postgres::{PostgresStore, PostgresTables};
/// # fn main() -> Result<()> {
/// let store = PostgresStore::with_tables(PostgresTables::streams().in_schema("shop").notify("shop_events"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTables {
    pub(super) schema: Option<String>,
    pub(super) events: String,
    heads: String,
    pub(super) aggregate_type: String,
    pub(super) aggregate_id: String,
    pub(super) aggregate_version: String,
    pub(super) channel: Option<String>,
    pub(super) heads_first: bool,
    pub(super) index_seals: bool,
    pub(super) sealed_events: String,
}

impl Default for PostgresTables {
    fn default() -> Self {
        Self::named("events", "aggregate_heads", ["aggregate_type", "aggregate_id", "aggregate_version"])
    }
}

impl PostgresTables {
    /// The names of eventsalsa/store 0.0.2: `events` and `aggregate_heads`, with `aggregate_type`,
    /// `aggregate_id` and `aggregate_version`. Events are written first, as all 0.0 versions do: see
    /// [`events_first`](Self::events_first).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The names of eventsalsa/store from 0.1 on: `events` and `stream_heads`, with `stream_type`, `stream_id` and
    /// `stream_version`. The head is written first, as these versions do: see [`heads_first`](Self::heads_first).
    #[must_use]
    pub fn streams() -> Self {
        Self::named("events", "stream_heads", ["stream_type", "stream_id", "stream_version"]).heads_first()
    }

    fn named(events: &str, heads: &str, [aggregate_type, aggregate_id, aggregate_version]: [&str; 3]) -> Self {
        Self {
            schema: None,
            events: events.to_owned(),
            heads: heads.to_owned(),
            aggregate_type: aggregate_type.to_owned(),
            aggregate_id: aggregate_id.to_owned(),
            aggregate_version: aggregate_version.to_owned(),
            channel: None,
            heads_first: false,
            index_seals: false,
            sealed_events: "sealed_events".to_owned(),
        }
    }

    /// Uses the tables in this schema, instead of the one to which the connection's `search_path` leads.
    #[must_use]
    pub fn in_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Sets the name of the table of events.
    #[must_use]
    pub fn events(mut self, table: impl Into<String>) -> Self {
        self.events = table.into();
        self
    }

    /// Sets the name of the table of heads, which holds the last version of each aggregate.
    #[must_use]
    pub fn heads(mut self, table: impl Into<String>) -> Self {
        self.heads = table.into();
        self
    }

    /// Sets the names of the three columns that identify an event within its aggregate, in both tables.
    #[must_use]
    pub fn columns(
        mut self,
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        (self.aggregate_type, self.aggregate_id, self.aggregate_version) =
            (aggregate_type.into(), aggregate_id.into(), version.into());
        self
    }

    /// Appends take the head row first, then insert events. eventsalsa/store writes in this order from 0.1 on, and
    /// [`streams`](Self::streams) begins with it.
    ///
    /// All writers of a table must use one order. Two that write to one stream in different orders wait for each other:
    /// PostgreSQL ends one of them as a deadlock ([`Error::Collision`](crate::Error::Collision)).
    ///
    /// In this order the head row decides, and the table of events needs no unique constraint. It may be partitioned by
    /// `global_position`, natively or by pg_partman. Such a table has no constraint that refuses an event id twice:
    /// the append looks for the ids itself. Give the table an index on `event_id`, or each append reads all of it. Two
    /// transactions that append the same id to *different* streams at the same time can both succeed there.
    #[must_use]
    pub const fn heads_first(mut self) -> Self {
        self.heads_first = true;
        self
    }

    /// Appends insert events first, then move the head. eventsalsa/store 0.0 writes in this order, and
    /// [`new`](Self::new) begins with it. See [`heads_first`](Self::heads_first) on mixing the two.
    ///
    /// In this order, a unique constraint on type, id and version of the stream decides. Without one, an append fails
    /// with [`SetUpFault::NoUniqueVersion`](crate::error::SetUpFault::NoUniqueVersion).
    #[must_use]
    pub const fn events_first(mut self) -> Self {
        self.heads_first = false;
        self
    }

    /// Notifies this channel of every append. The `NOTIFY` carries the last position, and is delivered when the
    /// transaction commits.
    #[must_use]
    pub fn notify(mut self, channel: impl Into<String>) -> Self {
        self.channel = Some(channel.into());
        self
    }

    /// Appends keep the [index of seals](crate::store::SealIndex): they write its rows in their own statement. It is
    /// not kept by default, because it makes appends a little slower: docs/performance.md has by how much.
    ///
    /// [`migrate`](crate::postgres::PostgresStore::migrate) then makes its tables too. For a store whose tables were
    /// not made by `migrate`, [`index_seals`](crate::maintenance::index_seals) makes them. An append fails while they
    /// are missing.
    #[must_use]
    pub const fn index_seals(mut self) -> Self {
        self.index_seals = true;
        self
    }

    /// Sets the name of the table of the [index of seals](crate::store::SealIndex): `sealed_events` by default. Another
    /// table, with `_mark` behind this name, says up to where the index is complete. All processes must use one name,
    /// also those whose appends do not keep the index.
    #[must_use]
    pub fn sealed_events(mut self, table: impl Into<String>) -> Self {
        self.sealed_events = table.into();
        self
    }

    /// The table with the mark of the index of seals, with its schema, quoted.
    pub(super) fn sealed_events_mark(&self) -> String {
        qualified(self.schema.as_deref(), &format!("{}_mark", self.sealed_events))
    }

    pub(super) fn check(&self) -> Result<()> {
        for table in [&self.events, &self.heads, &self.sealed_events] {
            check_name("the table name", table)?;
        }
        let columns = [&self.aggregate_type, &self.aggregate_id, &self.aggregate_version];
        for column in columns {
            check_name("the column name", column)?;
        }
        let mark = format!("{}_mark", self.sealed_events);
        let tables = [&self.events, &self.heads, &self.sealed_events, &mark];
        if tables.iter().collect::<BTreeSet<_>>().len() < tables.len()
            || columns[0] == columns[1]
            || columns[1] == columns[2]
            || columns[0] == columns[2]
        {
            return Err(Error::Input(InputFault::InvalidText {
                what: "a table or column name",
                problem: "is used twice: tell them apart",
            }));
        }
        self.schema.as_ref().map_or(Ok(()), |schema| check_name("the schema name", schema))?;
        self.channel.as_ref().map_or(Ok(()), |channel| check_name("the channel name", channel))
    }

    /// Fills the names, quoted, into a SQL text.
    pub(super) fn fill(&self, sql: &str) -> String {
        let schema = self.schema.as_deref();
        fill(sql, &|name| {
            Some(match name {
                "columns" => COLUMNS.to_owned(),
                "written" => WRITTEN.to_owned(),
                "first" => FIRST.to_owned(),
                "one" => ONE.to_owned(),
                "values" => VALUES.to_owned(),
                "arrays" => ARRAYS.to_owned(),
                "events" => qualified(schema, &self.events),
                "heads" => qualified(schema, &self.heads),
                "sealed_events" => qualified(schema, &self.sealed_events),
                "sealed_events_name" => self.sealed_events.clone(),
                "sealed_events_mark" => self.sealed_events_mark(),
                "events_name" => self.events.clone(),
                "metadata" => "metadata::text".to_owned(),
                "aggregate_type" => qualified(None, &self.aggregate_type),
                "aggregate_id" => qualified(None, &self.aggregate_id),
                "aggregate_version" => qualified(None, &self.aggregate_version),
                _ => return None,
            })
        })
    }
}
