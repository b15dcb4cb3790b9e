//! Runs transactions against each other, and asks the model whether the outcome can be explained. The file is long
//! because schedules, lanes and verdicts are read together.

use super::{Allowed, Expect, LANES, LEVELS, Op, Outcome, Random, Start, World, Writer};
use eventseal::error::KeyFault;
use eventseal::keys::ScopeState;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{
    AggregateVersion, Error, EventStore, ExpectedVersion, KeyScope, Keyring, NewEvent, Result, Schemas, SealedStore,
    aggregate, event, subject,
};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Transaction};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::two_steps::TwoSteps;
use support::{Deadline, Postgres};
use tokio::sync::{Mutex, Semaphore, watch};
use uuid::Uuid;

pub(super) type Store = SealedStore<PostgresStore>;

/// The order in which the transactions of a round run.
#[derive(Clone, Copy, Debug)]
enum Schedule {
    Free,
    /// The others begin when the first has done its work; it commits when each of them is done or waits for a lock.
    Hold,
    /// The first takes its snapshot, the others run to their end, then the first does its work.
    Snapshot,
}

/// A connection that stays with a lane, so that its statements are prepared once.
struct Session {
    connection: PgConnection,
    pid: i32,
}

impl Session {
    async fn connect(options: &PgConnectOptions) -> Self {
        let mut connection = PgConnection::connect_with(options).await.unwrap();
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
        Self { connection, pid }
    }
}

/// The connections of a lane: one for each transaction of a round, and one that looks on.
struct Sessions {
    options: PgConnectOptions,
    contenders: Vec<Session>,
    observer: Arc<Mutex<PgConnection>>,
}

impl Sessions {
    async fn new(options: &PgConnectOptions) -> Self {
        let observer = Session::connect(options).await.connection;
        Self { options: options.clone(), contenders: Vec::new(), observer: Arc::new(Mutex::new(observer)) }
    }

    /// Takes this many for a round.
    async fn take(&mut self, count: usize) -> Vec<Session> {
        while self.contenders.len() < count {
            self.contenders.push(Session::connect(&self.options).await);
        }
        self.contenders.split_off(self.contenders.len() - count)
    }
}

pub(super) struct Lane {
    sessions: Sessions,
    pub(super) stores: Arc<Vec<Store>>,
    pub(super) writer: Writer,
    pub(super) names: [String; 2],
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

/// What all transactions of a round know, and tell each other.
struct Round {
    level: &'static str,
    schedule: Schedule,
    stores: Arc<Vec<Store>>,
    writer: Writer,
    names: [String; 2],
    heads: [usize; 2],
    /// The processes that serve the transactions after the first.
    others: Vec<i32>,
    observer: Arc<Mutex<PgConnection>>,
    first_done: watch::Sender<bool>,
    others_ended: watch::Sender<usize>,
}

impl Round {
    /// Runs one transaction, in the order that the schedule has for it.
    async fn contend(&self, connection: &mut PgConnection, is_first: bool, op: Op, store: usize) -> Ran {
        let level = self.level;
        let begin = AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"));
        let mut tx = connection.begin_with(begin).await.unwrap();
        let snapshot = Instant::now();
        // At READ COMMITTED each statement has a snapshot of its own.
        if level != "READ COMMITTED" && self.takes_snapshot_early(is_first) {
            sqlx::query("SELECT 1").fetch_one(&mut *tx).await.unwrap();
        }
        match (self.schedule, is_first) {
            (Schedule::Free, _) | (Schedule::Hold, true) => {}
            (Schedule::Hold | Schedule::Snapshot, false) => {
                self.first_done.subscribe().wait_for(|go| *go).await.unwrap();
            }
            (Schedule::Snapshot, true) => {
                self.first_done.send_replace(true);
                self.others_ended.subscribe().wait_for(|ended| *ended == self.others.len()).await.unwrap();
            }
        }
        let began = Instant::now();
        let result = run(&self.stores[store], self.writer, &mut tx, &op, &self.names, self.heads).await;
        let deadlock = result.as_ref().is_err_and(is_deadlock);
        if is_first && matches!(self.schedule, Schedule::Hold) {
            self.first_done.send_replace(true);
            self.until_done_or_waiting().await;
        }
        let outcome = finish(tx, result).await;
        let ended = Instant::now();
        if !is_first {
            self.others_ended.send_modify(|ended| *ended += 1);
        }
        // A transaction that wrote nothing may have read an old snapshot, except at READ COMMITTED.
        let looked = level != "READ COMMITTED" && outcome != Some(Outcome::Done);
        Ran { op, outcome, deadlock, began: if looked { snapshot } else { began }, ended }
    }

    fn takes_snapshot_early(&self, is_first: bool) -> bool {
        match self.schedule {
            Schedule::Free => false,
            Schedule::Hold => !is_first,
            Schedule::Snapshot => true,
        }
    }

    /// Waits until each of the others is done, or waits for a lock.
    async fn until_done_or_waiting(&self) {
        let mut observer = self.observer.lock().await;
        let deadline = Deadline::of("for transactions to end or to wait for a lock");
        let mut next = self.others_ended.subscribe();
        loop {
            deadline.check();
            let ended = *next.borrow_and_update();
            // The view joins this function with tables that are not needed here.
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE pid = ANY ($1) AND wait_event_type = 'Lock'",
            )
            .bind(&self.others)
            .fetch_one(&mut *observer)
            .await
            .unwrap();
            if ended + waiting as usize >= self.others.len() {
                return;
            }
            // Each question costs both processes more than a statement does, and the transactions that are awaited need
            // the cores.
            drop(tokio::time::timeout(Duration::from_millis(1), next.changed()).await);
        }
    }
}

impl Lane {
    async fn new(options: &PgConnectOptions, stores: &Arc<Vec<Store>>, writer: Writer) -> Self {
        let (sessions, stores) = (Sessions::new(options).await, Arc::clone(stores));
        Self { sessions, stores, writer, names: Default::default(), world: World::default(), random: Random(0) }
    }

    /// Runs rounds for as long as there are some left.
    async fn rounds(
        &mut self,
        level: &'static str,
        start: Start,
        contenders: impl Fn(&mut Random) -> Vec<Op>,
        left: &AtomicUsize,
        counts: &Counts,
    ) {
        self.fresh();
        while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            let usable = self.world.scopes.iter().flatten().all(|scope| scope.state == ScopeState::Live);
            let long = self.world.streams.iter().any(|stream| stream.len() > 12);
            if start == Start::Fresh || long || (start == Start::Usable && !usable) || self.random.below(6) == 0 {
                self.fresh();
            }
            let ops = contenders(&mut self.random);
            let schedule = self.random.pick(&[Schedule::Free, Schedule::Free, Schedule::Hold, Schedule::Snapshot]);
            self.round(level, ops, schedule, counts).await;
        }
    }

    fn fresh(&mut self) {
        self.names = [Uuid::now_v7().to_string(), Uuid::now_v7().to_string()];
        self.world = World::default();
    }

    async fn round(&mut self, level: &'static str, ops: Vec<Op>, schedule: Schedule, counts: &Counts) {
        let heads = [self.world.streams[0].len(), self.world.streams[1].len()];
        let sessions = self.sessions.take(ops.len()).await;
        let round = Arc::new(Round {
            level,
            schedule,
            stores: Arc::clone(&self.stores),
            writer: self.writer,
            names: self.names.clone(),
            heads,
            others: sessions[1..].iter().map(|session| session.pid).collect(),
            observer: Arc::clone(&self.sessions.observer),
            first_done: watch::Sender::new(matches!(schedule, Schedule::Free)),
            others_ended: watch::Sender::new(0),
        });
        // All of them append in one way, or each in its own.
        let processes = self.random.pick(&[&[0, 1][..], &[2, 3], &[0, 1, 2, 3]]);
        let mut tasks = Vec::new();
        for (index, (op, mut session)) in ops.into_iter().zip(sessions).enumerate() {
            let (round, store) = (Arc::clone(&round), self.random.pick(processes));
            tasks.push(tokio::spawn(async move {
                let ran = round.contend(&mut session.connection, index == 0, op, store).await;
                (ran, session)
            }));
        }
        let mut ran = Vec::new();
        for task in tasks {
            let (one, session) = task.await.unwrap();
            ran.push(one);
            self.sessions.contenders.push(session);
        }
        counts.add(&ran);
        let observed = self.observe(&mut *self.sessions.observer.lock().await).await;
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
}

fn is_deadlock(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.and_then(sqlx::Error::as_database_error).and_then(DatabaseError::code).as_deref() == Some("40P01")
}

#[expect(clippy::too_many_lines, reason = "one arm for each operation")]
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
        Op::Hold(index) => store.keys().hold(tx, &scope(index), "race", None).await.map(drop),
        Op::Release(index) => match store.keys().holds_of(tx, &scope(index)).await?.first() {
            Some(hold) => store.keys().release(tx, hold, "race").await,
            None => Err(Error::Keys(KeyFault::ScopeState { scope: scope(index), problem: "is not held" })),
        },
        Op::Shreds(indexes) => {
            for index in indexes {
                store.keys().shred(tx, &scope(index), "race").await?;
            }
            Ok(())
        }
        Op::ShredThenAppend(shredded, stream, index) => {
            store.keys().shred(tx, &scope(shredded), "race").await?;
            let placed = format!(r#"{{"customer":"{}","name":"Ada"}}"#, names[*index]);
            let placed = NewEvent::raw("Placed", 1, placed);
            let order = aggregate("Order", &*names[*stream]);
            store.append(tx, &order, ExpectedVersion::Any, &[placed]).await.map(drop)
        }
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
async fn finish(mut tx: Transaction<'_, sqlx::Postgres>, result: Result<()>) -> Option<Outcome> {
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
        Err(Error::Keys(KeyFault::Held { .. })) => Outcome::Held,
        Err(error) if error.is_retryable() => {
            tx.rollback().await.unwrap();
            return None;
        }
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

/// Four processes. Two of them append and read in one statement if they know the keys, and two never do.
async fn stores(db: &Postgres, writer: Writer) -> Vec<Store> {
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let placed = || event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"));
    let schemas = || {
        Schemas::builder([placed(), event("Noted").version(1).unprotected("what the other writer writes")])
            .build()
            .unwrap()
    };
    let mut stores = Vec::new();
    for one_statement in [true, true, false, false] {
        let keyring = Arc::clone(&keyring);
        let store = match one_statement {
            true => SealedStore::new(writer.store(), PostgresKeys::new(), keyring, schemas()),
            false => SealedStore::new(writer.store(), TwoSteps::over(PostgresKeys::new()), keyring, schemas()),
        };
        store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
        stores.push(store);
    }
    stores
}

/// Two races at once keep the server and its clients busy. With more, what happens in one depends on the others.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Runs the race over the tables of one version of eventsalsa.
pub(super) async fn race(
    writer: Writer,
    start: Start,
    allowed: Allowed,
    contenders: impl Fn(&mut Random) -> Vec<Op> + Send + Sync + 'static,
) {
    let _turn = TURNS.acquire().await.unwrap();
    let number =
        |name: &str, default: usize| std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"));
    let (rounds, seed) = (number("RACES", 2_000), number("RACE_SEED", Uuid::now_v7().as_u128() as usize >> 3));
    let db = Postgres::new().await;
    if writer != Writer::EventsFirst {
        sqlx::raw_sql("DROP TABLE events, aggregate_heads, _events_migrations").execute(&db.pool).await.unwrap();
    }
    writer.migrate(&db).await;
    let (stores, contenders) = (Arc::new(stores(&db, writer).await), Arc::new(contenders));
    // Statements are planned once for each session, and not six times. A small table is read by its index, as a large
    // one is: at SERIALIZABLE, whoever reads a whole table collides with everybody who writes to it.
    let options = db.options.clone().options([("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")]);
    let mut lanes = Vec::new();
    for _ in 0..LANES {
        lanes.push(Lane::new(&options, &stores, writer).await);
    }
    for (number, level) in LEVELS.into_iter().enumerate() {
        let (counts, left) = (Arc::new(Counts::default()), Arc::new(AtomicUsize::new(rounds)));
        let mut running = Vec::new();
        for (index, mut lane) in lanes.drain(..).enumerate() {
            let (contenders, counts, left) = (Arc::clone(&contenders), Arc::clone(&counts), Arc::clone(&left));
            lane.random = Random(seed as u64 + 1_000 * number as u64 + index as u64);
            running.push(tokio::spawn(async move {
                lane.rounds(level, start, &*contenders, &left, &counts).await;
                lane
            }));
        }
        for lane in running {
            lanes.push(lane.await.unwrap_or_else(|error| panic!("RACE_SEED={seed}: {error}")));
        }
        counts.check(level, rounds, allowed);
    }
}
