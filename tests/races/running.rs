//! Runs transactions against each other, and asks the model whether the outcome can be explained. The file is long
//! because schedules, lanes and verdicts are read together.

use super::{Allowed, Expect, LANES, LEVELS, Op, Outcome, Random, Scope, Start, World, Writer};
use eventseal::error::KeyFault;
use eventseal::keys::KeyStore;
use eventseal::keys::{KeyId, ScopeState};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{
    AggregateVersion, Error, EventStore, EventStoreExt, ExpectedVersion, KeyScope, Keyring, NewEvent, Result, Schemas,
    SealedStore, aggregate, event, subject,
};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Transaction};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Deadline, Postgres};
use tokio::sync::watch;
use uuid::Uuid;

type Store = SealedStore<PostgresStore>;

/// The order in which the transactions of a round run.
#[derive(Clone, Copy, Debug)]
enum Schedule {
    Free,
    /// The others begin when the first has done its work; it commits when each of them is done or waits for a lock.
    Hold,
    /// The first takes its snapshot, the others run to their end, then the first does its work.
    Snapshot,
}

struct Lane {
    pool: PgPool,
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
            let (pool, stores, names) = (self.pool.clone(), Arc::clone(&self.stores), self.names.clone());
            let (first_done, others_ended, pids) =
                (Arc::clone(&first_done), Arc::clone(&others_ended), Arc::clone(&pids));
            let (mut others_may, mut first_may) = (others_may.clone(), first_may.clone());
            let (store, writer) = (self.random.below(stores.len()), self.writer);
            tasks.push(tokio::spawn(async move {
                let is_first = index == 0;
                let begin = AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"));
                let mut tx = pool.begin_with(begin).await.unwrap();
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
                    until_done_or_waiting(&pool, &pids, others, &first_may).await;
                }
                let outcome = finish(tx, result).await;
                let ended = Instant::now();
                if !is_first {
                    others_ended.send_modify(|ended| *ended += 1);
                }
                // A transaction that wrote nothing may have read an old snapshot, except at READ COMMITTED.
                let looked = level != "READ COMMITTED" && outcome != Some(Outcome::Done);
                Ran { op, outcome, deadlock, began: if looked { snapshot } else { began }, ended }
            }));
        }
        let mut ran = Vec::new();
        for task in tasks {
            ran.push(task.await.unwrap());
        }
        counts.add(&ran);
        let observed = self.observe().await;
        self.explain(&ran, heads, &observed, (level, schedule));
        self.world = observed;
    }

    fn explain(&self, ran: &[Ran], heads: [usize; 2], observed: &World, (level, schedule): (&str, Schedule)) {
        assert!(
            self.explained(ran, heads, observed),
            "no order explains this round at {level}, {schedule:?}\nbefore   {:?}\nobserved {observed:?}\n{}",
            self.world,
            ran.iter().map(|ran| format!("{:?} -> {:?}\n", ran.op, ran.outcome)).collect::<String>()
        );
    }

    /// Is there an order of the committed transactions that gives the observed world?
    fn explained(&self, ran: &[Ran], heads: [usize; 2], observed: &World) -> bool {
        let committed: Vec<&Ran> = ran.iter().filter(|ran| ran.outcome.is_some()).collect();
        orders(committed.len()).into_iter().any(|order| {
            // A transaction that ended before another began comes before it.
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
                    // A refusal for the keys' sake is rolled back; after a conflict of versions the transaction goes
                    // on.
                    if matches!(outcome, Outcome::Done | Outcome::Conflict) {
                        world = after;
                    }
                    Some(outcome) == ran.outcome
                })
                && world == *observed
        })
    }

    /// The world as the tables and a reader show it.
    async fn observe(&self) -> World {
        let mut connection = self.pool.acquire().await.unwrap();
        let mut world = World::default();
        let mut keys = HashMap::new();
        let wrapped: Vec<(String, i64)> = sqlx::query_as(
            "SELECT scope_id, count(wrapped_key) FROM data_keys
             WHERE scope_kind = 'Customer' AND scope_id = ANY ($1) GROUP BY scope_id",
        )
        .bind(&self.names[..])
        .fetch_all(&mut *connection)
        .await
        .unwrap();
        let wrapped: HashMap<String, i64> = wrapped.into_iter().collect();
        for (index, name) in self.names.iter().enumerate() {
            let scope = KeyScope::new("Customer", name.as_str());
            let Some(history) = PostgresKeys::new().history(&mut connection, &scope).await.unwrap() else { continue };
            assert!(
                history.keys.iter().zip(1..).all(|(key, version)| key.version == version),
                "key versions have gaps"
            );
            for key in &history.keys {
                keys.insert(key.key_id, (index, key.version as usize - 1));
            }
            world.scopes[index] = Some(Scope {
                state: history.state,
                generation: history.generation,
                keys: history.keys.iter().map(|key| key.shredded_at.is_none()).collect(),
                active: history
                    .active_key
                    .map(|active| history.keys.iter().position(|key| key.key_id == active).unwrap()),
            });
            let wrapped = wrapped.get(name).copied().unwrap_or(0);
            let live = history.keys.iter().filter(|key| key.shredded_at.is_none()).count();
            assert_eq!(wrapped as usize, live, "I5: a wrapped key is left under a tombstone");
            assert!(history.state != ScopeState::Shredded || live == 0, "I5: a key of a shredded scope is live");
        }
        self.observe_streams(&mut connection, &mut world, &keys).await;
        world
    }

    /// The stored events of the streams, compared with what a reader sees.
    async fn observe_streams(
        &self,
        connection: &mut PgConnection,
        world: &mut World,
        keys: &HashMap<KeyId, (usize, usize)>,
    ) {
        // A reader without a cache, in a statement that begins after all of it. A disabled scope is an error for a
        // reader.
        let heads = "SELECT {of}_id, {of}_version FROM {heads} WHERE {of}_type = 'Order' AND {of}_id = ANY ($1)";
        let heads = sqlx::query_as(self.writer.sql(heads)).bind(&self.names[..]);
        let heads: Vec<(String, i64)> = heads.fetch_all(&mut *connection).await.unwrap();
        let disabled = world.scopes.iter().flatten().any(|scope| scope.state == ScopeState::Disabled);
        for (index, name) in self.names.iter().enumerate() {
            let stream = aggregate("Order", name.as_str());
            let raw = self.writer.store().read_stream(&mut *connection, &stream).await.unwrap();
            assert!(
                raw.events.iter().zip(1..).all(|(event, version)| event.aggregate_version.get() == version),
                "I8: versions have gaps"
            );
            let head = heads.iter().find(|(of, _)| of == name).map(|(_, head)| *head);
            assert_eq!(head, raw.last_version.map(AggregateVersion::get), "the head is not where the events are");
            for event in &raw.events {
                let payload: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
                let key = payload["$seal"].as_str().map(|seal| keys.get(&key_of(seal)).copied());
                assert_ne!(key, Some(None), "I6: an event was committed without its key");
                assert!(
                    key.is_some() != (event.event_type.as_str() == "Noted"),
                    "I2: an event was stored in the clear"
                );
                world.streams[index].push(key.flatten());
            }
            if !disabled {
                let read = self.stores[0].read_stream(&mut *connection, &stream).await.unwrap();
                for (event, key) in read.events.iter().zip(&world.streams[index]) {
                    let live = key.is_none_or(|(scope, key)| world.scopes[scope].as_ref().unwrap().keys[key]);
                    assert_eq!(event.is_redacted(), !live, "I5: what a reader sees does not follow the key rows");
                    assert!(!live || key.is_none() || String::from_utf8_lossy(&event.payload).contains("Ada"));
                }
            }
        }
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

async fn run(
    store: &Store,
    writer: Writer,
    tx: &mut PgConnection,
    op: &Op,
    names: &[String; 2],
    heads: [usize; 2],
) -> Result<()> {
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
                let placed = |scope: &usize| {
                    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{}","name":"Ada"}}"#, names[*scope]))
                };
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
async fn events_first(
    writer: Writer,
    tx: &mut PgConnection,
    name: &str,
    expected: ExpectedVersion,
) -> sqlx::Result<bool> {
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

/// A new stream's head is inserted and may be there; one at a version is moved from there; at any version, it is
/// counted up.
async fn heads_first(
    writer: Writer,
    tx: &mut PgConnection,
    name: &str,
    expected: ExpectedVersion,
) -> sqlx::Result<bool> {
    let (sql, at) = match expected {
        ExpectedVersion::NoStream => (
            "INSERT INTO {heads} ({of}_type, {of}_id, {of}_version, updated_at) VALUES ('Order', $1, $2 + 1, now()) \
             RETURNING {of}_version",
            0,
        ),
        ExpectedVersion::Exact(version) => (
            "UPDATE {heads} SET {of}_version = {of}_version + 1, updated_at = now()
             WHERE {of}_type = 'Order' AND {of}_id = $1 AND {of}_version = $2 RETURNING {of}_version",
            version.get(),
        ),
        ExpectedVersion::Any => (
            "INSERT INTO {heads} AS h ({of}_type, {of}_id, {of}_version, updated_at) VALUES ('Order', $1, $2 + 1, now())
             ON CONFLICT ({of}_type, {of}_id) DO UPDATE SET {of}_version = h.{of}_version + excluded.{of}_version,
                 updated_at = now()
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
        Err(Error::Keys(KeyFault::ScopeState { .. })) => Outcome::ScopeState,
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

async fn until_done_or_waiting(pool: &PgPool, pids: &Mutex<Vec<i32>>, others: usize, ended: &watch::Receiver<usize>) {
    let mut connection = pool.acquire().await.unwrap();
    let deadline = Deadline::of("for transactions to end or to wait for a lock");
    let mut next = ended.clone();
    loop {
        deadline.check();
        let pids = pids.lock().unwrap().clone();
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND wait_event_type = 'Lock'",
        )
        .bind(&pids)
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if *ended.borrow() + waiting as usize >= others {
            return;
        }
        // Each question costs both processes more than a statement does, and the transactions that are awaited need the
        // cores.
        drop(tokio::time::timeout(Duration::from_millis(1), next.changed()).await);
    }
}

/// Every order of `count` things.
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

#[derive(Default)]
struct Counts {
    done: AtomicUsize,
    refused: AtomicUsize,
    collisions: AtomicUsize,
    /// The collisions of our own appends.
    ours: AtomicUsize,
    deadlocks: AtomicUsize,
}

impl Counts {
    fn add(&self, ran: &[Ran]) {
        for one in ran {
            match one.outcome {
                None => self.collisions.fetch_add(1, Ordering::Relaxed),
                Some(Outcome::Done) => self.done.fetch_add(1, Ordering::Relaxed),
                Some(_) => self.refused.fetch_add(1, Ordering::Relaxed),
            };
        }
        let ours = ran.iter().filter(|ran| ran.outcome.is_none() && matches!(ran.op, Op::Append(..))).count();
        self.ours.fetch_add(ours, Ordering::Relaxed);
        self.deadlocks.fetch_add(ran.iter().filter(|ran| ran.deadlock).count(), Ordering::Relaxed);
    }

    fn check(&self, level: &str, rounds: usize, allowed: Allowed) {
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        println!(
            "{level}: {rounds} rounds, {} transactions committed, {} refused, {} to be tried again, {} of them \
             deadlocks",
            count(&self.done),
            count(&self.refused),
            count(&self.collisions),
            count(&self.deadlocks)
        );
        assert!(count(&self.done) > rounds / 3, "hardly any transaction got through");
        let calm = allowed == Allowed::Nothing && level == "READ COMMITTED";
        assert!(!calm || count(&self.collisions) == 0, "a collision where one could have waited");
        let ours_calm = allowed == Allowed::TheirCollisions && level == "READ COMMITTED";
        assert!(!ours_calm || count(&self.ours) == 0, "a conflict of versions was called a collision");
        assert!(
            allowed == Allowed::Deadlocks || count(&self.deadlocks) == 0,
            "a deadlock where both take locks in one order"
        );
    }
}

/// Three processes.
async fn stores(db: &Postgres, writer: Writer) -> Vec<Store> {
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let placed = || event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"));
    let schemas = || {
        Schemas::builder([placed(), event("Noted").version(1).unprotected("what the other writer writes")])
            .build()
            .unwrap()
    };
    let mut stores = Vec::new();
    for _ in 0..3 {
        let store = SealedStore::new(writer.store(), PostgresKeys::new(), Arc::clone(&keyring), schemas());
        store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
        stores.push(store);
    }
    stores
}

/// Runs the race over the tables of one version of eventsalsa.
pub(super) async fn race(
    writer: Writer,
    start: Start,
    allowed: Allowed,
    contenders: impl Fn(&mut Random) -> Vec<Op> + Send + Sync + 'static,
) {
    let number =
        |name: &str, default: usize| std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"));
    let (rounds, seed) = (number("RACES", 2_000), number("RACE_SEED", Uuid::now_v7().as_u128() as usize >> 3));
    let db = Postgres::new().await;
    if writer != Writer::EventsFirst {
        sqlx::raw_sql("DROP TABLE events, aggregate_heads, _events_migrations").execute(&db.pool).await.unwrap();
    }
    writer.migrate(&db).await;
    let stores = stores(&db, writer).await;
    // A ping before each use would be a tenth of all statements.
    let pool = PgPoolOptions::new().max_connections(40).test_before_acquire(false);
    let pool = pool.connect_with(db.options.clone()).await.unwrap();
    let (stores, contenders) = (Arc::new(stores), Arc::new(contenders));
    for (number, level) in LEVELS.into_iter().enumerate() {
        let (counts, left) = (Arc::new(Counts::default()), Arc::new(AtomicUsize::new(rounds)));
        let lanes = (0..LANES).map(|lane| {
            let (pool, stores, contenders) = (pool.clone(), Arc::clone(&stores), Arc::clone(&contenders));
            let (counts, left) = (Arc::clone(&counts), Arc::clone(&left));
            tokio::spawn(async move {
                let random = Random(seed as u64 + 1_000 * number as u64 + lane as u64);
                let mut lane =
                    Lane { pool, stores, writer, names: Default::default(), world: World::default(), random };
                lane.fresh();
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    let usable = lane.world.scopes.iter().flatten().all(|scope| scope.state == ScopeState::Live);
                    let long = lane.world.streams.iter().any(|stream| stream.len() > 12);
                    if start == Start::Fresh || long || (start == Start::Usable && !usable) || lane.random.below(6) == 0
                    {
                        lane.fresh();
                    }
                    let ops = contenders(&mut lane.random);
                    let schedule =
                        lane.random.pick(&[Schedule::Free, Schedule::Free, Schedule::Hold, Schedule::Snapshot]);
                    lane.round(level, ops, schedule, &counts).await;
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap_or_else(|error| panic!("RACE_SEED={seed}: {error}"));
        }
        counts.check(level, rounds, allowed);
    }
}
