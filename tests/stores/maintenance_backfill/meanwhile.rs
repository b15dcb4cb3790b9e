//! Backfills beside appends, shreds and another backfill.

use super::{accepting, every, placed, small, strict, with};
use eventseal::maintenance::{BackfillOptions, Backfilled};
use eventseal::postgres::PostgresStore;
use eventseal::{EventStore, ExpectedVersion, GlobalPosition, KeyScope, NewEvent, Schemas, aggregate, event, subject};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use support::Deadline;
use support::backend::Backend;
use support::sealing::CANARY;
use support::{Postgres, contains, customer, on_every_database};

on_every_database! {
    i5_i11_others_go_on_meanwhile,
    i11_two_at_once_seal_everything_once,
    a_later_call_begins_where_nothing_can_appear,
}

async fn i5_i11_others_go_on_meanwhile<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(accepting()).await;
    let people: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
    let events = || people.iter().map(|name| placed(name)).collect::<Vec<NewEvent>>();
    for round in 0..10 {
        db.append_bare(&format!("plain {round}"), &events()).await;
    }
    // Some are known already, and are shredded meanwhile.
    db.append(&store, "known", &events()[..10]).await;
    let mut options = BackfillOptions::default();
    (options.batch, options.erase_shredded) = (7, true);
    let sealing = async {
        let mut done = Backfilled::default();
        for _ in 0..3 {
            let now = loop {
                match db.backfill(&store, &options).await {
                    Err(error) if error.is_retryable() => {}
                    done => break done.unwrap(),
                }
            };
            done.sealed += now.sealed;
            done.erased += now.erased;
        }
        done
    };
    let meanwhile = async {
        let other = db.process(accepting());
        for (number, name) in people.iter().take(10).enumerate() {
            loop {
                let mut transaction = db.begin().await.unwrap();
                let tx = db.tx(&mut transaction);
                let mut done = other
                    .append(tx, &aggregate("Order", "meanwhile"), ExpectedVersion::Any, &[placed("new")])
                    .await
                    .map(drop);
                if done.is_ok() && number % 2 == 0 {
                    done = other.keys().shred(tx, &KeyScope::new("Customer", name.as_str()), "request").await.map(drop);
                }
                match if done.is_ok() { db.commit(transaction).await } else { done } {
                    Ok(()) => break,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
            for event in db.read_log(&other).await.unwrap() {
                let gone =
                    people[..=number].iter().step_by(2).any(|gone| contains(&event.payload, &format!("\"{gone}\"")));
                assert!(!gone || event.is_redacted() || contains(&event.payload, CANARY));
            }
        }
    };
    let (done, ()) = tokio::join!(sealing, meanwhile);
    assert!(done.sealed >= 200, "{done:?}");
    let strict = db.process(strict());
    for event in db.read_log(&strict).await.unwrap() {
        let gone = people[..10].iter().step_by(2).any(|gone| contains(&event.payload, &format!("\"{gone}\"")));
        assert_eq!(event.is_redacted(), gone, "I5: the shred holds for what was sealed meanwhile");
        assert_eq!(contains(&event.payload, CANARY), !gone);
    }
    assert!(db.census(&strict, &every()).await.may_refuse_plaintext("Placed").is_yes());
}

async fn i11_two_at_once_seal_everything_once<B: Backend>() {
    let db = B::make().await;
    let (a, b) = (db.prepared(accepting()).await, db.process(accepting()));
    let events: Vec<NewEvent> = (0..60).map(|number| placed(&format!("p{}", number % 7))).collect();
    db.append_bare("1", &events).await;
    let read = db.read_log(&a).await.unwrap();
    let mut options = BackfillOptions::default();
    options.batch = 5;
    let (a, b) = tokio::join!(db.backfill(&a, &options), db.backfill(&b, &options));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.sealed + b.sealed, 60, "{a:?} {b:?}");
    assert!(db.read_log(&db.process(strict())).await.unwrap() == read);
}

async fn a_later_call_begins_where_nothing_can_appear<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(accepting()).await;
    db.append_bare("1", &[placed("ada"), placed("ada"), placed("eve")]).await;
    let first = db.backfill(&store, &small()).await.unwrap();
    db.append_bare("2", &[placed("ada")]).await;
    let options = with(small(), |options| options.after = first.next);
    let second = db.backfill(&store, &options).await.unwrap();
    assert_eq!((second.sealed, second.unchanged), (1, 0));
    let began = Instant::now();
    db.append_bare("3", &[placed("ada"), placed("ada"), placed("ada"), placed("eve")]).await;
    let options = with(options, |options| options.events_per_second = NonZeroU32::new(20));
    assert_eq!(db.backfill(&store, &options).await.unwrap().sealed, 4);
    assert!(began.elapsed() >= Duration::from_millis(200), "it was not held back");
    // Only these types.
    db.append_bare("4", &[placed("ada"), NewEvent::raw("Whole", 1, CANARY)]).await;
    let options = with(small(), |options| options.event_types = vec!["Whole".into()]);
    assert_eq!(db.backfill(&store, &options).await.unwrap().sealed, 1);
    assert!(contains(&db.stored().await[8].payload, CANARY));
}

/// Events of a transaction in flight lie behind the position at which the next call begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_what_is_in_flight_is_sealed_by_the_next_call() {
    let db = Postgres::new().await;
    let store = db.prepared(accepting()).await;
    let mut open = db.pool.begin().await.unwrap();
    PostgresStore::new()
        .append(&mut open, &aggregate("Order", "open"), ExpectedVersion::Any, &[placed("ada")])
        .await
        .unwrap();
    db.append_bare("1", &[placed("ada"), placed("eve")]).await;
    let first = db.backfill(&store, &small()).await.unwrap();
    assert_eq!(
        (first.sealed, first.next),
        (2, GlobalPosition::START),
        "it does not know what is settled, so it says nothing"
    );
    open.commit().await.unwrap();
    let second = db.backfill(&store, &with(small(), |options| options.after = first.next)).await.unwrap();
    assert_eq!((second.sealed, second.next.get()), (1, 3));
}

/// A subject is shredded and reopened between the moment at which a value of a partly sealed event is opened and the
/// one at which its scope is locked: the value must not come back under the new key. The scope that is locked for what
/// is sealed now may be another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_what_is_shredded_before_the_lock_is_had_does_not_come_back() {
    for (host, reopens) in [("ada", true), ("kim", true), ("ada", false), ("kim", false)] {
        let db = Postgres::new().await;
        let narrow =
            db.prepared(Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap()).await;
        let payload = format!(r#"{{"customer":"ada","name":"{CANARY}","email":"e","host":"{host}"}}"#);
        db.append(&narrow, "1", &[NewEvent::raw("Placed", 1, payload)]).await;
        let wide = || {
            event("Placed")
                .version(1)
                .protect(&["/name"], customer())
                .protect(&["/email"], subject("Customer", "/host"))
        };
        let schemas = || Schemas::builder([wide()]).accept_plaintext("Placed").build().unwrap();
        let ada = KeyScope::new("Customer", "ada");
        let mut shredding = db.pool.begin().await.unwrap();
        narrow.keys().shred(&mut shredding, &ada, "request").await.unwrap();
        if reopens {
            narrow.keys().reopen(&mut shredding, &ada, "back").await.unwrap();
        }
        let (other, from) = (db.process(schemas()), db.pool.clone());
        let running = tokio::spawn(async move {
            let options = with(small(), |options| options.every_payload = true);
            other.backfill(&mut *from.acquire().await.unwrap(), &options, &mut |_| {}).await
        });
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Deadline::of("for somebody to wait for a lock");
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&db.pool).await.unwrap() == 0 {
            deadline.look_again().await;
            assert!(!running.is_finished(), "it did not wait: {:?}", running.await);
        }
        shredding.commit().await.unwrap();
        let done = running.await.unwrap().unwrap();
        // Ada's own plaintext can't be sealed without a reopened scope; what was shredded is redacted all the same.
        assert_eq!(done.sealed, u64::from(reopens || host == "kim"), "{done:?}");
        let read = db.read_log(&db.process(schemas())).await.unwrap();
        assert!(!contains(&read[0].payload, CANARY) && read[0].is_redacted(), "I5: {host} {reopens}");
    }
}
