//! The contents of a copy.

use super::{ordered, placed, places, read_copy, read_copy_by, rewrite, schemas, seen, seller, small, stored_as, with};
use eventseal::error::EventFault;
use eventseal::maintenance::KeptBecause;
use eventseal::store::EventTable;
use eventseal::store::PayloadReplacement;
use eventseal::{
    AggregateVersion, Changes, Error, EventStore, EventVersion, ExpectedVersion, GlobalPosition, NewEvent,
    PersistedEvent, Schemas, SealedStore, Sealer, aggregate, event,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use support::backend::{Backend, insert, payloads};
use support::sealing::CANARY;
use support::{KEYRING, contains, customer, on_every_database};

on_every_database! {
    i1_i7_a_copy_reads_the_same_and_is_up_to_date,
    i4_what_cannot_be_carried_over_for_certain_is_copied_as_stored,
    i2_what_was_sealed_does_not_come_to_lie_in_the_clear,
    i5_what_was_sealed_stays_with_its_owner,
    events_without_a_version_get_the_current_one,
}

#[expect(clippy::too_many_lines, reason = "one copy, looked at from every side")]
async fn i1_i7_a_copy_reads_the_same_and_is_up_to_date<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    let target = B::Store::default();
    db.append(&store, "1", &[placed("ada"), placed("eve"), ordered("ada")]).await;
    db.append_bare(
        "2",
        &[
            placed("kim"),
            ordered("kim"),
            NewEvent::raw("Stranger", 9, "\0any"),
            NewEvent::raw("Placed", 1, r#"{"n":1e400}"#),
        ],
    )
    .await;
    // Positions have a gap where something was rolled back.
    let mut forgotten = db.begin().await.unwrap();
    B::Store::default()
        .append(db.tx(&mut forgotten), &aggregate("Order", "x"), ExpectedVersion::Any, &[ordered("x")])
        .await
        .unwrap();
    drop(forgotten);
    db.append(
        &store,
        "1",
        &[NewEvent::raw("Whole", 1, format!("[\"{CANARY}\"]")), ordered("eve"), NewEvent::raw("Counted", 1, "{}")],
    )
    .await;
    db.shred(&store, "eve").await;
    let (before, read) = (db.stored().await, seen(db.read_log(&store).await.unwrap()));

    let (mut connection, mut other, mut told) =
        (db.connect().await.unwrap(), copy.connect().await.unwrap(), Vec::new());
    let done = store
        .rewrite(db.connection(&mut connection), &target, copy.connection(&mut other), &small(), &mut |progress| {
            told.push((progress.position, progress.last));
        })
        .await
        .unwrap();
    drop((connection, other));
    assert!(done.kept.is_empty() && done.first_kept.is_empty(), "{:?}", done.kept);
    assert_eq!((done.copied, done.rewritten, done.with_voids), (4, 6, 1));
    assert_eq!((told.len(), done.up_to), (4, before.last().unwrap().global_position));
    let after = copy.stored().await;
    let now = read_copy(&db, &copy).await.unwrap();
    assert!(seen(now.clone()) == read, "readers see the same:\n{:?}\n{:?}", payloads(&read), payloads(&now));
    assert_eq!(places(&now[1]), ["/contact/name"]);
    assert!(contains(&now[1].payload, "gone") && after.iter().all(|event| !contains(&event.payload, CANARY)), "I2");
    for (before, after) in before.iter().zip(&after) {
        let ids = |event: &PersistedEvent| {
            (event.event_id, event.global_position, event.aggregate_version, event.created_at, event.aggregate.clone())
        };
        assert_eq!(ids(before), ids(after));
        assert_eq!(before.correlation_id, after.correlation_id);
    }
    assert_eq!(
        after.iter().map(stored_as).filter(|(name, _)| *name == "Placed").count(),
        0,
        "no step is needed any more"
    );
    assert_eq!((stored_as(&after[0]), stored_as(&after[7])), (("Ordered", 1), ("Whole", 2)));
    let same: Vec<usize> = (0..before.len()).filter(|index| before[*index] == after[*index]).collect();
    assert_eq!(same, [2, 5, 8, 9], "untouched events are copied byte by byte");
    assert!(contains(after[1].payload.as_slice(), r#""name":null"#), "a void entry keeps nothing of the value");

    it_catches_up(&db, &copy, &store).await;
}

/// It is complete in itself: a copy can be appended to.
async fn it_catches_up<B: Backend>(db: &B, copy: &B, store: &SealedStore<B::Store>) {
    let target = B::Store::default();
    assert_eq!(rewrite(db, store, copy, &target, &small()).await.unwrap().copied, 0);
    db.append(store, "1", &[placed("ada"), ordered("kim")]).await;
    let more = rewrite(db, store, copy, &target, &small()).await.unwrap();
    assert_eq!((more.copied, more.rewritten), (1, 1));
    assert!(seen(read_copy(db, copy).await.unwrap()) == seen(db.read_log(store).await.unwrap()));
    // A shred reaches both.
    db.shred(store, "ada").await;
    assert!(seen(read_copy(db, copy).await.unwrap()) == seen(db.read_log(store).await.unwrap()));
    assert_eq!(read_copy(db, copy).await.unwrap().iter().filter(|event| event.is_redacted()).count(), 5);
    // And a copy of the copy is the copy.
    let last = copy.append_bare("1", &[NewEvent::raw("Counted", 1, "{}")]).await.remove(0);
    assert_eq!(last.aggregate_version.get(), 9);
    assert!(last.global_position > copy.stored().await[11].global_position);
}

#[expect(clippy::too_many_lines, reason = "a list of events")]
async fn i4_what_cannot_be_carried_over_for_certain_is_copied_as_stored<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    let raw = |name: &str, payload: Value| NewEvent::raw(name, 1, payload.to_string());
    let both = |a: &str, b: &str| json!({ "customer": a, "seller": b, "a": "A", "b": "B", "both": "C" });
    let events = [
        raw("Split", json!({ "customer": "ada", "name": CANARY })),
        raw("Gone", json!({})),
        raw("Vague", json!({ "customer": "eve", "name": CANARY })),
        raw("Vague", json!({ "customer": "ada", "name": CANARY })),
        raw("Two", both("eve", "bob")),
        raw("Two", both("eve", "kim")),
        raw(
            "Nameless",
            json!({
                "customer": "eve", "seller": "bob", "a": 1, "b": 2, "ids": { "customer": "eve", "seller": "bob" },
            }),
        ),
        raw("Nameless", json!({ "customer": "eve", "seller": "bob", "a": 1, "b": 2 })),
        raw("Nameless", json!({ "customer": "ada", "seller": "kim", "a": 1, "b": 2 })),
        raw("Wider", json!({ "customer": "eve", "name": "x", "seller": "bob", "note": "in the clear so far" })),
        raw("Wider", json!({ "customer": "ada", "name": "x", "seller": "ada", "note": "in the clear so far" })),
        raw("One", json!({})),
    ];
    db.append(&store, "1", &events).await;
    // One owner of two places.
    db.append(&store, "2", &[raw("Two", json!({ "customer": "pat", "seller": "pat", "a": "A", "b": "B" }))]).await;
    for name in ["eve", "bob", "pat"] {
        db.shred(&store, name).await;
    }
    let (before, read) = (db.stored().await, seen(db.read_log(&store).await.unwrap()));
    let done = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await.unwrap();
    let kept: Vec<(usize, KeptBecause)> = done
        .first_kept
        .iter()
        .map(|kept| (before.iter().position(|event| event.event_id == kept.event_id).unwrap(), kept.because))
        .collect();
    assert_eq!(
        kept,
        [
            (0, KeptBecause::Split),
            (1, KeptBecause::Dropped),
            (2, KeptBecause::RedactionsUncertain),
            (7, KeptBecause::RedactionAmbiguous),
            (8, KeptBecause::NotAppendable),
            (9, KeptBecause::OwnerShredded),
            (11, KeptBecause::Split),
        ]
    );
    assert!(matches!(done.first_kept[4].error, Some(Error::Event { fault: EventFault::MissingScopeId { .. }, .. })));
    assert_eq!((done.kept.values().sum::<u64>(), done.kept[&KeptBecause::Split]), (7, 2));
    assert_eq!((done.copied, done.rewritten, done.with_voids), (0, 6, 4));
    let after = copy.stored().await;
    for (index, _) in kept {
        let (mut after, before) = (after[index].clone(), before[index].clone());
        after.metadata.clone_from(&before.metadata);
        assert!(after == before, "{index}: as it is stored");
    }
    let now = seen(read_copy(&db, &copy).await.unwrap());
    assert!(now == read, "readers see the same:\n{:?}\n{:?}", payloads(&read), payloads(&now));
    // Each void entry names the key of its own owner: reopening one of them changes nothing for the other.
    db.reopen(&store, "eve").await;
    assert!(seen(read_copy(&db, &copy).await.unwrap()) == read);
}

async fn i2_what_was_sealed_does_not_come_to_lie_in_the_clear<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    let raw = |payload: Value| NewEvent::raw("Open", 1, payload.to_string());
    db.append(
        &store,
        "1",
        &[
            raw(json!({ "customer": "ada", "name": CANARY })),
            raw(json!({ "customer": "ada" })),
            raw(json!({ "customer": "ada", "name": CANARY, "known": format!("{CANARY} is no secret") })),
        ],
    )
    .await;
    for options in [with(small(), |options| options.dry_run = true), small()] {
        let done = rewrite(&db, &store, &copy, &B::Store::default(), &options).await.unwrap();
        assert_eq!(done.kept, BTreeMap::from([(KeptBecause::InTheClear, 1)]));
        assert_eq!((done.rewritten, done.first_kept[0].position), (2, db.stored().await[0].global_position));
    }
    let after = copy.stored().await;
    assert!(!contains(&after[0].payload, CANARY) && stored_as(&after[0]) == ("Open", 1));
    assert!(seen(read_copy(&db, &copy).await.unwrap()) == seen(db.read_log(&store).await.unwrap()));

    // JSON that serde_json can't hold does not disturb a typed step that does not read it.
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
    }
    #[derive(serde::Serialize)]
    struct Noted {
        note: String,
    }
    for beside in ["1", "1e400", r#""\ud800""#, r#"{"\udfff":1}"#] {
        let (db, copy) = (B::make().await, B::make().await);
        let met = event("Met").version(1).protect(&["/name"], customer()).version(2).unprotected("nobody looked");
        let step = |old: Named| Ok::<_, Infallible>(Noted { note: format!("Dear {}", old.name) });
        let schemas = Schemas::builder([met.upcast(1, step)]).allow_older_appends().build().unwrap();
        let store = db.prepared(schemas).await;
        let payload = format!(r#"{{"customer":"ada","name":"{CANARY}","beside":{beside}}}"#);
        db.append(&store, "1", &[NewEvent::raw("Met", 1, payload)]).await;
        let done = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await.unwrap();
        assert_eq!(done.kept, BTreeMap::from([(KeptBecause::InTheClear, 1)]), "beside {beside}");
        assert!(!contains(&copy.stored().await[0].payload, CANARY), "I2");
    }

    // A version that protects less than it did when the event was sealed.
    let (db, copy) = (B::make().await, B::make().await);
    let wide = Schemas::new([event("Placed").version(1).protect(&["/name", "/old"], customer())]).unwrap();
    let payload = json!({ "customer": "ada", "name": "x", "old": CANARY, "email": "y" }).to_string();
    db.append(&db.prepared(wide).await, "1", &[NewEvent::raw("Placed", 1, payload)]).await;
    let other = event("Placed").version(1).protect(&["/name", "/email"], customer());
    let store = db.process(Schemas::builder([other]).accept_plaintext("Placed").build().unwrap());
    let done = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await.unwrap();
    assert_eq!(done.kept, BTreeMap::from([(KeptBecause::InTheClear, 1)]));
    assert!(copy.stored().await[0].payload == db.stored().await[0].payload);
}

/// Steps that move values to other owners, or not.
fn of_owners() -> Schemas {
    let moved = || Changes::new().move_value("/name", "/full");
    let met = |name: &str| event(name).version(1).protect(&["/name"], customer());
    let swap = |mut old: Value| {
        let (name, other) = (old["name"].take(), old["other"].take());
        (old["name"], old["other"]) = (other, name);
        Ok::<_, Infallible>(old)
    };
    Schemas::builder([
        met("Met").version(2).protect(&["/full"], customer()).change(1, moved()),
        // Another member names the owner.
        met("Renamed").version(2).protect(&["/full"], seller()).change(1, moved()),
        // The values of two owners of the event.
        met("Swapped")
            .protect(&["/other"], seller())
            .version(2)
            .protect(&["/name"], customer())
            .protect(&["/other"], seller())
            .upcast(1, swap),
        // A step makes a value for somebody else, of what may be anything.
        met("Made").version(2).protect(&["/name"], customer()).protect(&["/made"], seller()).upcast(
            1,
            |mut old: Value| {
                old["made"] = json!(old["name"].as_str().unwrap_or_default().len());
                Ok::<_, Infallible>(old)
            },
        ),
        met("Grown")
            .version(2)
            .protect(&["/name"], customer())
            .protect(&["/note", "/is"], seller())
            .change(1, Changes::new()),
    ])
    .allow_older_appends()
    .build()
    .unwrap()
}

/// The id that names an owner is not authenticated, and steps are code of the application.
async fn i5_what_was_sealed_stays_with_its_owner<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(of_owners()).await;
    let raw =
        |name: &str, rest: &str| NewEvent::raw(name, 1, format!(r#"{{"customer":"ada","name":"{CANARY}",{rest}}}"#));
    let events = [
        raw("Met", r#""n":1e400"#),
        raw("Met", r#""n":1"#),
        raw("Renamed", r#""seller":"ada""#),
        raw("Renamed", r#""seller":"eve""#),
        raw("Swapped", r#""seller":"ada","other":"o""#),
        raw("Swapped", r#""seller":"eve","other":"o""#),
        raw("Made", r#""seller":"ada""#),
        raw("Made", r#""seller":"eve""#),
        raw("Grown", r#""seller":"eve","note":["in the clear so far",1.50],"is":true"#),
    ];
    db.append(&store, "1", &events).await;
    // Somebody who can write to the store names another owner in the first event.
    let first = db.stored().await.remove(0);
    let new = String::from_utf8(first.payload.clone()).unwrap().replace(r#""ada""#, r#""eve""#).into_bytes();
    let replacement = PayloadReplacement {
        position: first.global_position,
        event_id: first.event_id,
        old: first.payload,
        new,
        metadata: None,
    };
    let mut transaction = db.begin().await.unwrap();
    assert_eq!(B::Store::default().replace_payloads(db.tx(&mut transaction), &[replacement]).await.unwrap().len(), 1);
    db.commit(transaction).await.unwrap();

    let (before, read) = (db.stored().await, seen(db.read_log(&store).await.unwrap()));
    for options in [with(small(), |options| options.dry_run = true), small()] {
        let done = rewrite(&db, &store, &copy, &B::Store::default(), &options).await.unwrap();
        let kept: Vec<_> = done
            .first_kept
            .iter()
            .map(|kept| (before.iter().position(|event| event.event_id == kept.event_id).unwrap(), kept.because))
            .collect();
        assert_eq!(kept, [0, 3, 5, 7].map(|index| (index, KeptBecause::OtherOwner)));
        assert!(matches!(
            &done.first_kept[0].error,
            Some(Error::Event { fault: EventFault::OtherOwner { pointer }, .. })
                if pointer.as_str() == "/name"
        ));
        assert_eq!(done.rewritten, 5);
    }
    assert!(seen(read_copy_by(&db, &copy, of_owners()).await.unwrap()) == read);
    db.shred(&store, "ada").await;
    for event in read_copy_by(&db, &copy, of_owners()).await.unwrap() {
        assert!(!contains(&event.payload, CANARY), "I5: {} outlived a shred", event.event_type);
    }
}

async fn events_without_a_version_get_the_current_one<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let changed =
        || event("Placed").version(1).protect(&["/name"], customer()).version(2).protect(&["/full_name"], customer());
    let changed = || changed().change(1, Changes::new().move_value("/name", "/full_name")).legacy_version(1);
    let plain = || event("Counted").version(1).legacy_version(1);
    let schemas = || Schemas::builder([changed(), plain()]).accept_plaintext("Placed").build().unwrap();
    let store = db.prepared(schemas()).await;
    for (position, name) in [(3, "Placed"), (5, "Counted")] {
        let mut old = PersistedEvent::from_new(
            aggregate("Order", name),
            AggregateVersion::FIRST,
            GlobalPosition::try_from(position).unwrap(),
            NewEvent::raw(name, 0, format!(r#"{{"customer":"ada","name":"{CANARY}"}}"#)),
        );
        old.event_version = EventVersion::new(0);
        insert(&db, old).await;
    }
    let read = db.read_log(&store).await.unwrap();
    assert_eq!(rewrite(&db, &store, &copy, &B::Store::default(), &small()).await.unwrap().rewritten, 2);
    let after = copy.stored().await;
    assert_eq!(after.iter().map(stored_as).collect::<Vec<_>>(), [("Placed", 2), ("Counted", 1)]);
    assert!(!contains(&after[0].payload, CANARY) && after[1].payload == read[1].payload);
    let sealer = Sealer::new(B::Keys::default(), std::sync::Arc::clone(&KEYRING), schemas());
    let mut transaction = db.begin().await.unwrap();
    assert!(seen(sealer.open(db.tx(&mut transaction), after).await.unwrap()) == seen(read));
}
