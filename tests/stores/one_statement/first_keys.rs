//! First keys that are created while another transaction creates some of them too.

use super::{placed, schemas};
use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::keys::KeyStore;
use eventseal::kms::{KekContext, Kms, SecretKey, WrappedKek};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{Error, EventStore, EventStoreExt, Result, SealedStore, aggregate};
use sqlx::{AssertSqlSafe, Connection};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::faults::{Faulty, KmsFaults};
use support::{Deadline, KEYRING, Postgres, customer_scope};

/// Counts the keys that it opens.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

#[async_trait]
impl KmsFaults for Counting {
    fn inner(&self) -> &dyn Kms {
        &**KEYRING
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.0.fetch_add(1, Ordering::SeqCst);
        KEYRING.unwrap_kek(wrapped, context).await
    }
}

/// What the other transaction does, after it was awaited.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Other {
    Commits,
    RollsBack,
    /// It commits, and its key is wrapped by a key-encryption key that became the active one meanwhile.
    CommitsUnderANewKek,
}

/// An append for three new owners, the second of which another transaction is creating. Returns how it ended, and how
/// many keys the KMS opened for it.
async fn meeting(level: &str, other: Other) -> (Result<()>, usize) {
    let db = Postgres::new().await;
    let operator = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas());
    operator.keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    let kms = Counting::default();
    let store = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Faulty(kms.clone()), schemas());
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "warm"), Any, &placed(&["warm"])).await.unwrap();
    tx.commit().await.unwrap();
    kms.0.store(0, Ordering::SeqCst);

    let mut theirs = db.pool.begin().await.unwrap();
    PostgresKeys::new().create_scopes(&mut theirs, &[customer_scope("b")]).await.unwrap();
    let mut connection = db.pool.acquire().await.unwrap();
    let begin = AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"));
    let mut ours = connection.begin_with(begin).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *ours).await.unwrap();
    let (order, events) = (aggregate("Order", "1"), placed(&["a", "b", "c"]));
    let end = async {
        let deadline = Deadline::of("for the append to wait for the scope");
        let waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1";
        let is_waiting =
            async || -> Option<bool> { sqlx::query_scalar(waits).bind(pid).fetch_one(&db.pool).await.unwrap() };
        while is_waiting().await != Some(true) {
            deadline.look_again().await;
        }
        if other == Other::CommitsUnderANewKek {
            operator.keys().rotate_kek(&mut *db.pool.acquire().await.unwrap(), "default").await.unwrap();
            operator.append(&mut theirs, &aggregate("Order", "2"), Any, &placed(&["b"])).await.unwrap();
        }
        if other == Other::RollsBack { theirs.rollback().await } else { theirs.commit().await }.unwrap();
    };
    let (appended, ()) = tokio::join!(store.append(&mut ours, &order, Any, &events), end);
    match appended {
        Ok(_) => ours.commit().await.unwrap(),
        Err(ref error) => {
            assert!(error.is_retryable(), "{error}");
            ours.rollback().await.unwrap();
        }
    }
    let opened = kms.0.load(Ordering::SeqCst);
    if appended.is_err() {
        // The next try is not kept from it any more, and may ask the KMS before it locks anything.
        let mut tx = db.pool.begin().await.unwrap();
        store.append(&mut tx, &order, Any, &placed(&["a", "b", "c"])).await.unwrap();
        tx.commit().await.unwrap();
    }
    let read = operator.read_stream(&mut *db.pool.acquire().await.unwrap(), &order).await.unwrap();
    let opens = |(event, owner): (&eventseal::PersistedEvent, &str)| {
        support::contains(&event.payload, &format!("Ada of {owner}"))
    };
    assert!(read.events.len() == 3 && read.events.iter().zip(["a", "b", "c"]).all(opens), "{read:?}");
    (appended.map(drop), opened)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_a_creation_that_meets_another_one_loses_nothing() {
    for other in [Other::Commits, Other::RollsBack] {
        let (ended, opened) = meeting("READ COMMITTED", other).await;
        assert!(ended.is_ok() && opened == 0, "{other:?}: {ended:?}");
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            let (ended, opened) = meeting(level, other).await;
            let collides = matches!(ended, Err(Error::Collision { .. }));
            assert_eq!((collides, opened), (other == Other::Commits, 0), "{level} {other:?}: {ended:?}");
        }
    }
}

/// A shred of the owners that are locked by now would wait for the KMS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_was_cut_short_asks_no_kms() {
    let (ended, opened) = meeting("READ COMMITTED", Other::CommitsUnderANewKek).await;
    assert!(matches!(ended, Err(Error::Collision { .. })) && opened == 0, "{ended:?}, and {opened} keys were opened");
}
