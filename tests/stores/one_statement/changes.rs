//! An append that takes one statement ends as one that takes two, whatever became of its keys before, at the same time
//! or behind its snapshot, at every isolation level.

use super::{placed, schemas};
use eventseal::ExpectedVersion::Any;
use eventseal::erasure::ShredMode;
use eventseal::keys::{KeyStore, ScopeLock};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{Error, EventStore, EventStoreExt, Result, SealedStore, aggregate};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::sync::Arc;
use support::two_steps::TwoSteps;
use support::{Deadline, KEYRING, Postgres, customer_scope};
use time::OffsetDateTime;

type Store = SealedStore<PostgresStore>;

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// What somebody does to the keys of a customer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Shred,
    ShredAndReopen,
    Disable,
    Withhold,
    Rotate,
    /// A shred whose future was dropped after it destroyed the keys, in a transaction that goes on.
    CutShort,
    /// Writes to the tables, and keeps to no rule: (table, assignment).
    Meddle(&'static str, &'static str),
}

const NO_ACTIVE_KEY: Change = Change::Meddle("key_scopes", "active_key_id = NULL");

const CHANGES: [Change; 12] = [
    Change::Shred,
    Change::ShredAndReopen,
    Change::Disable,
    Change::Withhold,
    Change::Rotate,
    Change::CutShort,
    Change::Meddle("data_keys", "wrapped_key = wrapped_key || wrapped_key"),
    Change::Meddle("data_keys", "version = version + 7"),
    Change::Meddle("data_keys", "shredded_at = now()"),
    NO_ACTIVE_KEY,
    Change::Meddle("key_scopes", "withheld = true"),
    Change::Meddle("key_scopes", "active_key_id = (SELECT k.key_id FROM data_keys AS k WHERE k.scope_id = 'other')"),
];

impl Change {
    async fn make(self, operator: &Store, tx: &mut PgConnection, id: &str) {
        let scope = customer_scope(id);
        let keys = operator.keys();
        match self {
            Self::Shred => drop(keys.shred(tx, &scope, "request").await.unwrap()),
            Self::ShredAndReopen => {
                keys.shred(tx, &scope, "request").await.unwrap();
                keys.reopen(tx, &scope, "back").await.unwrap();
            }
            Self::Disable => keys.disable(tx, &scope, "stop").await.unwrap(),
            Self::Withhold => {
                let due = OffsetDateTime::now_utc() + time::Duration::days(30);
                keys.schedule_shred(tx, &scope, due, ShredMode::Redact, "request").await.unwrap();
            }
            Self::Rotate => {
                keys.rotate_data_key(tx, &scope).await.unwrap();
            }
            Self::CutShort => {
                let table = PostgresKeys::new();
                table.scopes(tx, std::slice::from_ref(&scope), ScopeLock::Update).await.unwrap();
                table.destroy_keys(tx, &scope, OffsetDateTime::now_utc()).await.unwrap();
            }
            Self::Meddle(table, set) => {
                let sql = format!("UPDATE {table} SET {set} WHERE scope_kind = 'Customer' AND scope_id = $1");
                let changed = sqlx::query(AssertSqlSafe(sql)).bind(id).execute(tx).await.unwrap();
                assert_eq!(changed.rows_affected(), 1);
            }
        }
    }
}

/// When the change is made, seen from the append.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Before,
    /// After the transaction took its snapshot.
    BehindTheSnapshot,
    /// It is under way when the append begins, and is committed.
    Committing,
    /// It is under way when the append begins, and is rolled back.
    RollingBack,
}

const TIMES: [When; 4] = [When::Before, When::BehindTheSnapshot, When::Committing, When::RollingBack];

/// How an append ended, in a form that two of them can be compared by.
fn ending(result: &Result<()>) -> String {
    match result {
        Ok(()) => "appended".to_owned(),
        Err(Error::Collision { .. }) => "collision".to_owned(),
        Err(error) => {
            // The keys of two customers have two ids.
            let text = error.to_string();
            let is_id = |word: &&str| word.len() == 36 && word.matches('-').count() == 4;
            text.split_inclusive(' ')
                .map(|word| if is_id(&word.trim_end_matches([' ', ':'])) { "ID " } else { word })
                .collect()
        }
    }
}

struct World {
    db: Postgres,
    operator: Store,
}

impl World {
    async fn new() -> Self {
        let db = Postgres::new().await;
        // What keeps honest writers from mistakes would keep the meddler from his.
        let unguarded = "
            ALTER TABLE data_keys DISABLE TRIGGER USER;
            ALTER TABLE key_scopes DISABLE TRIGGER USER;
            DO $$ DECLARE c record; BEGIN
                FOR c IN SELECT conname, conrelid::regclass AS of FROM pg_constraint
                    WHERE conrelid IN ('data_keys'::regclass, 'key_scopes'::regclass) AND contype IN ('c', 'f')
                LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.of, c.conname); END LOOP;
            END $$";
        sqlx::raw_sql(unguarded).execute(&db.pool).await.unwrap();
        let operator = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas());
        operator.keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
        let world = Self { db, operator };
        world.append(&world.operator, "other").await;
        world
    }

    async fn process(&self, one_statement: bool) -> Store {
        let store = match one_statement {
            true => SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas()),
            false => {
                let keys = TwoSteps::over(PostgresKeys::new());
                SealedStore::new(PostgresStore::new(), keys, Arc::clone(&KEYRING), schemas())
            }
        };
        store.keys().prepare(&mut self.db.pool.acquire().await.unwrap()).await.unwrap();
        store
    }

    async fn append(&self, store: &Store, id: &str) {
        let mut tx = self.db.pool.begin().await.unwrap();
        store.append(&mut tx, &aggregate("Order", id), Any, &placed(&[id])).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Appends for a customer whose keys are cached, while they are changed. Returns how that ended, and whether what
    /// was stored can be read afterwards.
    async fn run(
        &self,
        store: &Arc<Store>,
        level: &str,
        id: &str,
        several: bool,
        change: Change,
        when: When,
    ) -> (String, usize, bool) {
        self.append(store, id).await;
        let mut changing = self.db.pool.begin().await.unwrap();
        let mut connection = self.db.pool.acquire().await.unwrap();
        if when == When::Before {
            change.make(&self.operator, &mut changing, id).await;
            changing.commit().await.unwrap();
            changing = self.db.pool.begin().await.unwrap();
        }
        let begin = AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"));
        let mut tx = connection.begin_with(begin).await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.unwrap();
        if matches!(when, When::BehindTheSnapshot | When::Committing | When::RollingBack) {
            change.make(&self.operator, &mut changing, id).await;
        }
        if when == When::BehindTheSnapshot {
            changing.commit().await.unwrap();
            changing = self.db.pool.begin().await.unwrap();
        }
        let events = if several { placed(&["other", id, id]) } else { placed(&[id]) };
        let order = aggregate("Order", id);
        let append = store.append(&mut tx, &order, Any, &events);
        let result = if matches!(when, When::Committing | When::RollingBack) {
            let end = async {
                self.until_waiting_or_done(pid).await;
                if when == When::Committing { changing.commit().await } else { changing.rollback().await }
            };
            let (appended, ended) = tokio::join!(append, end);
            ended.unwrap();
            appended
        } else {
            append.await
        };
        let result = match result {
            Ok(_) => tx.commit().await.map_err(|source| Error::Collision { source: Some(source.into()) }),
            Err(error) => {
                tx.rollback().await.unwrap();
                Err(error)
            }
        };
        let reader = self.process(true).await;
        let read = reader.read_stream(&mut *self.db.pool.acquire().await.unwrap(), &order).await;
        // What was appended is never sealed under a key that is gone.
        if let (Ok(()), Ok(stream)) = (&result, &read) {
            let last = stream.events.last().unwrap();
            assert!(support::contains(&last.payload, "Ada of"), "{level} {change:?} {when:?}: {last:?}");
        }
        (ending(&result), read.as_ref().map_or(0, |stream| stream.events.len()), read.is_ok())
    }

    /// Waits until a process waits for a lock, or has nothing to do.
    async fn until_waiting_or_done(&self, pid: i32) {
        let deadline = Deadline::of("for an append to wait, or to be done");
        let mut idle = 0;
        loop {
            deadline.look_again().await;
            let state: String = sqlx::query_scalar(
                "SELECT coalesce(wait_event_type, '') || ' ' || state FROM pg_stat_activity WHERE pid = $1",
            )
            .bind(pid)
            .fetch_one(&self.db.pool)
            .await
            .unwrap();
            if state.starts_with("Lock") {
                return;
            }
            // Between two statements it is idle for a moment.
            idle = if state.ends_with("idle in transaction") { idle + 1 } else { 0 };
            if idle > 40 {
                return;
            }
        }
    }
}

async fn an_append_ends_as_in_two_steps(level: &str) {
    let world = World::new().await;
    let (one, two) = (Arc::new(world.process(true).await), Arc::new(world.process(false).await));
    for change in CHANGES {
        for when in TIMES {
            for several in [false, true] {
                // A writer that locks nothing is not waited for.
                if matches!(change, Change::Meddle("data_keys", _)) && matches!(when, When::Committing) {
                    continue;
                }
                let id =
                    |store: &str| format!("{store} {change:?} {when:?} {several}").replace('\'', "").replace('"', "");
                let (in_one, in_two) = (
                    world.run(&one, level, &id("one"), several, change, when).await,
                    world.run(&two, level, &id("two"), several, change, when).await,
                );
                let of_same_id = |ended: (String, usize, bool)| (ended.0.replace("two ", "one "), ended.1, ended.2);
                assert_eq!(in_one, of_same_id(in_two), "{level} {change:?} {when:?} several={several}");
                // Only these leave the scope with a key that seals.
                let is_usable = [Change::Rotate, Change::ShredAndReopen, NO_ACTIVE_KEY].contains(&change);
                if level == LEVELS[0] {
                    let appends = when == When::RollingBack || is_usable;
                    assert_eq!(in_one.0 == "appended", appends, "{change:?} {when:?}: {}", in_one.0);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i6_an_append_ends_as_in_two_steps_at_read_committed() {
    an_append_ends_as_in_two_steps(LEVELS[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i6_an_append_ends_as_in_two_steps_at_repeatable_read() {
    an_append_ends_as_in_two_steps(LEVELS[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i6_an_append_ends_as_in_two_steps_at_serializable() {
    an_append_ends_as_in_two_steps(LEVELS[2]).await;
}

/// Every read that starts after a shred was committed shows no plaintext, whether the keys come with the events or not.
#[tokio::test]
async fn i5_no_read_that_starts_after_a_shred_shows_a_value() {
    let world = World::new().await;
    for (change, redacted) in [(Change::Shred, true), (Change::Withhold, true), (Change::Disable, false)] {
        let (store, id) = (world.process(true).await, format!("{change:?}"));
        world.append(&store, &id).await;
        let order = aggregate("Order", id.as_str());
        let mut connection = world.db.pool.acquire().await.unwrap();
        for _ in 0..2 {
            let stream = store.read_stream(&mut connection, &order).await.unwrap();
            assert!(
                support::contains(&stream.events[0].payload, "Ada of"),
                "it is readable, and its keys are expected"
            );
        }
        let mut tx = world.db.pool.begin().await.unwrap();
        change.make(&world.operator, &mut tx, &id).await;
        let stream = store.read_stream(&mut connection, &order).await.unwrap();
        assert!(support::contains(&stream.events[0].payload, "Ada of"), "it is not committed yet");
        tx.commit().await.unwrap();
        let read = store.read_stream(&mut connection, &order).await;
        match read {
            Ok(stream) => assert!(redacted && stream.events[0].payload.ends_with(b"\"name\":null}"), "{stream:?}"),
            Err(error) => assert!(!redacted && matches!(error, Error::Disabled { .. }), "{error}"),
        }
    }
}
