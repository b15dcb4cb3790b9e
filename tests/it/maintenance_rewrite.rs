//! Rewrite, on every database: a copy of a store whose events are of their current versions.

use eventseal::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use support::backend::{Backend, Meddled, insert, payloads};
use support::meddler::Trouble;
use support::sealing::CANARY;
use support::{KEYRING, Memory, Postgres, Sqlite, contains, customer, on_every_database, whole};

on_every_database! {
    i1_i7_a_copy_reads_the_same_and_is_up_to_date,
    i4_what_cannot_be_carried_over_for_certain_is_copied_as_stored,
    i2_what_was_sealed_does_not_come_to_lie_in_the_clear,
    i5_what_was_sealed_stays_with_its_owner,
    i4_a_disabled_key_stops_the_run_and_names_the_event,
    a_dry_run_writes_nothing_and_says_the_same,
    i11_nothing_that_does_not_open_is_committed,
    i8_i11_whatever_ends_in_the_middle_is_completed,
    i6_keys_are_committed_before_their_events,
    i5_others_go_on_meanwhile,
    events_without_a_version_get_the_current_one,
    i5_readers_may_lag_and_a_copy_does_not,
    a_target_that_holds_something_else_is_refused,
}

fn seller() -> Owner {
    subject("Customer", "/seller")
}

/// `Placed` moves `/name` to `/contact/name` and then is called `Ordered`; others are what can go wrong.
fn schemas() -> Schemas {
    Schemas::builder([
        event("Placed")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .protect(&["/contact/name"], customer())
            .redact_as("/contact/name", "erased")
            .change(1, Changes::new().move_value("/name", "/contact/name").set_default("/currency", "EUR"))
            .upcast_metadata(1, |old: Option<Value>, _: &StepContext<'_>| Ok::<_, Infallible>(old.map(|old| json!({ "old": old }))))
            .change(2, Changes::new().rename_type("Ordered", 1)),
        event("Ordered").version(1).protect(&["/contact/name"], customer()).redact_as("/contact/name", "gone"),
        event("Split").version(1).protect(&["/name"], customer()).split(1, &[("Counted", 1)], |_, _| {
            Ok::<_, Infallible>(vec![SplitPart::new("Counted", 1, json!({})), SplitPart::new("Counted", 1, json!({}))])
        }),
        event("One").version(1).split(1, &[("Counted", 1)], |_, _| Ok::<_, Infallible>(vec![SplitPart::new("Counted", 1, json!({}))])),
        event("Gone").version(1).drop_from(1),
        event("Counted").version(1),
        event("Vague")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .protect(&["/name"], customer())
            .upcast(1, |old: Value| Ok::<_, Infallible>(old)),
        event("Open").version(1).protect(&["/name"], customer()).version(2).unprotected("nobody looked").upcast(1, |mut old: Value| {
            old["greeting"] = json!(format!("Dear {}", old["name"].as_str().unwrap_or_default()));
            Ok::<_, Infallible>(old)
        }),
        event("Two")
            .version(1)
            .protect(&["/a", "/both"], customer())
            .protect(&["/b"], seller())
            .version(2)
            .protect(&["/x/a", "/both"], customer())
            .protect(&["/x/b"], seller())
            .change(1, Changes::new().move_value("/a", "/x/a").move_value("/b", "/x/b")),
        event("Nameless")
            .version(1)
            .protect(&["/a"], customer())
            .protect(&["/b"], seller())
            .version(2)
            .protect(&["/a"], subject("Customer", "/ids/customer"))
            .protect(&["/b"], subject("Customer", "/ids/seller"))
            .change(1, Changes::new().remove("/customer").remove("/seller")),
        event("Wider")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .protect(&["/name"], customer())
            .protect(&["/note"], seller())
            .change(1, Changes::new()),
        event("Broken").version(1).version(2).upcast(1, |_: Value| Err::<Value, _>("no")),
        event("Whole").version(1).protect_whole(Owner::Aggregate).version(2).protect_whole(Owner::Aggregate).change(1, Changes::new()),
    ])
    .accept_plaintext("Placed")
    .accept_plaintext("Ordered")
    .allow_older_appends()
    .allow_unknown_types()
    .build()
    .unwrap()
}

fn placed(customer: &str) -> NewEvent {
    let payload = format!("{{\"customer\" :\"{customer}\",\"name\":\"{CANARY} {customer}\",\"n\":1.50}}");
    NewEvent::raw("Placed", 1, payload)
        .with_metadata(r#"{"by":1}"#)
        .with_correlation_id("c")
        .with_created_at(time::OffsetDateTime::UNIX_EPOCH)
}

fn ordered(customer: &str) -> NewEvent {
    NewEvent::raw("Ordered", 1, format!("{{\"customer\":\"{customer}\",\"contact\":{{\"name\":\"{CANARY} {customer}\"}}}}"))
}

fn small() -> RewriteOptions {
    let mut options = RewriteOptions::default();
    options.batch = 3;
    options
}

fn with(mut options: RewriteOptions, set: impl FnOnce(&mut RewriteOptions)) -> RewriteOptions {
    set(&mut options);
    options
}

async fn rewrite<B, S, T>(source: &B, store: &SealedStore<S>, copy: &B, target: &T, options: &RewriteOptions) -> Result<Rewritten>
where
    B: Backend,
    S: EventStore<Tx = B::Tx> + EventTable<Tx = B::Tx>,
    T: EventTable<Tx = B::Tx>,
{
    let (mut connection, mut other) = (source.connect().await.unwrap(), copy.connect().await.unwrap());
    store.rewrite(source.connection(&mut connection), target, copy.connection(&mut other), options, &mut |_| {}).await
}

/// What readers of the copy see, with the keys of the source.
async fn read_copy<B: Backend>(source: &B, copy: &B) -> Result<Vec<PersistedEvent>> {
    read_copy_by(source, copy, schemas()).await
}

async fn read_copy_by<B: Backend>(source: &B, copy: &B, schemas: Schemas) -> Result<Vec<PersistedEvent>> {
    let stored = copy.stored().await;
    let sealer = Sealer::new(B::Keys::default(), std::sync::Arc::clone(&KEYRING), schemas);
    let mut transaction = source.begin().await.unwrap();
    sealer.open(source.tx(&mut transaction), stored).await
}

/// Events as readers see them, whatever they are stored as.
fn seen(mut events: Vec<PersistedEvent>) -> Vec<PersistedEvent> {
    for event in &mut events {
        (event.stored_type, event.stored_version) = ("any".into(), EventVersion::new(1));
        let json = |bytes: &Vec<u8>| serde_json::from_slice::<Value>(bytes).unwrap();
        event.metadata = event.metadata.as_ref().map(|metadata| json(metadata).to_string().into_bytes());
        event.redacted.sort_unstable();
    }
    events
}

fn stored_as(event: &PersistedEvent) -> (&str, u32) {
    (event.stored_type.as_str(), event.stored_version.get())
}

fn places(event: &PersistedEvent) -> Vec<&str> {
    event.redacted.iter().map(JsonPointer::as_str).collect()
}

async fn i1_i7_a_copy_reads_the_same_and_is_up_to_date<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    let target = B::Store::default();
    db.append(&store, "1", &[placed("ada"), placed("eve"), ordered("ada")]).await;
    db.append_bare(
        "2",
        &[placed("kim"), ordered("kim"), NewEvent::raw("Stranger", 9, "\0any"), NewEvent::raw("Placed", 1, r#"{"n":1e400}"#)],
    )
    .await;
    // Positions have a gap where something was rolled back.
    let mut forgotten = db.begin().await.unwrap();
    B::Store::default().append(db.tx(&mut forgotten), &aggregate("Order", "x"), ExpectedVersion::Any, &[ordered("x")]).await.unwrap();
    drop(forgotten);
    db.append(&store, "1", &[NewEvent::raw("Whole", 1, format!("[\"{CANARY}\"]")), ordered("eve"), NewEvent::raw("Counted", 1, "{}")])
        .await;
    db.shred(&store, "eve").await;
    let (before, read) = (db.stored().await, seen(db.read_log(&store).await.unwrap()));

    let (mut connection, mut other, mut told) = (db.connect().await.unwrap(), copy.connect().await.unwrap(), Vec::new());
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
    assert_eq!(after.iter().map(stored_as).filter(|(name, _)| *name == "Placed").count(), 0, "no step is needed any more");
    assert_eq!((stored_as(&after[0]), stored_as(&after[7])), (("Ordered", 1), ("Whole", 2)));
    let same: Vec<usize> = (0..before.len()).filter(|index| before[*index] == after[*index]).collect();
    assert_eq!(same, [2, 5, 8, 9], "untouched events are copied byte by byte");
    assert!(contains(after[1].payload.as_slice(), r#""name":null"#), "a void entry keeps nothing of the value");

    // It catches up, and is complete in itself: a copy can be appended to.
    assert_eq!(rewrite(&db, &store, &copy, &target, &small()).await.unwrap().copied, 0);
    db.append(&store, "1", &[placed("ada"), ordered("kim")]).await;
    let more = rewrite(&db, &store, &copy, &target, &small()).await.unwrap();
    assert_eq!((more.copied, more.rewritten), (1, 1));
    assert!(seen(read_copy(&db, &copy).await.unwrap()) == seen(db.read_log(&store).await.unwrap()));
    // A shred reaches both.
    db.shred(&store, "ada").await;
    assert!(seen(read_copy(&db, &copy).await.unwrap()) == seen(db.read_log(&store).await.unwrap()));
    assert_eq!(read_copy(&db, &copy).await.unwrap().iter().filter(|event| event.is_redacted()).count(), 5);
    // And a copy of the copy is the copy.
    let last = copy.append_bare("1", &[NewEvent::raw("Counted", 1, "{}")]).await.remove(0);
    assert_eq!(last.aggregate_version.get(), 9);
    assert!(last.global_position > copy.stored().await[11].global_position);
}

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
        raw("Nameless", json!({ "customer": "eve", "seller": "bob", "a": 1, "b": 2, "ids": { "customer": "eve", "seller": "bob" } })),
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
    assert!(matches!(done.first_kept[4].error, Some(Error::MissingScopeId { .. })));
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

    // What serde_json can't hold beside it hides nothing from a typed step that does not read it.
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

/// What names an owner is not authenticated, and steps are anybody's code.
async fn i5_what_was_sealed_stays_with_its_owner<B: Backend>() {
    let moved = || Changes::new().move_value("/name", "/full");
    let met = |name: &str| event(name).version(1).protect(&["/name"], customer());
    let swap = |mut old: Value| {
        let (name, other) = (old["name"].take(), old["other"].take());
        (old["name"], old["other"]) = (other, name);
        Ok::<_, Infallible>(old)
    };
    let schemas = || {
        Schemas::builder([
            met("Met").version(2).protect(&["/full"], customer()).change(1, moved()),
            // Another member names the owner.
            met("Renamed").version(2).protect(&["/full"], seller()).change(1, moved()),
            // Of two owners in the event.
            met("Swapped")
                .protect(&["/other"], seller())
                .version(2)
                .protect(&["/name"], customer())
                .protect(&["/other"], seller())
                .upcast(1, swap),
            // A step makes a value for somebody else, of what may be anything.
            met("Made").version(2).protect(&["/name"], customer()).protect(&["/made"], seller()).upcast(1, |mut old: Value| {
                old["made"] = json!(old["name"].as_str().unwrap_or_default().len());
                Ok::<_, Infallible>(old)
            }),
            met("Grown").version(2).protect(&["/name"], customer()).protect(&["/note", "/is"], seller()).change(1, Changes::new()),
        ])
        .allow_older_appends()
        .build()
        .unwrap()
    };
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    let raw = |name: &str, rest: &str| NewEvent::raw(name, 1, format!(r#"{{"customer":"ada","name":"{CANARY}",{rest}}}"#));
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
    // Whoever writes to the store names another owner in the first one.
    let first = db.stored().await.remove(0);
    let new = String::from_utf8(first.payload.clone()).unwrap().replace(r#""ada""#, r#""eve""#).into_bytes();
    let replacement = PayloadReplacement { position: first.global_position, event_id: first.event_id, old: first.payload, new };
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
        assert!(matches!(&done.first_kept[0].error, Some(Error::OtherOwner { pointer, .. }) if pointer.as_str() == "/name"));
        assert_eq!(done.rewritten, 5);
    }
    assert!(seen(read_copy_by(&db, &copy, schemas()).await.unwrap()) == read);
    db.shred(&store, "ada").await;
    for event in read_copy_by(&db, &copy, schemas()).await.unwrap() {
        assert!(!contains(&event.payload, CANARY), "I5: {} outlived a shred", event.event_type);
    }
}

async fn i4_a_disabled_key_stops_the_run_and_names_the_event<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    let target = B::Store::default();
    db.append(&store, "1", &[placed("ada"), placed("ada"), placed("ada"), placed("eve"), ordered("eve")]).await;
    db.disable(&store, "eve").await;
    let before = db.stored().await;
    for options in [with(small(), |options| options.dry_run = true), small()] {
        let stopped = rewrite(&db, &store, &copy, &target, &options).await.unwrap_err();
        let Error::Unreadable(unreadable) = &stopped else { panic!("{stopped:?}") };
        assert_eq!((unreadable.event_id, matches!(unreadable.error, Error::Disabled { .. })), (before[3].event_id, true));
        assert!(!whole(&stopped).contains(CANARY));
        assert_eq!(copy.stored().await.len(), if options.dry_run { 0 } else { 3 }, "what was done before stays");
    }
    db.enable(&store, "eve").await;
    assert_eq!(rewrite(&db, &store, &copy, &target, &small()).await.unwrap().rewritten, 1);
    assert!(seen(read_copy(&db, &copy).await.unwrap()) == seen(db.read_log(&store).await.unwrap()));

    // Unless it is told to copy what can't be read.
    let copy = B::make().await;
    db.disable(&store, "eve").await;
    db.append(&store, "1", &[NewEvent::raw("Broken", 1, "{}")]).await;
    let done = rewrite(&db, &store, &copy, &target, &with(small(), |options| options.copy_unreadable = true)).await.unwrap();
    assert_eq!((done.kept[&KeptBecause::Unreadable], done.rewritten), (3, 3));
    assert!(
        matches!(done.first_kept[0].error, Some(Error::Disabled { .. })) && matches!(done.first_kept[2].error, Some(Error::Upcast { .. }))
    );
    db.enable(&store, "eve").await;
    assert!(copy.stored().await[3].payload == before[3].payload, "it can be read again when the stop is over");
    // A value that has to be sealed for somebody who is stopped.
    let copy = B::make().await;
    db.append_bare("2", &[ordered("eve")]).await;
    db.disable(&store, "eve").await;
    let stopped = rewrite(&db, &store, &copy, &target, &small()).await.unwrap_err();
    assert!(matches!(stopped, Error::Unreadable(_)));
}

async fn a_dry_run_writes_nothing_and_says_the_same<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve"), ordered("ada"), NewEvent::raw("Gone", 1, "{}")]).await;
    db.append_bare("2", &[placed("new"), ordered("eve")]).await;
    db.shred(&store, "eve").await;
    let dry = rewrite(&db, &store, &copy, &B::Store::default(), &with(small(), |options| options.dry_run = true)).await.unwrap();
    assert!(copy.stored().await.is_empty());
    let mut connection = db.connect().await.unwrap();
    let history = store.keys().key_history(db.connection(&mut connection), &KeyScope::new("Customer", "new")).await.unwrap();
    assert!(history.is_none(), "a dry run makes no keys");
    drop(connection);
    let done = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await.unwrap();
    let numbers = |done: &Rewritten| (done.copied, done.rewritten, done.with_voids, done.kept.clone(), done.up_to);
    assert_eq!(numbers(&dry), numbers(&done));
    assert_eq!(done.kept, BTreeMap::from([(KeptBecause::Dropped, 1), (KeptBecause::OwnerShredded, 1)]));
    assert_eq!((done.copied, done.rewritten, done.with_voids), (1, 3, 1));
}

async fn i11_nothing_that_does_not_open_is_committed<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve"), ordered("ada")]).await;
    db.shred(&store, "eve").await;
    let target = Meddled::<B>::default();
    type Rows = Box<dyn Fn(&mut Vec<PersistedEvent>) + Send + Sync>;
    let other = |event: &mut PersistedEvent| event.created_at += Duration::from_secs(1);
    let changes: [(&str, Rows); 9] = [
        ("fewer", Box::new(|events| drop(events.pop()))),
        ("plaintext", Box::new(|events| events[0].payload = ordered("ada").payload)),
        (
            "another value",
            Box::new(|events| {
                let at = events[0].payload.iter().rposition(|byte| *byte == b'E').unwrap();
                events[0].payload[at] = b'F';
            }),
        ),
        ("another copy", Box::new(|events| events[2].payload.push(b' '))),
        (
            "a value in a void place",
            Box::new(|events| {
                let text = String::from_utf8(events[1].payload.clone()).unwrap();
                events[1].payload = text.replace("null", "1234").into_bytes();
            }),
        ),
        ("another time", Box::new(move |events| other(&mut events[1]))),
        ("another version", Box::new(|events| events[0].stored_version = EventVersion::new(7))),
        ("other metadata", Box::new(|events| events[0].metadata = Some(b"{}".to_vec()))),
        ("another id", Box::new(|events| events[2].event_id = uuid::Uuid::now_v7())),
    ];
    for (what, change) in changes {
        target.inserts(change);
        let refused = rewrite(&db, &store, &copy, &target, &small()).await;
        assert!(matches!(refused, Err(Error::NotVerified { .. })), "{what}: {refused:?}");
        assert!(copy.stored().await.is_empty(), "{what}: something was committed");
    }
    target.peace();
    assert_eq!(rewrite(&db, &store, &copy, &target, &small()).await.unwrap().rewritten, 2);
}

async fn i8_i11_whatever_ends_in_the_middle_is_completed<B: Backend>() {
    let fill = async |db: B| {
        let store = db.prepared(schemas()).await;
        // New ones every time.
        let [ada, eve, kim, new] = ["ada", "eve", "kim", "new"].map(|name| format!("{name}-{}", uuid::Uuid::now_v7()));
        db.append(&store, "1", &[placed(&ada), placed(&eve), ordered(&ada), placed(&kim)]).await;
        db.append_bare("2", &[placed(&new), NewEvent::raw("Gone", 1, "{}")]).await;
        db.shred(&store, &eve).await;
        db
    };
    let (mut db, mut copy) = (fill(B::make().await).await, B::make().await);
    let (calls, target_calls) = {
        let ((store, source), target) = (db.meddling(schemas()), Meddled::<B>::default());
        rewrite(&db, &store, &copy, &target, &small()).await.unwrap();
        (source.calls(), target.calls())
    };
    assert!(calls >= 6 && target_calls >= 8, "{calls} {target_calls}");
    for (in_target, call) in (0..calls).map(|call| (false, call)).chain((0..target_calls).map(|call| (true, call))) {
        for trouble in [Trouble::Fails, Trouble::FailsDone, Trouble::Hangs, Trouble::HangsDone] {
            (db, copy) = (fill(db.again().await).await, copy.again().await);
            let read = seen(db.read_log(&db.process(schemas())).await.unwrap());
            let ((store, source), target) = (db.meddling(schemas()), Meddled::<B>::default());
            if in_target { &target } else { &source }.trouble(call, trouble);
            let what = format!("{} {call} {trouble:?}", if in_target { "target" } else { "source" });
            {
                let (mut connection, mut other) = (db.connect().await.unwrap(), copy.connect().await.unwrap());
                let (options, mut progress) = (small(), |_: RewriteProgress<'_>| {});
                let rewriting =
                    store.rewrite(db.connection(&mut connection), &target, copy.connection(&mut other), &options, &mut progress);
                let mut rewriting = std::pin::pin!(rewriting);
                loop {
                    tokio::select! {
                        result = &mut rewriting => { assert!(result.is_err(), "{what}: it went on"); break }
                        () = tokio::task::yield_now() => if source.hangs() || target.hangs() { break },
                    }
                }
            }
            assert!(seen(db.read_log(&db.process(schemas())).await.unwrap()) == read, "{what}: the source is what it was");
            let part = seen(read_copy(&db, &copy).await.unwrap());
            assert!(part == read[..part.len()], "{what}: a shorter copy that is complete in itself");
            source.peace();
            target.peace();
            rewrite(&db, &store, &copy, &target, &small()).await.unwrap();
            assert!(seen(read_copy(&db, &copy).await.unwrap()) == read, "{what}: running it again completes it");
        }
    }
}

async fn i6_keys_are_committed_before_their_events<B: Backend + 'static>() {
    let (db, copy) = (std::sync::Arc::new(B::make().await), B::make().await);
    let store = db.prepared(schemas()).await;
    db.append_bare("1", &[placed("new"), placed("newer")]).await;
    let target = Meddled::<B>::default();
    let (looker, looked) = (std::sync::Arc::clone(&db), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let told = std::sync::Arc::clone(&looked);
    *target.state.before_write.lock().await = Some(Box::new(move || {
        let (db, told) = (std::sync::Arc::clone(&looker), std::sync::Arc::clone(&told));
        Box::pin(async move {
            // Somebody else, while the events are being inserted.
            let mut connection = db.connect().await.unwrap();
            for name in ["new", "newer"] {
                let history = B::Keys::default().history(db.connection(&mut connection), &KeyScope::new("Customer", name)).await.unwrap();
                assert_eq!(history.expect("I6: the key is not committed yet").keys.len(), 1);
            }
            told.store(true, std::sync::atomic::Ordering::SeqCst);
        })
    }));
    assert_eq!(rewrite(&*db, &store, &copy, &target, &small()).await.unwrap().rewritten, 2);
    assert!(looked.load(std::sync::atomic::Ordering::SeqCst));
}

async fn i5_others_go_on_meanwhile<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    let people: Vec<String> = (0..10).map(|number| format!("p{number}")).collect();
    for round in 0..12 {
        let events: Vec<NewEvent> = people.iter().map(|name| if round % 3 == 0 { ordered(name) } else { placed(name) }).collect();
        if round % 4 == 1 {
            db.append_bare(&format!("plain {round}"), &events).await;
        } else {
            db.append(&store, &format!("sealed {round}"), &events).await;
        }
    }
    let target = B::Store::default();
    let options = with(small(), |options| options.batch = 7);
    let copying = async {
        let mut rewritten = 0;
        for _ in 0..4 {
            rewritten += loop {
                match rewrite(&db, &store, &copy, &target, &options).await {
                    Err(error) if error.is_retryable() => {}
                    done => break done.unwrap().rewritten,
                }
            };
        }
        rewritten
    };
    let meanwhile = async {
        let other = db.process(schemas());
        for (number, name) in people.iter().enumerate() {
            loop {
                let mut transaction = db.begin().await.unwrap();
                let tx = db.tx(&mut transaction);
                let mut done = other.append(tx, &aggregate("Order", "meanwhile"), ExpectedVersion::Any, &[placed("new")]).await.map(drop);
                if done.is_ok() && number % 2 == 0 {
                    done = other.keys().shred(tx, &KeyScope::new("Customer", name.as_str()), "request").await.map(drop);
                }
                match if done.is_ok() { db.commit(transaction).await } else { done } {
                    Ok(()) => break,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let (rewritten, ()) = tokio::join!(copying, meanwhile);
    assert!(rewritten > 50, "{rewritten}");
    rewrite(&db, &store, &copy, &target, &options).await.unwrap();
    let (now, source) = (read_copy(&db, &copy).await.unwrap(), db.read_log(&store).await.unwrap());
    assert_eq!((now.len(), source.len()), (130, 130));
    for event in now.iter().filter(|event| !event.aggregate.aggregate_id().starts_with("plain")) {
        let gone = people.iter().step_by(2).any(|gone| contains(&event.payload, &format!("\"{gone}\"")));
        assert_eq!((event.is_redacted(), contains(&event.payload, CANARY)), (gone, !gone), "I5: no value outlives its shred in the copy");
    }
}

async fn events_without_a_version_get_the_current_one<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let changed = || event("Placed").version(1).protect(&["/name"], customer()).version(2).protect(&["/full_name"], customer());
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

async fn i5_readers_may_lag_and_a_copy_does_not<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    drop(db.prepared(schemas()).await);
    let store = db.process(schemas()).reads_may_lag(Duration::from_secs(3_600));
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    // Not in a transaction: what that sees may be old, and makes nobody lag.
    let first = async || {
        let mut connection = db.connect().await.unwrap();
        let page = store.read_events(db.connection(&mut connection), GlobalPosition::START, 1, &EventFilter::default()).await.unwrap();
        page.events.into_iter().next().unwrap()
    };
    assert!(contains(&first().await.payload, CANARY));
    db.shred(&db.process(schemas()), "ada").await;
    assert!(contains(&first().await.payload, CANARY), "its readers lag");
    let done = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await.unwrap();
    assert_eq!((done.rewritten, done.with_voids), (2, 1));
    assert!(read_copy(&db, &copy).await.unwrap()[0].is_redacted());
}

async fn a_target_that_holds_something_else_is_refused<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("ada"), placed("ada"), placed("eve"), ordered("eve")]).await;
    copy.append_bare("other", &[ordered("x")]).await;
    let refused = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await;
    assert!(matches!(refused, Err(Error::ForeignTarget { position }) if position.get() == 1), "{refused:?}");
    assert_eq!(copy.stored().await.len(), 1);
    // One that lacks an event in the middle.
    let copy = B::make().await;
    let mut stored = db.stored().await;
    stored.truncate(3);
    stored.remove(1);
    let mut transaction = copy.begin().await.unwrap();
    B::Store::default().insert_events(copy.tx(&mut transaction), &stored).await.unwrap();
    copy.commit(transaction).await.unwrap();
    let refused = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await;
    assert!(matches!(refused, Err(Error::IncompleteTarget { events: 5, copied: 4, .. })), "{refused:?}");
    let copy = B::make().await;
    let began = Instant::now();
    let options = with(small(), |options| options.events_per_second = NonZeroU32::new(20));
    assert_eq!(rewrite(&db, &store, &copy, &B::Store::default(), &options).await.unwrap().rewritten, 4);
    assert!(began.elapsed() >= Duration::from_millis(250), "it was not held back");
}

/// Many sealed values beside much that is in the clear take one look at each, not one of the latter for each of the former.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_values_beside_a_long_text_take_no_longer_than_both() {
    let (db, copy) = (Memory::new(), Memory::new());
    let met = || event("Met").version(1).protect(&["/secret"], customer());
    let store = db.prepared(Schemas::new([met()]).unwrap()).await;
    let list: Vec<String> = (0..5_000).map(|n| format!("value-{n:08}")).collect();
    let text: String = (0..100_000).map(|n| format!("word{n} ")).collect();
    let payload = json!({ "customer": "ada", "secret": list, "text": text }).to_string();
    db.append(&store, "1", &[NewEvent::raw("Met", 1, payload)]).await;
    let store = db.process(
        Schemas::new([met().version(2).protect(&["/s"], customer()).change(1, Changes::new().move_value("/secret", "/s"))]).unwrap(),
    );
    let began = Instant::now();
    assert_eq!(rewrite(&db, &store, &copy, &MemoryStore::new(), &small()).await.unwrap().rewritten, 1);
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
}

/// A batch is bounded by what its payloads weigh, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_make_small_batches() {
    let (db, copy) = (Sqlite::new().await, Sqlite::new().await);
    let store = db.prepared(schemas()).await;
    for megabytes in [20, 30, 60, 1] {
        db.append_bare("1", &[NewEvent::raw("Stranger", 1, vec![b'x'; megabytes << 20])]).await;
    }
    let (mut from, mut to, mut told) = (db.pool.acquire().await.unwrap(), copy.pool.acquire().await.unwrap(), Vec::new());
    let mut tell = |progress: RewriteProgress<'_>| told.push(progress.position.get());
    let done = store.rewrite(&mut from, &SqliteStore::new(), &mut to, &RewriteOptions::default(), &mut tell).await.unwrap();
    assert_eq!((done.copied, told), (4, vec![2, 4]));
}

/// Into other tables of the same database: a release can switch from one to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_other_tables_of_the_same_database_and_what_is_in_flight() {
    let db = Postgres::new().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    db.shred(&store, "eve").await;
    let target = PostgresStore::with_tables(PostgresTables::new().events("events_2").heads("heads_2")).unwrap();
    target.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    // A position that is given out and not committed: the copy must not pass it.
    let mut open = db.pool.begin().await.unwrap();
    store.append(&mut open, &aggregate("Order", "open"), ExpectedVersion::Any, &[placed("ada")]).await.unwrap();
    db.append(&store, "2", &[ordered("kim")]).await;
    let (pool, copying) = (db.pool.clone(), target.clone());
    let store = std::sync::Arc::new(store);
    let (rewriting, source) = (std::sync::Arc::clone(&store), db.pool.clone());
    let running = tokio::spawn(async move {
        let (mut connection, mut other) = (source.acquire().await.unwrap(), pool.acquire().await.unwrap());
        rewriting.rewrite(&mut connection, &copying, &mut other, &small(), &mut |_| {}).await
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareLock' AND relation = 'events'::regclass";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&db.pool).await.unwrap() == 0 {
        assert!(!running.is_finished(), "it did not wait: {:?}", running.await);
    }
    open.commit().await.unwrap();
    let done = running.await.unwrap().unwrap();
    assert_eq!((done.copied, done.rewritten, done.up_to.get()), (1, 3, 4));
    let copied = SealedStore::new(target, PostgresKeys::new(), std::sync::Arc::clone(&*KEYRING), schemas());
    assert!(seen(db.read_log(&copied).await.unwrap()) == seen(db.read_log(&*store).await.unwrap()));
    let appended = db.append(&copied, "1", &[ordered("ada")]).await;
    assert_eq!((appended[0].aggregate_version.get(), appended[0].global_position.get()), (3, 5));
    let mut connection = db.pool.acquire().await.unwrap();
    let options = CensusOptions::default();
    let census = copied.census(&mut connection, &options, &mut |_| {}).await.unwrap();
    assert!(census.may_delete_step("Placed", 1).is_yes() && census.may_delete_step("Placed", 2).is_yes(), "its steps can go");
}

/// How many sessions wait for a lock that another one has.
async fn waiting(db: &Postgres) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    sqlx::query_scalar(sql).fetch_one(&db.pool).await.unwrap()
}

/// A subject is shredded, and reopened, between the moment at which its values are read and the one at which they are
/// locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_what_is_shredded_before_the_lock_is_had_is_void() {
    for reopens in [true, false] {
        let (db, copy) = (Postgres::new().await, Postgres::new().await);
        let store = std::sync::Arc::new(db.prepared(schemas()).await);
        db.append(&*store, "1", &[placed("ada"), placed("eve")]).await;
        let mut shredding = db.pool.begin().await.unwrap();
        let ada = KeyScope::new("Customer", "ada");
        store.keys().shred(&mut shredding, &ada, "request").await.unwrap();
        if reopens {
            store.keys().reopen(&mut shredding, &ada, "back").await.unwrap();
        }
        // A process with caches of its own, which still sees the key.
        let other = db.process(schemas());
        let (from, to) = (db.pool.clone(), copy.pool.clone());
        let running = tokio::spawn(async move {
            let (mut connection, mut target) = (from.acquire().await.unwrap(), to.acquire().await.unwrap());
            other.rewrite(&mut connection, &PostgresStore::new(), &mut target, &small(), &mut |_| {}).await
        });
        while waiting(&db).await == 0 {
            assert!(!running.is_finished(), "it did not wait: {:?}", running.await);
        }
        shredding.commit().await.unwrap();
        let done = running.await.unwrap().unwrap();
        assert_eq!((done.rewritten, done.with_voids), (2, 1), "the page was done again");
        let now = read_copy(&db, &copy).await.unwrap();
        assert!(now[0].is_redacted() && !contains(&now[0].payload, CANARY) && contains(&now[1].payload, CANARY));
    }
}

/// A second call writes less than the first one has read, and stops or goes on, while the first one waits for a lock that
/// it then gets in vain: what the second one wrote must not be taken for the whole page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_two_at_once_lose_nothing() {
    for goes_on in [false, true] {
        let (db, copy) = (Postgres::new().await, Postgres::new().await);
        let store = std::sync::Arc::new(db.prepared(schemas()).await);
        let events: Vec<NewEvent> = ["ada", "eve", "kim", "bob", "pat", "sue"].into_iter().map(placed).collect();
        db.append(&*store, "1", &events).await;
        let mut shredding = db.pool.begin().await.unwrap();
        store.keys().shred(&mut shredding, &KeyScope::new("Customer", "kim"), "request").await.unwrap();
        let run = |batch: u32| {
            let (other, from, to) = (db.process(schemas()), db.pool.clone(), copy.pool.clone());
            tokio::spawn(async move {
                let (mut connection, mut target) = (from.acquire().await.unwrap(), to.acquire().await.unwrap());
                let options = with(small(), |options| options.batch = batch);
                other.rewrite(&mut connection, &PostgresStore::new(), &mut target, &options, &mut |_| {}).await
            })
        };
        let first = run(4);
        while waiting(&db).await < 1 {
            assert!(!first.is_finished(), "it did not wait: {:?}", first.await);
        }
        let second = run(1);
        while waiting(&db).await < 2 {
            assert!(!second.is_finished(), "it did not wait: {:?}", second.await);
        }
        assert_eq!(copy.stored().await.len(), 2);
        if !goes_on {
            second.abort();
        }
        shredding.commit().await.unwrap();
        let done = first.await.unwrap().unwrap();
        if goes_on {
            assert_eq!(second.await.unwrap().unwrap().up_to.get(), 6);
        }
        let now = seen(read_copy(&db, &copy).await.unwrap());
        assert!(now == seen(db.read_log(&*store).await.unwrap()), "{} of 6, and it says {done:?}", now.len());
    }
}

/// A shred waits until the target has committed, and then holds for what was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_shred_waits_until_the_copy_is_committed() {
    let (db, copy) = (std::sync::Arc::new(Postgres::new().await), Postgres::new().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    let target = Meddled::<Postgres>::default();
    let (shredder, (told, shredded)) = (std::sync::Arc::clone(&db), std::sync::mpsc::channel());
    *target.state.before_write.lock().await = Some(Box::new(move || {
        let (db, told) = (std::sync::Arc::clone(&shredder), told.clone());
        Box::pin(async move {
            let other = std::sync::Arc::clone(&db);
            let shredding = tokio::spawn(async move { other.shred(&other.process(schemas()), "ada").await });
            while waiting(&db).await == 0 {
                assert!(!shredding.is_finished(), "I5: a shred went past the locks");
            }
            told.send(shredding).unwrap();
        })
    }));
    assert_eq!(rewrite(&*db, &store, &copy, &target, &small()).await.unwrap().rewritten, 2);
    assert_eq!(shredded.recv().unwrap().await.unwrap().destroyed.len(), 1);
    let now = read_copy(&*db, &copy).await.unwrap();
    assert!(now[0].is_redacted() && !contains(&now[0].payload, CANARY) && contains(&now[1].payload, CANARY));
}

/// What was written is opened with the keys as they are in the table then, whatever this process has in its caches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_what_was_written_is_opened_with_the_keys_that_are_there() {
    let (db, copy) = (std::sync::Arc::new(Postgres::new().await), Postgres::new().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    let target = Meddled::<Postgres>::default();
    let vandal = std::sync::Arc::clone(&db);
    *target.state.before_write.lock().await = Some(Box::new(move || {
        let db = std::sync::Arc::clone(&vandal);
        Box::pin(async move {
            let mut connection = db.pool.acquire().await.unwrap();
            // Past the guards of the table.
            sqlx::query("SET session_replication_role = replica").execute(&mut *connection).await.unwrap();
            let sql = "UPDATE data_keys SET wrapped_key = set_byte(wrapped_key, 40, get_byte(wrapped_key, 40) # 1) WHERE scope_id = 'ada'";
            assert_eq!(sqlx::query(sql).execute(&mut *connection).await.unwrap().rows_affected(), 1);
            sqlx::query("RESET session_replication_role").execute(&mut *connection).await.unwrap();
        })
    }));
    let refused = rewrite(&*db, &store, &copy, &target, &small()).await;
    assert!(matches!(refused, Err(Error::NotVerified { .. })), "{refused:?}");
    assert!(copy.stored().await.is_empty());
}
