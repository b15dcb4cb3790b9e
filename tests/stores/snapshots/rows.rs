//! Rows of snapshots that are discarded: which ones a save replaces. And numbers, which come back bit by bit.

use super::{Order, SaveOutcome, counted, fold, keep, load, order, placed, put, save, stored, try_load, world};
use eventseal::error::BoxError;
use eventseal::snapshots::{AggregateState, Discarded, Rebuilt, SealedSnapshots};
use eventseal::store::StoredSnapshot;
use eventseal::{PersistedEvent, Result};
use serde::{Deserialize, Serialize};
use support::backend::Backend;
use support::{Postgres, Sqlite, on_every_database};

on_every_database! {
    i1_floats_come_back_bit_by_bit,
    a_discarded_snapshot_is_replaced_and_no_other_one,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Floats(Vec<f64>);

impl AggregateState for Floats {
    const NAME: &'static str = "floats";
    const VERSION: u32 = 1;

    fn apply(&mut self, _: &PersistedEvent) -> Result<(), BoxError> {
        self.0.extend([
            f64::MIN_POSITIVE,
            f64::MAX,
            f64::EPSILON,
            -0.0,
            5e-324,
            0.1 + 0.2,
            1e23,
            9_007_199_254_740_993.0,
        ]);
        let mut bits = 0x5EED_u64;
        for n in 1..2_000_u32 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0.extend([f64::from_bits(bits), f64::from(n).sqrt() * 1e-7 / 3.0, f64::from(n).sqrt() * 1e17 / 7.0]);
        }
        self.0.retain(|number| number.is_finite());
        Ok(())
    }
}

async fn i1_floats_come_back_bit_by_bit<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[counted()]).await;
    let first: Rebuilt<Floats> = try_load(&db, &store, &snapshots, "1").await.unwrap();
    assert!(save(&db, &store, &snapshots, &first).await.unwrap().is_saved());
    let second: Rebuilt<Floats> = try_load(&db, &store, &snapshots, "1").await.unwrap();
    assert_eq!(second.folded(), 0);
    let bits = |rebuilt: &Rebuilt<Floats>| rebuilt.state().0.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    assert!(bits(&first).len() > 5_000 && bits(&first) == bits(&second));
}

/// A slow process that discarded a snapshot does not replace a newer one, which another process saved meanwhile.
async fn a_discarded_snapshot_is_replaced_and_no_other_one<B: Backend>() {
    let (db, store, old) = world::<B>().await;
    let new = SealedSnapshots::new(old.inner().clone()).code_version("2");
    db.append(&store, "1", &[placed("1")]).await;
    keep(&db, &store, &old, "1").await;
    let slow = load(&db, &store, &new, "1").await;
    assert_eq!(slow.discarded(), Some(&Discarded::OtherCode));
    db.append(&store, "1", &[counted(), counted()]).await;
    let quick = load(&db, &store, &new, "1").await;
    assert_eq!(save(&db, &store, &new, &quick).await.unwrap(), SaveOutcome::Saved);
    assert_eq!(save(&db, &store, &new, &slow).await.unwrap(), SaveOutcome::Outdated);
    let kept = stored(&db, &new, "1").await.unwrap();
    assert_eq!(kept.version.get(), 3);
    // One that is ahead of the stream is replaced by whoever discarded it, and by nobody else.
    let ahead = StoredSnapshot { version: i64::MAX.try_into().unwrap(), ..kept };
    put(&db, &new, std::slice::from_ref(&ahead)).await;
    let rebuilt = load(&db, &store, &new, "1").await;
    assert_eq!(rebuilt.discarded(), Some(&Discarded::NotInStream));
    for other in [
        StoredSnapshot { version: (i64::MAX - 1).try_into().unwrap(), ..ahead.clone() },
        StoredSnapshot { fingerprint: [7; 32], ..ahead.clone() },
        StoredSnapshot { last_event: uuid::Uuid::now_v7(), ..ahead.clone() },
    ] {
        put(&db, &new, std::slice::from_ref(&other)).await;
        assert_eq!(save(&db, &store, &new, &rebuilt).await.unwrap(), SaveOutcome::Outdated, "{other:?}");
        assert_eq!(stored(&db, &new, "1").await, Some(other));
    }
    put(&db, &new, &[ahead]).await;
    assert_eq!(save(&db, &store, &new, &rebuilt).await.unwrap(), SaveOutcome::Saved);
    assert_eq!(load(&db, &store, &new, "1").await.folded(), 0);
}

/// Damages the row of a snapshot, and saves it anew.
async fn heals<B: Backend>(db: B, damage: impl AsyncFn(&B)) {
    let store = db.prepared(super::schemas()).await;
    let snapshots = SealedSnapshots::new(db.make_snapshots().await);
    db.append(&store, "1", &[placed("1")]).await;
    keep(&db, &store, &snapshots, "1").await;
    damage(&db).await;
    let rebuilt: Rebuilt<Order> = load(&db, &store, &snapshots, "1").await;
    assert!(matches!(rebuilt.discarded(), Some(Discarded::Altered { .. })), "{rebuilt:?}");
    assert_eq!(*rebuilt.state(), fold(&db, &store, "1").await);
    assert_eq!(save(&db, &store, &snapshots, &rebuilt).await.unwrap(), SaveOutcome::Saved);
    let again = load(&db, &store, &snapshots, "1").await;
    assert_eq!((again.folded(), again.discarded(), again.aggregate()), (0, None, &order("1")));
}

#[tokio::test]
async fn i3_a_damaged_row_is_discarded_and_replaced() {
    let sqlite = ["fingerprint = x'00'", "created_at = 'yesterday'", "last_event_id = 'none'"];
    for damage in sqlite {
        for ahead in ["", ", aggregate_version = 9000000000000000000"] {
            let update = format!("UPDATE snapshots SET {damage}{ahead}");
            let damage = async |db: &Sqlite| {
                sqlx::query(sqlx::AssertSqlSafe(update.clone())).execute(&db.pool).await.unwrap();
            };
            heals(Sqlite::make().await, damage).await;
        }
    }
    for ahead in ["", ", aggregate_version = 9000000000000000000"] {
        let update = format!(r"UPDATE snapshots SET fingerprint = '\x00'{ahead}");
        let damage = async |db: &Postgres| {
            sqlx::query(sqlx::AssertSqlSafe(update.clone())).execute(&db.pool).await.unwrap();
        };
        heals(Postgres::make().await, damage).await;
    }
}
