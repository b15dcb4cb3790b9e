//! Numbers are compared by their values and not by their spellings, even if a crate of the build turns on serde_json's
//! `arbitrary_precision`, which keeps spellings. `scripts/test` runs this with it and without.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use eventseal::maintenance::{KeptBecause, RewriteOptions};
use eventseal::memory::{MemoryDb, MemoryStore};
use eventseal::{Namespace, NewEvent, Schemas, event, subject};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use support::world::World;

#[derive(Deserialize)]
struct Paid {
    amount: f64,
}

#[derive(Serialize)]
struct Noted {
    total: f64,
    text: String,
}

type Step = fn(Paid) -> Noted;

/// Steps that carry a protected number into the clear, as a number or in a text.
fn steps() -> [(&'static str, Step); 2] {
    [
        ("as a number", |old| Noted { total: old.amount, text: String::new() }),
        ("in a text", |old| Noted { total: 0.5, text: format!("paid {} EUR", old.amount) }),
    ]
}

#[tokio::test]
async fn i2_a_number_does_not_come_to_lie_in_the_clear_in_another_spelling() {
    for amount in
        ["1234.50", "1234.5", "12345e-1", "1.2345E+3", "98765", "98765.0", "9.8765e4", "1234567890123456789012345"]
    {
        for (how, step) in steps() {
            if how == "in a text" && amount.len() > 16 {
                continue; // as a text of an f64 it is looked for, too, but rounded to what nobody would call it
            }
            let world = World::new();
            let v1 = || event("Paid").version(1).protect(&["/amount"], subject("Customer", "/customer"));
            let writer = world.store(Schemas::new([v1()]).unwrap()).await;
            let payload = format!(r#"{{"customer":"42","amount":{amount}}}"#);
            world.append(&writer, "1", &[NewEvent::raw("Paid", 1, payload)]).await;

            let v2 =
                v1().version(2).unprotected("nobody looked").upcast(1, move |old: Paid| Ok::<_, Infallible>(step(old)));
            let store = world.store(Schemas::new([v2]).unwrap()).await;
            let copy = MemoryDb::new(Namespace::new("test").unwrap());
            let options = RewriteOptions::default();
            let done = store
                .rewrite(&mut world.db.begin(), &MemoryStore::new(), &mut copy.begin(), &options, &mut |_| {})
                .await
                .unwrap();
            assert_eq!(done.kept, BTreeMap::from([(KeptBecause::InTheClear, 1)]), "{amount} {how}");
        }
    }
}

/// A number that lies in the clear anyway is no secret, however a step spells it.
#[tokio::test]
async fn a_number_that_is_in_the_clear_already_is_copied() {
    let world = World::new();
    let v1 = || event("Paid").version(1).protect(&["/amount"], subject("Customer", "/customer"));
    let writer = world.store(Schemas::new([v1()]).unwrap()).await;
    world
        .append(
            &writer,
            "1",
            &[NewEvent::raw("Paid", 1, r#"{"customer":"42","amount":1234.5,"list":[12345e-1,1234.50]}"#)],
        )
        .await;
    let step = |old: Paid| Ok::<_, Infallible>(Noted { total: old.amount, text: String::new() });
    let store = world.store(Schemas::new([v1().version(2).unprotected("it is public").upcast(1, step)]).unwrap()).await;
    let copy = MemoryDb::new(Namespace::new("test").unwrap());
    let options = RewriteOptions::default();
    let done = store
        .rewrite(&mut world.db.begin(), &MemoryStore::new(), &mut copy.begin(), &options, &mut |_| {})
        .await
        .unwrap();
    assert_eq!((done.rewritten, done.kept.len()), (1, 0), "{:?}", done.first_kept);
}
