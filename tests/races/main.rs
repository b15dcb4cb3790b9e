//! Races on PostgreSQL, on real connections, at every isolation level (invariants I5, I6 and I8).
//!
//! Two to four transactions run at once on a small world of two key scopes and two aggregates. Some run freely, some
//! are held open until another one waits for them, some have taken their snapshot before another one committed. After
//! every round a model looks for an order of the transactions that committed, one after the other, which gives the same
//! results, the same key rows and the same events, and in which nothing that began after another's commit comes before
//! it. If there is none, a key was resurrected, an event was sealed under a destroyed key, or a version was lost or
//! given twice.
//!
//! `RACES=20000` sets the number of rounds at each isolation level and of each kind, `RACE_SEED=7` repeats a run's
//! choices.

mod holding;
mod observing;
mod running;

use eventseal::keys::ScopeState;
use eventseal::postgres::{PostgresStore, PostgresTables};
use running::race;
use sqlx::AssertSqlSafe;
use support::Postgres;

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
const LANES: usize = 6;

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
    /// One append for each entry. An entry has the aggregate, and the scope of each event.
    Append(Expect, Vec<(usize, Vec<usize>)>),
    /// An append by eventsalsa, in the version that [`Writer`] names.
    Foreign(Expect, usize),
    Shred(usize),
    Rotate(usize),
    Disable(usize),
    Enable(usize),
    Reopen(usize),
    Hold(usize),
    /// Releases the oldest hold.
    Release(usize),
    /// One transaction that shreds several scopes.
    Shreds(Vec<usize>),
    /// One transaction that shreds a scope, and then appends to a stream for another one.
    ShredThenAppend(usize, usize, usize),
}

/// The version of eventsalsa that the tables belong to. It decides the order in which both writers write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writer {
    /// 0.0: reads the head, inserts events one by one, then moves the head.
    EventsFirst,
    /// 0.1 and later: moves the head, then inserts events one by one.
    HeadsFirst,
    /// `HeadsFirst` on events that are partitioned by position, with no constraint but the primary key.
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
        let (heads, name) =
            if self == Self::EventsFirst { ("aggregate_heads", "aggregate") } else { ("stream_heads", "stream") };
        AssertSqlSafe(sql.replace("{heads}", heads).replace("{of}", name))
    }
}

/// The result of an operation that is not worth trying again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Done,
    Conflict,
    Shredded,
    Disabled,
    ScopeState,
    Held,
}

#[derive(Clone, Debug, PartialEq)]
struct Scope {
    state: ScopeState,
    generation: u32,
    /// Version and liveness of every key, oldest first.
    keys: Vec<bool>,
    active: Option<usize>,
    /// The number of holds.
    holds: usize,
}

impl Scope {
    fn new() -> Self {
        Self { state: ScopeState::Live, generation: 1, keys: Vec::new(), active: None, holds: 0 }
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
            Op::Append(expect, appends) => self.append(*expect, appends, heads),
            Op::Foreign(expect, stream) => {
                if !expect.fits(self.streams[*stream].len(), heads[*stream]) {
                    return Outcome::Conflict;
                }
                self.streams[*stream].push(None);
                Outcome::Done
            }
            Op::Shred(scope) => self.shred(*scope),
            Op::Shreds(scopes) => {
                let outcomes: Vec<Outcome> = scopes.iter().map(|scope| self.shred(*scope)).collect();
                if outcomes.contains(&Outcome::Held) { Outcome::Held } else { Outcome::Done }
            }
            Op::ShredThenAppend(shredded, stream, scope) => match self.shred(*shredded) {
                Outcome::Done => self.append(Expect::Any, &[(*stream, vec![*scope])], heads),
                refused => refused,
            },
            Op::Hold(scope) => {
                let scope = self.scopes[*scope].get_or_insert_with(Scope::new);
                if scope.state == ScopeState::Shredded {
                    return Outcome::ScopeState;
                }
                scope.holds += 1;
                Outcome::Done
            }
            Op::Release(scope) => match &mut self.scopes[*scope] {
                Some(scope) if scope.holds > 0 => {
                    scope.holds -= 1;
                    Outcome::Done
                }
                _ => Outcome::ScopeState,
            },
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

    fn shred(&mut self, scope: usize) -> Outcome {
        let scope = self.scopes[scope].get_or_insert_with(Scope::new);
        if scope.holds > 0 {
            return Outcome::Held;
        }
        scope.state = ScopeState::Shredded;
        scope.active = None;
        scope.keys.fill(false);
        Outcome::Done
    }

    fn append(&mut self, expect: Expect, appends: &[(usize, Vec<usize>)], heads: [usize; 2]) -> Outcome {
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

/// The world in which a round of a race starts.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    /// An empty world: no scope, no stream.
    Fresh,
    /// The world in which the round before ended, if its scopes are usable; otherwise an empty one.
    Usable,
    /// The world in which the round before ended.
    Anywhere,
}

/// The errors that a race may end in.
#[derive(Clone, Copy, PartialEq)]
enum Allowed {
    /// At READ COMMITTED nothing has to be tried again.
    Nothing,
    /// At READ COMMITTED, the other writer may have to try again, and ours need not. No two transactions wait for each
    /// other.
    TheirCollisions,
    Deadlocks,
}

fn append(expect: Expect, stream: usize, scopes: &[usize]) -> Op {
    Op::Append(expect, vec![(stream, scopes.to_vec())])
}

/// The operations in a random order.
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

/// Two transactions of eventsalsa and one of ours append to one stream, which is new or exists.
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
