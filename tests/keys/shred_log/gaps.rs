//! Copies with gaps, and copies without an end.

use super::places::{Place, with_tables};
use super::{copy_in, export, replay, shop, verify_all};
use async_trait::async_trait;
use eventseal::erasure::{FileCopy, ShredLogCopy};
use eventseal::error::{BoxError, KeyFault};
use eventseal::{Error, Result};
use std::time::Duration;
use support::backend::Backend;

/// Fails, and says what of the copy is wrong, within the time that a hang would take.
async fn fails<T: std::fmt::Debug>(call: impl Future<Output = Result<T>>, problem: &str) {
    let ended = tokio::time::timeout(Duration::from_secs(60), call).await.expect("it never ends");
    let Err(error @ Error::Keys(KeyFault::LogCopy { .. })) = &ended else { panic!("{ended:?}") };
    let error: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(error), |error| error.source());
    let said: Vec<String> = causes.map(ToString::to_string).collect();
    assert!(said.iter().any(|said| said.contains(problem)), "{said:?}");
}

/// Whoever may add rows adds one far behind the last. The triggers refuse it; and where somebody got around them,
/// nothing is read past the gap, and no call goes on for ever.
async fn i14_rows_of_a_copy_leave_no_number_out<B: Backend, P: Place>() {
    for far in [4_000_000_000_000_000_000, i64::MAX, 4] {
        let (db, store) = shop::<B>(&["1", "2"]).await;
        db.shred(&store, "1").await;
        let place = P::make().await;
        let copy = place.copy().await;
        export(&db, &store, &copy).await.unwrap();
        let last = copy.last().await.unwrap().unwrap();
        let refused = place.insert(far, &last).await.unwrap_err();
        assert!(refused.to_string().contains("numbered without gaps"), "{refused}");
        export(&db, &store, &copy).await.unwrap();
        place.force(far, &last).await;
        fails(replay(&db, &store, &[&copy]), "row 3 of the table shred_log_copy is missing").await;
        let mut connection = db.connect().await.unwrap();
        let missing = "row 3 of the table shred_log_copy is missing";
        fails(store.keys().verify_log(db.connection(&mut connection), &[&copy], &mut |_| {}), missing).await;
        drop(connection);
        db.shred(&store, "2").await;
        if far == i64::MAX {
            fails(export(&db, &store, &copy), "too high").await;
        }
    }
}

/// The row with the largest number that the database has is read, and nothing is behind it.
async fn the_largest_number_is_read<B: Backend, P: Place>() {
    let (db, store) = shop::<B>(&["1"]).await;
    let place = P::make().await;
    let copy = place.copy().await;
    db.shred(&store, "1").await;
    export(&db, &store, &copy).await.unwrap();
    place.force(i64::MAX, "the last").await;
    let largest = i64::MAX.unsigned_abs();
    assert_eq!(copy.lines(largest - 1, 1).await.unwrap(), ["the last"]);
    assert_eq!(copy.lines(largest - 1, u32::MAX).await.unwrap(), ["the last"]);
    for none in [largest, largest + 1, u64::MAX] {
        assert!(copy.lines(none, 10).await.unwrap().is_empty(), "{none}");
    }
    assert!(copy.lines(largest - 2, 10).await.unwrap_err().to_string().contains("is missing"));
}

/// A copy that has its last line again and again.
struct Endless(FileCopy);

#[async_trait]
impl ShredLogCopy for Endless {
    fn name(&self) -> String {
        self.0.name()
    }

    async fn last(&self) -> std::result::Result<Option<String>, BoxError> {
        self.0.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> std::result::Result<Vec<String>, BoxError> {
        let lines = self.0.lines(from, limit).await?;
        Ok(if lines.is_empty() { self.0.last().await?.into_iter().collect() } else { lines })
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> std::result::Result<(), BoxError> {
        self.0.append(last, lines).await
    }
}

async fn i14_a_copy_without_an_end_is_refused<B: Backend>() {
    let (db, store) = shop::<B>(&["1"]).await;
    db.shred(&store, "1").await;
    let (copy, _folder) = copy_in();
    let copy = Endless(copy);
    export(&db, &store, &copy).await.unwrap();
    fails(replay(&db, &store, &[&copy]), "most of its lines are").await;
    assert!(!verify_all(&db, &store, &[&copy]).await.is_sound());
}

with_tables! {
    i14_rows_of_a_copy_leave_no_number_out,
    the_largest_number_is_read,
}

mod of_tables {
    use super::i14_a_copy_without_an_end_is_refused;

    support::on_sqlite_and_postgres! {
        i14_a_copy_without_an_end_is_refused,
    }
}
