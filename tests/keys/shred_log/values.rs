//! Values outside of events after a restore (I13).

use super::restores::{RESTORE_ALL, SAVE, prepare};
use super::{Intruder, copy_in, export, replay, schemas, seal, shop};
use eventseal::error::KeyFault;
use eventseal::{Error, Result, Sensitive};
use std::time::Duration;
use support::customer_scope;

/// A value that was erased opens neither before nor after the replay, and nothing is sealed in between.
async fn i13_an_erased_value_stays_erased_after_a_restore<B: Intruder>() {
    const CONTEXT: [&str; 2] = ["email", "1"];
    let (db, store) = shop::<B>(&["1"]).await;
    let mut tx = db.begin().await.unwrap();
    let value = store.seal_value(db.tx(&mut tx), &customer_scope("1"), CONTEXT, "Ada").await.unwrap();
    db.commit(tx).await.unwrap();
    seal(&db, &store).await.unwrap();
    db.write(SAVE).await;
    db.shred(&store, "1").await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    db.write(RESTORE_ALL).await;
    let keys = db.keys().require_shred_log(eventseal::erasure::FileCopy::new(copy.path()), Duration::ZERO);
    let process = db.process_over(keys, schemas());
    assert!(prepare(&db, &process).await.is_err());
    let mut tx = db.begin().await.unwrap();
    let opened = process.open_value(db.tx(&mut tx), &customer_scope("1"), CONTEXT, &value).await;
    is_behind(opened);
    db.roll_back(tx).await;
    let mut tx = db.begin().await.unwrap();
    is_behind(process.seal_value(db.tx(&mut tx), &customer_scope("2"), CONTEXT, "Grace").await);
    db.roll_back(tx).await;
    replay(&db, &process, &[&copy]).await.unwrap();
    let process = db.process(schemas());
    let mut tx = db.begin().await.unwrap();
    let opened = process.open_value(db.tx(&mut tx), &customer_scope("1"), CONTEXT, &value).await;
    assert_eq!(opened.unwrap(), Sensitive::Redacted);
}

fn is_behind<T: std::fmt::Debug>(result: Result<T>) {
    assert!(matches!(result, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{result:?}");
}

support::on_sqlite_and_postgres! {
    i13_an_erased_value_stays_erased_after_a_restore,
}
