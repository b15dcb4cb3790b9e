//! Races on PostgreSQL, on real connections, at every isolation level (invariants I5, I6 and I8).
//!
//! Two to four transactions run at once on a small world of two key scopes and two aggregates. Some run freely, some
//! are held open until another one waits for them, some have taken their snapshot before another one committed. After
//! every round a model looks for an order of the transactions that committed, one after the other, which gives the same
//! results, the same key rows and the same events, and in which nothing that began after another's commit comes before
//! it. If there is none, a key was resurrected, an event was sealed under a destroyed key, or a version was lost or given
//! twice.
//!
//! `RACES=20000` sets the number of rounds at each isolation level and of each kind, `RACE_SEED=7` repeats a run's choices.

use eventseal::*;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Transaction};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::Postgres;
use tokio::sync::watch;
use uuid::Uuid;

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
const LANES: usize = 6;

// ---- what a transaction does

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    Any,
    NoStream,
    /// The version that the stream had before the round.
    Exact,
}

impl Expect {
    fn fits(self, head: usize, before: usize) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => head == 0,
            Self::Exact => head == before,
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// One append for each entry: to which aggregate, and an event for each of these scopes.
    Append(Expect, Vec<(usize, Vec<usize>)>),
    /// As eventsalsa writes, in the version that [`Writer`] says.
    Foreign(Expect, usize),
    Shred(usize),
    Rotate(usize),
    Disable(usize),
    Enable(usize),
    Reopen(usize),
}

/// Which eventsalsa the tables are of, and so in which order both writers write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writer {
    /// 0.0: reads the head, inserts events one by one, then moves the head.
    EventsFirst,
    /// 0.1 and later: moves the head, then inserts events one by one.
    HeadsFirst,
    /// The same on events that are partitioned by position, without any constraint but the primary key.
    Partitioned,
}

impl Writer {
    fn tables(self) -> PostgresTables {
        match self {
            Self::EventsFirst => PostgresTables::new(),
            Self::HeadsFirst | Self::Partitioned => PostgresTables::streams(),
        }
    }

    fn store(self) -> PostgresStore {
        PostgresStore::with_tables(self.tables()).unwrap()
    }

    async fn migrate(self, db: &Postgres) {
        match self {
            Self::EventsFirst => {}
            Self::HeadsFirst => self.store().migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap(),
            Self::Partitioned => db.partitioned(&[(1, 500), (500, 5_000)]).await,
        }
    }

    /// SQL in the names of these tables.
    fn sql(self, sql: &str) -> AssertSqlSafe<String> {
        let (heads, name) = if self == Self::EventsFirst { ("aggregate_heads", "aggregate") } else { ("stream_heads", "stream") };
        AssertSqlSafe(sql.replace("{heads}", heads).replace("{of}", name))
    }
}

/// How an operation ended that is not worth trying again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Done,
    Conflict,
    Shredded,
    Disabled,
    ScopeState,
}

// ---- the model

#[derive(Clone, Debug, PartialEq)]
struct Scope {
    state: ScopeState,
    generation: u32,
    /// Version and liveness of every key, oldest first.
    keys: Vec<bool>,
    active: Option<usize>,
}

impl Scope {
    fn new() -> Self {
        Self { state: ScopeState::Live, generation: 1, keys: Vec::new(), active: None }
    }

    fn add_key(&mut self) {
        self.active = Some(self.keys.len());
        self.keys.push(true);
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    scopes: [Option<Scope>; 2],
    /// Each event by the scope and key that sealed it; `None` for those of the foreign writer.
    streams: [Vec<Option<(usize, usize)>>; 2],
}

impl World {
    /// Applies an operation to the world, as if nothing else ran.
    fn apply(&mut self, op: &Op, heads: [usize; 2]) -> Outcome {
        match op {
            Op::Append(expect, appends) => {
                for (stream, scopes) in appends {
                    for scope in scopes {
                        match self.scopes[*scope].as_ref().map(|scope| scope.state) {
                            Some(ScopeState::Shredded) => return Outcome::Shredded,
                            Some(ScopeState::Disabled) => return Outcome::Disabled,
                            _ => {}
                        }
                    }
                    for scope in scopes {
                        let scope = self.scopes[*scope].get_or_insert_with(Scope::new);
                        if scope.active.is_none() {
                            scope.add_key();
                        }
                    }
                    if !expect.fits(self.streams[*stream].len(), heads[*stream]) {
                        return Outcome::Conflict;
                    }
                    for scope in scopes {
                        let key = self.scopes[*scope].as_ref().unwrap().active.unwrap();
                        self.streams[*stream].push(Some((*scope, key)));
                    }
                }
                Outcome::Done
            }
            Op::Foreign(expect, stream) => {
                if !expect.fits(self.streams[*stream].len(), heads[*stream]) {
                    return Outcome::Conflict;
                }
                self.streams[*stream].push(None);
                Outcome::Done
            }
            Op::Shred(scope) => {
                let scope = self.scopes[*scope].get_or_insert_with(Scope::new);
                scope.state = ScopeState::Shredded;
                scope.active = None;
                scope.keys.fill(false);
                Outcome::Done
            }
            Op::Rotate(scope) => match &mut self.scopes[*scope] {
                Some(scope) if scope.state == ScopeState::Live => {
                    scope.add_key();
                    Outcome::Done
                }
                Some(scope) if scope.state == ScopeState::Shredded => Outcome::Shredded,
                Some(_) => Outcome::Disabled,
                None => Outcome::ScopeState,
            },
            Op::Disable(scope) => self.switch(*scope, ScopeState::Live, ScopeState::Disabled),
            Op::Enable(scope) => self.switch(*scope, ScopeState::Disabled, ScopeState::Live),
            Op::Reopen(scope) => match &mut self.scopes[*scope] {
                Some(scope) if scope.state == ScopeState::Shredded => {
                    scope.state = ScopeState::Live;
                    scope.generation += 1;
                    scope.add_key();
                    Outcome::Done
                }
                _ => Outcome::ScopeState,
            },
        }
    }

    fn switch(&mut self, scope: usize, from: ScopeState, to: ScopeState) -> Outcome {
        match &mut self.scopes[scope] {
            Some(scope) if scope.state == from => {
                scope.state = to;
                Outcome::Done
            }
            _ => Outcome::ScopeState,
        }
    }
}

// ---- running it

type Store = SealedStore<PostgresStore>;

/// When a transaction of a round goes on.
#[derive(Clone, Copy, Debug)]
enum Schedule {
    Free,
    /// The others begin when the first has done its work; it commits when each of them is done or waits for a lock.
    Hold,
    /// The first takes its snapshot, the others run to their end, then the first does its work.
    Snapshot,
}

struct Lane {
    db: Arc<Postgres>,
    stores: Arc<Vec<Store>>,
    writer: Writer,
    names: [String; 2],
    world: World,
    random: Random,
}

struct Ran {
    op: Op,
    /// `None`: it was rolled back and may be tried again.
    outcome: Option<Outcome>,
    deadlock: bool,
    began: Instant,
    ended: Instant,
}

impl Lane {
    fn fresh(&mut self) {
        self.names = [Uuid::now_v7().to_string(), Uuid::now_v7().to_string()];
        self.world = World::default();
    }

    async fn round(&mut self, level: &'static str, ops: Vec<Op>, schedule: Schedule, counts: &Counts) {
        let heads = [self.world.streams[0].len(), self.world.streams[1].len()];
        let (first_done, others_may) = watch::channel(matches!(schedule, Schedule::Free));
        let (others_ended, first_may) = watch::channel(0_usize);
        let (others_ended, first_done) = (Arc::new(others_ended), Arc::new(first_done));
        let others = ops.len() - 1;
        let pids: Arc<Mutex<Vec<i32>>> = Arc::default();
        let mut tasks = Vec::new();
        for (index, op) in ops.into_iter().enumerate() {
            let (db, stores, names) = (Arc::clone(&self.db), Arc::clone(&self.stores), self.names.clone());
            let (first_done, others_ended, pids) = (Arc::clone(&first_done), Arc::clone(&others_ended), Arc::clone(&pids));
            let (mut others_may, mut first_may) = (others_may.clone(), first_may.clone());
            let (store, writer) = (self.random.below(stores.len()), self.writer);
            tasks.push(tokio::spawn(async move {
                let is_first = index == 0;
                let begin = AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"));
                let mut tx = db.pool.begin_with(begin).await.unwrap();
                let snapshot = Instant::now();
                match (schedule, is_first) {
                    (Schedule::Free, _) => {}
                    (Schedule::Hold, true) => {}
                    (Schedule::Hold | Schedule::Snapshot, false) => {
                        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.unwrap();
                        pids.lock().unwrap().push(pid);
                        others_may.wait_for(|go| *go).await.unwrap();
                    }
                    (Schedule::Snapshot, true) => {
                        sqlx::query("SELECT 1").fetch_one(&mut *tx).await.unwrap();
                        first_done.send(true).unwrap();
                        first_may.wait_for(|ended| *ended == others).await.unwrap();
                    }
                }
                let began = Instant::now();
                let result = run(&stores[store], writer, &mut tx, &op, &names, heads).await;
                let deadlock = result.as_ref().is_err_and(is_deadlock);
                if is_first && matches!(schedule, Schedule::Hold) {
                    first_done.send(true).unwrap();
                    db.until_done_or_waiting(&pids, others, &first_may).await;
                }
                let outcome = finish(tx, result).await;
                let ended = Instant::now();
                if !is_first {
                    others_ended.send_modify(|ended| *ended += 1);
                }
                // What wrote nothing may have looked at an old snapshot, but for READ COMMITTED.
                let looked = level != "READ COMMITTED" && outcome != Some(Outcome::Done);
                Ran { op, outcome, deadlock, began: if looked { snapshot } else { began }, ended }
            }));
        }
        let mut ran = Vec::new();
        for task in tasks {
            ran.push(task.await.unwrap());
        }
        for one in &ran {
            match one.outcome {
                None => counts.collisions.fetch_add(1, Ordering::Relaxed),
                Some(Outcome::Done) => counts.done.fetch_add(1, Ordering::Relaxed),
                Some(_) => counts.refused.fetch_add(1, Ordering::Relaxed),
            };
        }
        let ours = ran.iter().filter(|ran| ran.outcome.is_none() && matches!(ran.op, Op::Append(..))).count();
        counts.ours.fetch_add(ours, Ordering::Relaxed);
        counts.deadlocks.fetch_add(ran.iter().filter(|ran| ran.deadlock).count(), Ordering::Relaxed);
        let observed = self.observe().await;
        let committed: Vec<&Ran> = ran.iter().filter(|ran| ran.outcome.is_some()).collect();
        let explained = orders(committed.len()).into_iter().any(|order| {
            // What ended before another began came before it.
            let possible = order
                .iter()
                .enumerate()
                .all(|(at, one)| order[at + 1..].iter().all(|later| committed[*later].ended >= committed[*one].began));
            let mut world = self.world.clone();
            possible
                && order.iter().all(|index| {
                    let ran = committed[*index];
                    let mut after = world.clone();
                    let outcome = after.apply(&ran.op, heads);
                    // A refusal for the keys' sake is rolled back; after a conflict of versions the transaction goes on.
                    if matches!(outcome, Outcome::Done | Outcome::Conflict) {
                        world = after;
                    }
                    Some(outcome) == ran.outcome
                })
                && world == observed
        });
        assert!(
            explained,
            "no order explains this round at {level}, {schedule:?}\nbefore   {:?}\nobserved {observed:?}\n{}",
            self.world,
            ran.iter().map(|ran| format!("{:?} -> {:?}\n", ran.op, ran.outcome)).collect::<String>()
        );
        self.world = observed;
    }

    /// The world as the tables and a reader show it.
    async fn observe(&self) -> World {
        let mut connection = self.db.pool.acquire().await.unwrap();
        let mut world = World::default();
        let mut keys = HashMap::new();
        for (index, name) in self.names.iter().enumerate() {
            let scope = KeyScope::new("Customer", name.as_str());
            let Some(history) = PostgresKeys::new().history(&mut connection, &scope).await.unwrap() else { continue };
            assert!(history.keys.iter().zip(1..).all(|(key, version)| key.version == version), "key versions have gaps");
            for key in &history.keys {
                keys.insert(key.key_id, (index, key.version as usize - 1));
            }
            world.scopes[index] = Some(Scope {
                state: history.state,
                generation: history.generation,
                keys: history.keys.iter().map(|key| key.shredded_at.is_none()).collect(),
                active: history.active_key.map(|active| history.keys.iter().position(|key| key.key_id == active).unwrap()),
            });
            let wrapped: i64 =
                sqlx::query_scalar("SELECT count(wrapped_key) FROM data_keys WHERE scope_kind = 'Customer' AND scope_id = $1")
                    .bind(name)
                    .fetch_one(&mut *connection)
                    .await
                    .unwrap();
            let live = history.keys.iter().filter(|key| key.shredded_at.is_none()).count();
            assert_eq!(wrapped as usize, live, "I5: a wrapped key is left under a tombstone");
            assert!(history.state != ScopeState::Shredded || live == 0, "I5: a key of a shredded scope is live");
        }
        // A reader without a cache, in a statement that begins after all of it. A disabled scope is an error for a reader.
        let disabled = world.scopes.iter().flatten().any(|scope| scope.state == ScopeState::Disabled);
        for (index, name) in self.names.iter().enumerate() {
            let stream = aggregate("Order", name.as_str());
            let raw = self.writer.store().read_stream(&mut connection, &stream).await.unwrap();
            assert!(raw.events.iter().zip(1..).all(|(event, version)| event.aggregate_version.get() == version), "I8: versions have gaps");
            let head = self.writer.sql("SELECT {of}_version FROM {heads} WHERE {of}_type = 'Order' AND {of}_id = $1");
            let head: Option<i64> = sqlx::query_scalar(head).bind(name).fetch_optional(&mut *connection).await.unwrap();
            assert_eq!(head, raw.last_version.map(AggregateVersion::get), "the head is not where the events are");
            for event in &raw.events {
                let payload: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
                let key = payload["$seal"].as_str().map(|seal| keys.get(&key_of(seal)).copied());
                assert_ne!(key, Some(None), "I6: an event was committed without its key");
                assert!(key.is_some() != (event.event_type.as_str() == "Noted"), "I2: an event was stored in the clear");
                world.streams[index].push(key.flatten());
            }
            if !disabled {
                let read = self.stores[0].read_stream(&mut connection, &stream).await.unwrap();
                for (event, key) in read.events.iter().zip(&world.streams[index]) {
                    let live = key.is_none_or(|(scope, key)| world.scopes[scope].as_ref().unwrap().keys[key]);
                    assert_eq!(event.is_redacted(), !live, "I5: what a reader sees does not follow the key rows");
                    assert!(!live || key.is_none() || String::from_utf8_lossy(&event.payload).contains("Ada"));
                }
            }
        }
        world
    }
}

/// Where a header's data keys begin: see docs/format.md.
const HEADER_KEYS: usize = 38;

/// The id of a header's first data key.
fn key_of(seal: &str) -> KeyId {
    use base64::Engine;
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(seal).unwrap();
    KeyId(Uuid::from_slice(&header[HEADER_KEYS..HEADER_KEYS + 16]).unwrap())
}

fn is_deadlock(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.and_then(sqlx::Error::as_database_error).and_then(DatabaseError::code).as_deref() == Some("40P01")
}

async fn run(store: &Store, writer: Writer, tx: &mut PgConnection, op: &Op, names: &[String; 2], heads: [usize; 2]) -> Result<()> {
    let scope = |scope: &usize| KeyScope::new("Customer", &*names[*scope]);
    let expected = |expect: &Expect, stream: usize| match (expect, heads[stream]) {
        (Expect::Any, _) => ExpectedVersion::Any,
        (Expect::NoStream, _) | (_, 0) => ExpectedVersion::NoStream,
        (Expect::Exact, head) => ExpectedVersion::Exact(AggregateVersion::try_from(head as i64).unwrap()),
    };
    match op {
        Op::Append(expect, appends) => {
            for (stream, scopes) in appends {
                let expected = expected(expect, *stream);
                let placed = |scope: &usize| NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{}","name":"Ada"}}"#, names[*scope]));
                let events: Vec<NewEvent> = scopes.iter().map(placed).collect();
                store.append(tx, &aggregate("Order", &*names[*stream]), expected, &events).await?;
            }
            Ok(())
        }
        Op::Foreign(expect, stream) => {
            let (aggregate, expected) = (aggregate("Order", &*names[*stream]), expected(expect, *stream));
            let written = match writer {
                Writer::EventsFirst => events_first(writer, tx, &names[*stream], expected).await,
                Writer::HeadsFirst | Writer::Partitioned => heads_first(writer, tx, &names[*stream], expected).await,
            };
            match written {
                Ok(true) => Ok(()),
                Ok(false) => Err(Error::VersionConflict { aggregate, expected, actual: None }),
                Err(source) => {
                    let state = source.as_database_error().and_then(DatabaseError::code).map(Cow::into_owned);
                    Err(match state.as_deref() {
                        Some("23505" | "40001" | "40P01") => Error::Collision { source: Some(source.into()) },
                        _ => Error::Database { operation: "writing as eventsalsa does", source: source.into() },
                    })
                }
            }
        }
        Op::Shred(index) => store.keys().shred(tx, &scope(index), "race").await.map(drop),
        Op::Rotate(index) => store.keys().rotate_data_key(tx, &scope(index)).await.map(drop),
        Op::Disable(index) => store.keys().disable(tx, &scope(index), "race").await,
        Op::Enable(index) => store.keys().enable(tx, &scope(index), "race").await,
        Op::Reopen(index) => store.keys().reopen(tx, &scope(index), "race").await.map(drop),
    }
}

/// `false` if the stream is not at the expected version.
async fn events_first(writer: Writer, tx: &mut PgConnection, name: &str, expected: ExpectedVersion) -> sqlx::Result<bool> {
    let head = writer.sql("SELECT {of}_version FROM {heads} WHERE {of}_type = 'Order' AND {of}_id = $1");
    let head: Option<i64> = sqlx::query_scalar(head).bind(name).fetch_optional(&mut *tx).await?;
    if !expected.accepts(head.map(|head| head.try_into().unwrap())) {
        return Ok(false);
    }
    let version = head.unwrap_or(0) + 1;
    insert(writer, tx, name, version).await?;
    let head = writer.sql(
        "INSERT INTO {heads} ({of}_type, {of}_id, {of}_version, updated_at) VALUES ('Order', $1, $2, now())
         ON CONFLICT ({of}_type, {of}_id) DO UPDATE SET {of}_version = $2, updated_at = now()",
    );
    sqlx::query(head).bind(name).bind(version).execute(tx).await?;
    Ok(true)
}

/// A new stream's head is inserted and may be there; one at a version is moved from there; at any version, it is counted up.
async fn heads_first(writer: Writer, tx: &mut PgConnection, name: &str, expected: ExpectedVersion) -> sqlx::Result<bool> {
    let (sql, at) = match expected {
        ExpectedVersion::NoStream => (
            "INSERT INTO {heads} ({of}_type, {of}_id, {of}_version, updated_at) VALUES ('Order', $1, $2 + 1, now()) RETURNING {of}_version",
            0,
        ),
        ExpectedVersion::Exact(version) => (
            "UPDATE {heads} SET {of}_version = {of}_version + 1, updated_at = now()
             WHERE {of}_type = 'Order' AND {of}_id = $1 AND {of}_version = $2 RETURNING {of}_version",
            version.get(),
        ),
        ExpectedVersion::Any => (
            "INSERT INTO {heads} AS h ({of}_type, {of}_id, {of}_version, updated_at) VALUES ('Order', $1, $2 + 1, now())
             ON CONFLICT ({of}_type, {of}_id) DO UPDATE SET {of}_version = h.{of}_version + excluded.{of}_version, updated_at = now()
             RETURNING {of}_version",
            0,
        ),
    };
    let version: Option<i64> = sqlx::query_scalar(writer.sql(sql)).bind(name).bind(at).fetch_optional(&mut *tx).await?;
    match version {
        Some(version) => insert(writer, tx, name, version).await.map(|()| true),
        None => Ok(false),
    }
}

async fn insert(writer: Writer, tx: &mut PgConnection, name: &str, version: i64) -> sqlx::Result<()> {
    let sql = writer.sql(
        "INSERT INTO events ({of}_type, {of}_id, {of}_version, event_id, event_type, payload, created_at)
         VALUES ('Order', $1, $2, $3, 'Noted', '{}', now())",
    );
    sqlx::query(sql).bind(name).bind(version).bind(Uuid::now_v7()).execute(tx).await.map(drop)
}

/// Ends a transaction as an application would.
async fn finish(mut tx: Transaction<'static, sqlx::Postgres>, result: Result<()>) -> Option<Outcome> {
    let outcome = match result {
        Ok(()) => Outcome::Done,
        Err(error) if error.is_conflict() => {
            // The loser's transaction stays usable.
            sqlx::query("SELECT 1").fetch_one(&mut *tx).await.expect("a conflict of versions aborted the transaction");
            Outcome::Conflict
        }
        Err(Error::Shredded { .. }) => Outcome::Shredded,
        Err(Error::Disabled { .. }) => Outcome::Disabled,
        Err(Error::ScopeState { .. }) => Outcome::ScopeState,
        Err(error) if error.is_retryable() => return None,
        Err(error) => panic!("{error}: {error:?}"),
    };
    if !matches!(outcome, Outcome::Done | Outcome::Conflict) {
        tx.rollback().await.unwrap();
        return Some(outcome);
    }
    match tx.commit().await {
        Ok(()) => Some(outcome),
        Err(error) => {
            let state = error.as_database_error().and_then(DatabaseError::code).map(Cow::into_owned);
            assert_eq!(state.as_deref(), Some("40001"), "{error}");
            None
        }
    }
}

trait Waiting {
    async fn until_done_or_waiting(&self, pids: &Mutex<Vec<i32>>, others: usize, ended: &watch::Receiver<usize>);
}

impl Waiting for Postgres {
    async fn until_done_or_waiting(&self, pids: &Mutex<Vec<i32>>, others: usize, ended: &watch::Receiver<usize>) {
        let mut connection = self.pool.acquire().await.unwrap();
        loop {
            let pids = pids.lock().unwrap().clone();
            let waiting: i64 =
                sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND wait_event_type = 'Lock'")
                    .bind(&pids)
                    .fetch_one(&mut *connection)
                    .await
                    .unwrap();
            if *ended.borrow() + waiting as usize >= others {
                return;
            }
        }
    }
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for order in orders(count - 1) {
        for at in 0..=order.len() {
            let mut order = order.clone();
            order.insert(at, count - 1);
            all.push(order);
        }
    }
    all
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

#[derive(Default)]
struct Counts {
    done: AtomicUsize,
    refused: AtomicUsize,
    collisions: AtomicUsize,
    /// Of the collisions, those of our own appends.
    ours: AtomicUsize,
    deadlocks: AtomicUsize,
}

/// Where a round of a race starts.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    /// From nothing: no scope, no stream.
    Fresh,
    /// From where the round before ended, if the scopes are usable; else from nothing.
    Usable,
    /// From wherever the round before ended.
    Anywhere,
}

/// What a race may come to.
#[derive(Clone, Copy, PartialEq)]
enum Allowed {
    /// At READ COMMITTED nothing has to be tried again.
    Nothing,
    /// At READ COMMITTED the other writer may have to try again, ours has not. Nobody waits for somebody who waits for him.
    TheirCollisions,
    Deadlocks,
}

/// Runs the race over the tables of one version of eventsalsa.
async fn race(writer: Writer, start: Start, allowed: Allowed, contenders: impl Fn(&mut Random) -> Vec<Op> + Send + Sync + 'static) {
    let number = |name: &str, default: usize| std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"));
    let (rounds, seed) = (number("RACES", 2_000), number("RACE_SEED", Uuid::now_v7().as_u128() as usize >> 3));
    let db = Arc::new(Postgres::new().await);
    if writer != Writer::EventsFirst {
        sqlx::raw_sql("DROP TABLE events, aggregate_heads, _events_migrations").execute(&db.pool).await.unwrap();
    }
    writer.migrate(&db).await;
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let placed = || event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"));
    let schemas = || Schemas::builder([placed(), event("Noted").version(1).unprotected("what the other writer writes")]).build().unwrap();
    let mut stores = Vec::new();
    for _ in 0..3 {
        let store = SealedStore::new(writer.store(), PostgresKeys::new(), Arc::clone(&keyring), schemas());
        store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
        stores.push(store);
    }
    let (stores, contenders) = (Arc::new(stores), Arc::new(contenders));
    for (number, level) in LEVELS.into_iter().enumerate() {
        let (counts, left) = (Arc::new(Counts::default()), Arc::new(AtomicUsize::new(rounds)));
        let lanes = (0..LANES).map(|lane| {
            let (db, stores, contenders) = (Arc::clone(&db), Arc::clone(&stores), Arc::clone(&contenders));
            let (counts, left) = (Arc::clone(&counts), Arc::clone(&left));
            tokio::spawn(async move {
                let random = Random(seed as u64 + 1_000 * number as u64 + lane as u64);
                let mut lane = Lane { db, stores, writer, names: Default::default(), world: World::default(), random };
                lane.fresh();
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    let usable = lane.world.scopes.iter().flatten().all(|scope| scope.state == ScopeState::Live);
                    let long = lane.world.streams.iter().any(|stream| stream.len() > 12);
                    if start == Start::Fresh || long || (start == Start::Usable && !usable) || lane.random.below(6) == 0 {
                        lane.fresh();
                    }
                    let ops = contenders(&mut lane.random);
                    let schedule = lane.random.pick(&[Schedule::Free, Schedule::Free, Schedule::Hold, Schedule::Snapshot]);
                    lane.round(level, ops, schedule, &counts).await;
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap_or_else(|error| panic!("RACE_SEED={seed}: {error}"));
        }
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        println!(
            "{level}: {rounds} rounds, {} transactions committed, {} refused, {} to be tried again, {} of them deadlocks",
            count(&counts.done),
            count(&counts.refused),
            count(&counts.collisions),
            count(&counts.deadlocks)
        );
        assert!(count(&counts.done) > rounds / 3, "hardly any transaction got through");
        let calm = allowed == Allowed::Nothing && level == "READ COMMITTED";
        assert!(!calm || count(&counts.collisions) == 0, "a collision where one could have waited");
        let ours_calm = allowed == Allowed::TheirCollisions && level == "READ COMMITTED";
        assert!(!ours_calm || count(&counts.ours) == 0, "a conflict of versions was called a collision");
        assert!(allowed == Allowed::Deadlocks || count(&counts.deadlocks) == 0, "a deadlock where both take locks in one order");
    }
}

fn append(expect: Expect, stream: usize, scopes: &[usize]) -> Op {
    Op::Append(expect, vec![(stream, scopes.to_vec())])
}

/// In any order.
fn shuffled(random: &mut Random, mut ops: Vec<Op>) -> Vec<Op> {
    for last in (1..ops.len()).rev() {
        ops.swap(last, random.below(last + 1));
    }
    ops
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_appends_race_appends_in_every_mode() {
    race(Writer::EventsFirst, Start::Usable, Allowed::Nothing, |random| {
        let mut appender = || append(random.pick(&[Expect::Any, Expect::NoStream, Expect::Exact]), 0, &[0]);
        vec![appender(), appender(), appender()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_appends_race_the_shred_of_a_scope_with_keys() {
    race(Writer::EventsFirst, Start::Usable, Allowed::Nothing, |random| {
        let expect = random.pick(&[Expect::Any, Expect::Exact]);
        let ops = vec![append(expect, 0, &[0]), append(Expect::Any, 1, &[0, 1]), Op::Shred(0)];
        shuffled(random, ops)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i6_appends_race_the_shred_of_a_scope_that_was_never_seen() {
    race(Writer::EventsFirst, Start::Fresh, Allowed::Nothing, |random| {
        let ops = vec![append(Expect::NoStream, 0, &[0]), append(Expect::Any, 1, &[1, 0]), Op::Shred(0)];
        shuffled(random, ops)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_shreds_race_rotations_stops_and_reopenings() {
    race(Writer::EventsFirst, Start::Anywhere, Allowed::Nothing, |random| {
        let other = random.pick(&[Op::Rotate(0), Op::Disable(0), Op::Enable(0), Op::Reopen(0), Op::Shred(0)]);
        let more = random.pick(&[append(Expect::Any, 0, &[0]), Op::Rotate(0), Op::Reopen(0)]);
        let ops = vec![Op::Shred(0), other, more];
        shuffled(random, ops)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i6_anything_races_anything() {
    race(Writer::EventsFirst, Start::Anywhere, Allowed::Deadlocks, |random| {
        let all = [
            append(Expect::Any, 0, &[0]),
            append(Expect::Any, 0, &[1, 0]),
            append(Expect::Exact, 1, &[0, 1]),
            Op::Foreign(Expect::Any, 0),
            Op::Shred(0),
            Op::Rotate(0),
            Op::Rotate(1),
            Op::Disable(0),
            Op::Enable(0),
            Op::Reopen(0),
        ];
        (0..4).map(|_| random.pick(&all)).collect()
    })
    .await;
}

/// Deadlocks are to be tried again, and lose nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_over_scopes_and_aggregates_in_opposite_order() {
    race(Writer::EventsFirst, Start::Fresh, Allowed::Deadlocks, |random| {
        let there = Op::Append(Expect::Any, vec![(0, vec![0]), (1, vec![1])]);
        let back = Op::Append(Expect::Any, vec![(1, vec![1]), (0, vec![0])]);
        let third = random.pick(&[append(Expect::Any, 0, &[1, 0]), append(Expect::Any, 1, &[0, 1]), Op::Shred(1)]);
        vec![there, back, third]
    })
    .await;
}

/// Two of its transactions and one of ours on one stream, which is new or there already.
async fn against_eventsalsa(writer: Writer, start: Start) {
    race(writer, start, Allowed::TheirCollisions, |random| {
        let all = [Expect::Any, Expect::Exact, Expect::NoStream];
        let foreign = |random: &mut Random| Op::Foreign(random.pick(&all), 0);
        let ops = vec![foreign(random), append(random.pick(&all), 0, &[0]), foreign(random)];
        shuffled(random, ops)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_a_writer_of_eventsalsa_0_0_races_ours() {
    against_eventsalsa(Writer::EventsFirst, Start::Usable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_a_writer_of_eventsalsa_0_0_races_ours_on_new_streams() {
    against_eventsalsa(Writer::EventsFirst, Start::Fresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_a_writer_of_eventsalsa_0_1_races_ours() {
    against_eventsalsa(Writer::HeadsFirst, Start::Usable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_a_writer_of_eventsalsa_0_1_races_ours_on_new_streams() {
    against_eventsalsa(Writer::HeadsFirst, Start::Fresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_a_writer_of_eventsalsa_0_1_races_ours_on_partitions() {
    against_eventsalsa(Writer::Partitioned, Start::Usable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_a_writer_of_eventsalsa_0_1_races_ours_on_new_streams_in_partitions() {
    against_eventsalsa(Writer::Partitioned, Start::Fresh).await;
}

/// No constraint refuses a version twice there: the head alone does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_appends_race_appends_in_every_mode_on_partitions() {
    race(Writer::Partitioned, Start::Usable, Allowed::Nothing, |random| {
        let mut appender = || append(random.pick(&[Expect::Any, Expect::NoStream, Expect::Exact]), 0, &[0]);
        vec![appender(), appender(), appender()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_appends_that_take_heads_first_race_the_shred_of_a_scope() {
    race(Writer::HeadsFirst, Start::Usable, Allowed::Nothing, |random| {
        let expect = random.pick(&[Expect::Any, Expect::Exact]);
        let ops = vec![append(expect, 0, &[0]), append(Expect::Any, 1, &[0, 1]), Op::Shred(0)];
        shuffled(random, ops)
    })
    .await;
}
