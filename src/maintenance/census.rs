//! The census: it counts what is stored, and says which steps and policies that needs.

mod answers;

pub use answers::Answer;

use crate::error::Result;
use crate::event::{EventType, EventVersion, GlobalPosition, PersistedEvent};
use crate::maintenance::look::{Look, look_at_both, read_as};
use crate::maintenance::pace::PAGE_BYTES;
use crate::schema::{ReadAs, SchemaVersion, Schemas};
use crate::sealed_store::SealedStore;
use crate::store::{EventStore, EventTable, PositionRange, StoredCount, StoredQuery};
use crate::telemetry;
use std::collections::{BTreeMap, HashMap, HashSet};
use time::OffsetDateTime;
use uuid::Uuid;

/// The options of a [`Census`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CensusOptions {
    /// The part of the log that is counted; all of it by default. The questions that [`Census`] answers need all of it.
    pub range: PositionRange,
    /// Counts in ranges of this many positions instead of in one scan, and reports progress after each. It is for a
    /// table that is too large to be scanned at once.
    pub positions_per_scan: Option<u64>,
    /// Looks into every payload of the protected versions, including those that start with a header.
    ///
    /// Without it, a payload counts as sealed if it [starts with a header](crate::store::starts_with_header). Sealing
    /// always writes the header there, and no value of a payload can be mistaken for one. But nobody knows then what
    /// the header covers. A payload can have a header and a protected value that it does not cover: if a version was
    /// changed to protect more after events of it had been sealed, or if somebody wrote to the store. So the census
    /// proves that nothing protected is in the clear only with this option. It costs a read of all these payloads.
    ///
    /// With it, the census also ends at the position up to which the log is [settled](EventTable::settled_position)
    /// when it begins. Otherwise, events that a transaction in flight is about to commit would be missing from the
    /// proof. On PostgreSQL, finding that position takes a lock for a moment, which a replica or a connection in a
    /// transaction can't take: see [`Census::is_settled`].
    pub every_payload: bool,
    /// How many payloads are examined at a time; fewer if they have more than 64 MiB. 500 by default.
    pub batch: u32,
}

impl Default for CensusOptions {
    fn default() -> Self {
        Self { range: PositionRange::default(), positions_per_scan: None, every_payload: false, batch: 500 }
    }
}

/// The progress of a census.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CensusProgress {
    /// The position up to which events are counted.
    pub counted_to: GlobalPosition,
    /// The last position of the store when it began.
    pub last: GlobalPosition,
    /// How many payloads were examined so far.
    pub looked_at: u64,
    /// How many payloads have to be examined, of the events that are counted so far.
    pub to_look_at: u64,
}

/// A count of the stored events of each type and version, with the steps that they need and the protection that they
/// have.
///
/// [`SealedStore::census`] takes it; [`take`](Self::take) takes one without schemas. It opens nothing, so it needs no
/// keys. It takes no locks, except for a moment if it looks into [every payload](CensusOptions::every_payload). So it
/// can be taken while the application runs. It counts committed events only: as long as a process appends events of an
/// old version, or through a store that is not wrapped, it may be outdated when it is done.
///
/// ```
/// # use eventseal::{EventStore, ExpectedVersion, Keyring, Namespace, NewEvent, Owner, Result, Schemas};
/// # use eventseal::{SealedStore, aggregate, event};
/// # use eventseal::maintenance::{Answer, CensusOptions};
/// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let schemas = Schemas::new([event("Registered")
///     .version(1).protect(&["/name"], Owner::Aggregate)
///     .version(2).protect(&["/full_name"], Owner::Aggregate)
///     .upcast_with(1, |mut old: serde_json::Value, _| {
///         old["full_name"] = old["name"].take();
///         Ok::<_, std::convert::Infallible>(old)
///     })])?;
/// # let db = MemoryDb::new(Namespace::new("demo")?);
/// let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("demo")?, schemas);
/// # store.keys().prepare(&mut db.begin()).await?;
/// let mut tx = db.begin();
/// let new = NewEvent::raw("Registered", 2, r#"{"full_name":"Ada"}"#);
/// store.append(&mut tx, &aggregate("Customer", "42"), ExpectedVersion::NoStream, &[new]).await?;
/// tx.commit()?;
///
/// let census = store.census(&mut db.begin(), &CensusOptions::default(), &mut |_| {}).await?;
/// assert_eq!((census.rows[0].events, census.rows[0].with_header), (1, 1));
/// assert_eq!(census.may_delete_step("Registered", 1), Answer::Yes);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Census {
    /// The part of the log that was counted. It ends at the last position of the store when the census began.
    pub range: PositionRange,
    /// By type and version.
    pub rows: Vec<CensusRow>,
    /// Was every payload of the protected versions examined?
    pub every_payload: bool,
    /// Is it certain that no further event will be committed in its range? This is found out only if every payload is
    /// examined. It is `false` if a transaction that has appended stays open.
    pub is_settled: bool,
    /// Did the options restrict it to a part of the log?
    is_partial: bool,
    /// The registry, if there was one.
    registered: Option<Vec<SchemaVersion>>,
}

/// The stored events of one type and version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CensusRow {
    /// The type as stored.
    pub event_type: EventType,
    /// The version as stored.
    pub event_version: EventVersion,
    /// How many there are.
    pub events: u64,
    /// How many of them [start with a header](crate::store::starts_with_header), and are therefore sealed.
    pub with_header: u64,
    /// The positions of the first and of the last.
    pub positions: (GlobalPosition, GlobalPosition),
    /// The earliest and the latest time.
    pub created_at: (OffsetDateTime, OffsetDateTime),
    /// What the registry knows of this type and version; `None` if there was no registry.
    pub registration: Option<Registration>,
    /// The types and versions whose steps these events need on their way to current versions.
    pub steps: Vec<(EventType, EventVersion)>,
    /// The protection that the stored events have. `None` if this version protects nothing, or if that is not known.
    pub protection: Option<Protection>,
}

impl CensusRow {
    /// How many do not start with a header.
    #[must_use]
    pub fn without_header(&self) -> u64 {
        self.events.saturating_sub(self.with_header)
    }

    /// Is its type registered, and is reading its events an error?
    fn is_unreadable(&self) -> bool {
        matches!(self.registration, Some(Registration::Newer(_) | Registration::Missing(_)))
    }
}

/// What a registry says about a stored type and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Registration {
    /// It is a current version, from which no step leads.
    Current,
    /// Steps lead from it.
    Outdated,
    /// The type is registered, but only with older versions than the stored one. The field is the newest of them.
    Newer(EventVersion),
    /// The type is registered, but not the stored version. The field is the oldest registered version.
    Missing(EventVersion),
    /// The type is not registered: reads of its events fail, unless the registry
    /// [allows unknown types](crate::schema::SchemasBuilder::allow_unknown_types).
    UnknownType,
}

/// The protection that the stored events of a protected version have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Protection {
    /// Sealed events. These start with a header or, if every payload was examined, have headers that cover every
    /// protected value. If the schemas protect metadata, every payload of a protected version is examined.
    pub sealed: u64,
    /// Events with a header that does not cover every protected value.
    pub partly_sealed: u64,
    /// Events without a header, and with a protected value in the clear.
    pub plaintext: u64,
    /// Events without a header, and without a protected value.
    pub nothing_to_protect: u64,
    /// Events that can't be examined: the payload is not JSON, does not have the shape that the version protects, or
    /// has a header that can't be read.
    pub unreadable: u64,
    /// The first event that is not as it should be: partly sealed, plaintext or unreadable.
    pub first_open: Option<(GlobalPosition, Uuid)>,
}

impl Protection {
    /// How many are partly sealed, plaintext or unreadable.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.partly_sealed + self.plaintext + self.unreadable
    }
}

impl Census {
    /// Takes a census without a registry: it counts the stored events, and those that start with a header.
    ///
    /// # Errors
    /// Those of the [table](EventTable).
    pub async fn take<T: EventTable + ?Sized>(
        table: &T,
        connection: &mut T::Tx,
        options: &CensusOptions,
        progress: &mut (dyn FnMut(CensusProgress) + Send),
    ) -> Result<Self> {
        telemetry::census(None).run(|| Self::of(table, connection, None, options, progress)).await
    }

    async fn of<T: EventTable + ?Sized>(
        table: &T,
        connection: &mut T::Tx,
        schemas: Option<&Schemas>,
        options: &CensusOptions,
        progress: &mut (dyn FnMut(CensusProgress) + Send),
    ) -> Result<Self> {
        let settled = if options.every_payload { settled(table, connection).await } else { None };
        let last = match settled {
            Some(settled) => settled,
            None => table.last_position(connection).await?,
        };
        let end = options.range.up_to.map_or(last, |up_to| up_to.min(last));
        let range = PositionRange { after: options.range.after, up_to: Some(end) };
        let mut rows: BTreeMap<(EventType, EventVersion), CensusRow> = BTreeMap::new();
        let mut told = CensusProgress { counted_to: range.after, last: end, looked_at: 0, to_look_at: 0 };
        while told.counted_to < end {
            let up_to = match options.positions_per_scan {
                Some(positions) => {
                    let positions = i64::try_from(positions.max(1)).unwrap_or(i64::MAX);
                    GlobalPosition::try_from(told.counted_to.get().saturating_add(positions))?.min(end)
                }
                None => end,
            };
            let counts =
                table.count_events(connection, PositionRange { after: told.counted_to, up_to: Some(up_to) }).await?;
            for count in &counts {
                add(&mut rows, count);
            }
            told.counted_to = match counts.is_empty() {
                true => before_next(table, connection, up_to, end).await?,
                false => up_to,
            };
            progress(told);
        }
        let mut census = Self {
            range,
            rows: rows.into_values().collect(),
            every_payload: options.every_payload,
            is_settled: settled.is_some(),
            is_partial: options.range.after > GlobalPosition::START || end < last,
            registered: schemas.map(Schemas::versions),
        };
        if let Some(schemas) = schemas {
            census.compare(schemas);
            census.look_into(table, connection, schemas, options, told, progress).await?;
        }
        Ok(census)
    }

    /// Adds what the registry says about each row.
    fn compare(&mut self, schemas: &Schemas) {
        let registered = self.registered.as_deref().unwrap_or_default();
        for row in &mut self.rows {
            // An event without a version is read as the one that the registry names for such events.
            let version =
                read_as(schemas, &row.event_type, row.event_version).map_or(row.event_version, |known| known.version);
            let of_type = || {
                registered.iter().filter(|known| known.event_type == row.event_type).map(|known| known.event_version)
            };
            let known =
                registered.iter().find(|known| known.event_type == row.event_type && known.event_version == version);
            row.registration = Some(match (known, of_type().min(), of_type().max()) {
                (Some(known), ..) if known.step.is_none() => Registration::Current,
                (Some(_), ..) => Registration::Outdated,
                (None, _, Some(newest)) if version > newest => Registration::Newer(newest),
                (None, Some(oldest), _) => Registration::Missing(oldest),
                (None, ..) => Registration::UnknownType,
            });
            let of_all = read_as(schemas, &row.event_type, row.event_version).filter(|_| known.is_none());
            if of_all.is_some_and(|of_all| of_all.schema.protects()) {
                row.protection = Some(Protection::default());
            }
            if let Some(known) = known {
                row.steps = steps_from(registered, known);
                let is_protected = !known.protected.is_empty() || !known.protected_metadata.is_empty();
                row.protection = is_protected.then(Protection::default);
            }
        }
    }

    /// Examines the payloads of protected versions one by one, except those whose header is proof enough.
    async fn look_into<T: EventTable + ?Sized>(
        &mut self,
        table: &T,
        connection: &mut T::Tx,
        schemas: &Schemas,
        options: &CensusOptions,
        mut told: CensusProgress,
        progress: &mut (dyn FnMut(CensusProgress) + Send),
    ) -> Result<()> {
        // A header in the payload says nothing about the metadata.
        let every = options.every_payload || schemas.protects_metadata();
        let mut index: HashMap<(EventType, EventVersion), usize> = HashMap::new();
        for (at, row) in self.rows.iter_mut().enumerate() {
            let Some(protection) = &mut row.protection else { continue };
            let to_look_at = if every {
                row.events
            } else {
                protection.sealed = row.with_header;
                row.events.saturating_sub(row.with_header)
            };
            if to_look_at > 0 {
                index.insert((row.event_type.clone(), row.event_version), at);
                told.to_look_at += to_look_at;
            }
        }
        if index.is_empty() {
            return Ok(());
        }
        let mut query = StoredQuery {
            range: self.range,
            limit: options.batch.max(1),
            max_bytes: PAGE_BYTES,
            versions: index.keys().cloned().collect(),
            without_header: !every,
        };
        loop {
            let page = table.stored_events(connection, &query).await?;
            for event in &page {
                let row =
                    index.get(&(event.stored_type.clone(), event.stored_version)).and_then(|at| self.rows.get_mut(*at));
                let Some(protection) = row.and_then(|row| row.protection.as_mut()) else { continue };
                let Some(ReadAs { schema, .. }) = read_as(schemas, &event.stored_type, event.stored_version) else {
                    continue;
                };
                protection.count(look_at_both(schema, event), event);
            }
            let Some(last) = page.last() else { return Ok(()) };
            query.range.after = last.global_position;
            told.looked_at += page.len() as u64;
            progress(told);
        }
    }
}

impl Protection {
    /// Counts what was found in a payload.
    fn count(&mut self, found: Look, event: &PersistedEvent) {
        match found {
            Look::Sealed => self.sealed += 1,
            Look::Nothing => self.nothing_to_protect += 1,
            open => {
                self.first_open.get_or_insert((event.global_position, event.event_id));
                match open {
                    Look::Partly => self.partly_sealed += 1,
                    Look::Plaintext => self.plaintext += 1,
                    _ => self.unreadable += 1,
                }
            }
        }
    }
}

/// The position up to which everything is committed, if that can be found out on this connection now.
async fn settled<T: EventTable + ?Sized>(table: &T, connection: &mut T::Tx) -> Option<GlobalPosition> {
    match table.settled_position(connection).await {
        Ok(settled) => Some(settled),
        Err(error) => {
            // This is a replica, a role that may only read, or an append that stays open. The committed events can be
            // counted all the same.
            tracing::warn!(%error, "the census is not of a settled log");
            None
        }
    }
}

/// The position before the next event, to skip ranges without events: positions may be far apart.
async fn before_next<T: EventTable + ?Sized>(
    table: &T,
    connection: &mut T::Tx,
    after: GlobalPosition,
    end: GlobalPosition,
) -> Result<GlobalPosition> {
    let query = StoredQuery { range: PositionRange { after, up_to: Some(end) }, limit: 1, ..StoredQuery::default() };
    match table.stored_events(connection, &query).await?.first() {
        Some(next) => GlobalPosition::try_from(next.global_position.get().saturating_sub(1)),
        None => Ok(end),
    }
}

fn add(rows: &mut BTreeMap<(EventType, EventVersion), CensusRow>, count: &StoredCount) {
    let row = rows.entry((count.event_type.clone(), count.event_version)).or_insert_with(|| CensusRow {
        event_type: count.event_type.clone(),
        event_version: count.event_version,
        events: 0,
        with_header: 0,
        positions: count.positions,
        created_at: count.created_at,
        registration: None,
        steps: Vec::new(),
        protection: None,
    });
    row.events += count.events;
    row.with_header += if count.with_header { count.events } else { 0 };
    row.positions = (row.positions.0.min(count.positions.0), row.positions.1.max(count.positions.1));
    row.created_at = (row.created_at.0.min(count.created_at.0), row.created_at.1.max(count.created_at.1));
}

/// Every version whose step events of `start` need on their way, in the order in which the steps are reached.
fn steps_from(registered: &[SchemaVersion], start: &SchemaVersion) -> Vec<(EventType, EventVersion)> {
    let (mut found, mut seen, mut open) = (Vec::new(), HashSet::new(), vec![(&start.event_type, start.event_version)]);
    while let Some((name, version)) = open.pop() {
        let known = registered.iter().find(|known| known.event_type == *name && known.event_version == version);
        let Some((known, step)) = known.and_then(|known| Some((known, known.step.as_ref()?))) else { continue };
        if seen.insert((name, version)) {
            found.push((known.event_type.clone(), known.event_version));
            open.extend(step.targets.iter().rev().map(|(name, version)| (name, *version)));
        }
    }
    found
}

impl<S: EventStore + EventTable<Tx = <S as EventStore>::Tx>> SealedStore<S> {
    /// Counts the stored events and compares them with the schemas: see [`Census`].
    ///
    /// `connection` need not be in a transaction. `progress` is called after each scan and each page.
    ///
    /// # Errors
    /// Those of the [table](EventTable).
    pub async fn census(
        &self,
        connection: &mut <S as EventStore>::Tx,
        options: &CensusOptions,
        progress: &mut (dyn FnMut(CensusProgress) + Send),
    ) -> Result<Census> {
        let (table, schemas) = (self.inner(), self.sealer().schemas());
        let call = telemetry::census(self.keys().known_namespace());
        call.run(|| Census::of(table, connection, Some(schemas), options, progress)).await
    }
}
