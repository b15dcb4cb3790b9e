//! The events that a backfill seals, erases and leaves.

use super::{accepting, erasing, every, in_transaction, placed, small, strict, with};
use eventseal::error::{EventFault, KeyFault};
use eventseal::maintenance::{Answer, Registration};
use eventseal::store::EventTable;
use eventseal::store::PayloadReplacement;
use eventseal::{
    Error, EventStoreExt, EventVersion, GlobalPosition, KeyScope, NewEvent, PersistedEvent, Schemas, aggregate, event,
    subject,
};
use support::backend::{Backend, insert};
use support::sealing::CANARY;
use support::{Sqlite, contains, customer, fault, on_every_database, whole};

on_every_database! {
    i1_i2_what_was_in_the_clear_is_sealed_and_reads_the_same,
    i2_i9_what_cannot_be_sealed_is_left_and_reported_without_values,
    i4_plaintext_of_the_shredded_is_left_or_erased,
    i4_protection_that_grew_is_completed,
    i4_i5_a_sealed_value_stays_with_the_owner_it_was_sealed_for,
    a_dry_run_writes_nothing_and_says_the_same,
    events_without_a_version_are_sealed_as_they_are_read,
}

async fn i1_i2_what_was_in_the_clear_is_sealed_and_reads_the_same<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(accepting()).await;
    let plain = [
        placed("ada"),
        NewEvent::raw("Placed", 1, format!(r#"{{"customer":7,"name":["{CANARY}"],"x":{{"$seal":"AQEA"}}}}"#)),
        NewEvent::raw("Placed", 2, r#"{"customer":"ada","name":null}"#),
        NewEvent::raw("Placed", 2, r#"{"total":1}"#),
        NewEvent::raw("Whole", 1, format!("{CANARY}, no JSON\0")),
        NewEvent::raw("Counted", 1, "{}"),
        NewEvent::raw("Stranger", 1, r#"{"name":"not protected"}"#),
        placed("eve"),
    ];
    db.append_bare("1", &plain).await;
    db.append(&store, "1", &[placed("ada"), placed("kim")]).await;
    let (before, read) = (db.stored().await, db.read_log(&store).await.unwrap());
    assert!(matches!(db.census(&store, &every()).await.may_refuse_plaintext("Placed"), Answer::No { .. }));

    let (mut connection, mut told) = (db.connect().await.unwrap(), Vec::new());
    let done = store
        .backfill(db.connection(&mut connection), &small(), &mut |progress| {
            told.push((progress.position, progress.done.sealed));
        })
        .await
        .unwrap();
    drop(connection);
    assert_eq!((done.sealed, done.erased, done.unchanged, done.raced, done.skipped), (4, 0, 2, 0, 0));
    assert!(told.len() >= 3 && told.is_sorted() && told.last().unwrap().1 == 4);
    let (after, now) = (db.stored().await, db.read_log(&store).await.unwrap());
    assert!(now == read, "I1: byte for byte");
    assert_eq!(done.next, after.last().unwrap().global_position);
    for (before, after) in before.iter().zip(&after) {
        assert!(!contains(&after.payload, CANARY), "I2");
        let changed = contains(&before.payload, CANARY);
        assert_eq!(before.payload != after.payload, changed);
        let mut after = after.clone();
        after.payload.clone_from(&before.payload);
        assert!(*before == after, "nothing but payloads changes");
    }

    // It is complete: again there is nothing to do, the census proves it, and accept_plaintext can go.
    let again = db.backfill(&store, &small()).await.unwrap();
    assert_eq!((again.sealed, again.unchanged), (0, 2));
    let census = db.census(&store, &every()).await;
    assert!(census.may_refuse_plaintext("Placed").is_yes() && census.may_refuse_plaintext("Whole").is_yes());
    assert!(db.read_log(&db.process(strict())).await.unwrap() == read);

    // And what was sealed after the fact is shredded like everything else.
    db.shred(&store, "eve").await;
    let shredded = db.read_log(&store).await.unwrap();
    assert_eq!(shredded[7].redacted.len(), 3);
    assert!(!contains(&shredded[7].payload, CANARY) && contains(&shredded[0].payload, CANARY));
}

async fn i2_i9_what_cannot_be_sealed_is_left_and_reported_without_values<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(accepting()).await;
    db.append(&store, "warm", &[placed("gone"), placed("stopped")]).await;
    db.shred(&store, "gone").await;
    db.disable(&store, "stopped").await;
    let raw = |payload: &str| NewEvent::raw("Placed", 2, payload.replace("CANARY", CANARY));
    let cases = [
        (raw("CANARY, no JSON"), "InvalidPayload"),
        (raw(r#"{"customer":"ada","lines":"CANARY"}"#), "ShapeMismatch"),
        (raw(r#"["CANARY"]"#), "ShapeMismatch"),
        (raw(r#"{"name":"CANARY"}"#), "MissingScopeId"),
        (raw(r#"{"customer":1.5,"name":"CANARY"}"#), "InvalidScopeId"),
        (raw(r#"{"customer":"","name":"CANARY"}"#), "InvalidScopeId"),
        (raw(r#"{"customer":"ada","name":"CANARY","$seal":1}"#), "Tampered"),
        (raw(r#"{"customer":"ada","name":"CANARY","name":"x"}"#), "Tampered"),
        (raw(r#"{"customer":"gone","name":"CANARY"}"#), "Shredded"),
        (raw(r#"{"customer":"stopped","name":"CANARY"}"#), "Disabled"),
    ];
    let mut events: Vec<NewEvent> = cases.iter().map(|(event, _)| event.clone()).collect();
    events.insert(4, placed("ada"));
    let appended = db.append_bare("bad", &events).await;
    let before = db.stored().await;
    for options in [small(), with(small(), |options| options.dry_run = true)] {
        let (mut connection, mut told) = (db.connect().await.unwrap(), Vec::new());
        let done = store
            .backfill(db.connection(&mut connection), &options, &mut |progress| {
                told.extend(progress.skipped.iter().map(|s| s.event_id));
            })
            .await
            .unwrap();
        drop(connection);
        assert_eq!((done.sealed, done.skipped), (u64::from(!told.is_empty() && !options.dry_run), 10));
        let expected = appended.iter().map(|event| event.event_id).filter(|id| *id != appended[4].event_id);
        assert!(
            done.first_skipped.iter().map(|skipped| skipped.event_id).eq(expected.clone())
                && told.into_iter().eq(expected)
        );
        for (skipped, (_, kind)) in done.first_skipped.iter().zip(&cases) {
            assert!(fault(&skipped.error).starts_with(kind), "{:?} is not {kind}", skipped.error);
            assert!(!whole(skipped).contains(CANARY), "I9: {}", whole(skipped));
            assert_eq!((skipped.event_type.as_str(), skipped.aggregate.aggregate_id()), ("Placed", "bad"));
        }
        let after = db.stored().await;
        let changed: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| a.event_id).collect();
        assert_eq!(changed, [appended[4].event_id], "what can't be sealed stays as it is, and the others are sealed");
    }
    // When the stop is over, it is sealed like the rest.
    db.enable(&store, "stopped").await;
    let done = db.backfill(&store, &small()).await.unwrap();
    assert_eq!((done.sealed, done.skipped), (1, 9));
}

async fn i4_plaintext_of_the_shredded_is_left_or_erased<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(accepting()).await;
    db.append(&store, "warm", &[placed("gone")]).await;
    db.shred(&store, "gone").await;
    db.shred(&store, "never").await;
    let mixed = format!(
        r#"{{"customer":"gone","name":"{CANARY}","note":"stays","lines":[{{"text":"{CANARY}"}},{{"text":null}}],"total":1}}"#
    );
    let plain = [placed("gone"), NewEvent::raw("Placed", 2, mixed), placed("never"), placed("ada")];
    db.append_bare("1", &plain).await;
    let before = db.stored().await;
    let left = db.backfill(&store, &small()).await.unwrap();
    assert_eq!((left.sealed, left.erased, left.skipped), (1, 0, 3), "by default it is left");
    assert!(left.first_skipped.iter().all(|skipped| matches!(skipped.error, Error::Shredded { .. })));
    assert!(db.stored().await[1..4] == before[1..4]);

    let done = db.backfill(&store, &erasing()).await.unwrap();
    assert_eq!((done.sealed, done.erased, done.skipped), (2, 2, 1));
    assert!(
        matches!(&done.first_skipped[0].error, Error::Keys(KeyFault::ScopeState { scope, .. }) if scope.id() == "never")
    );
    let stored = db.stored().await;
    assert!(!contains(&stored[1].payload, CANARY) && !contains(&stored[2].payload, CANARY), "erased means gone");
    assert!(contains(&stored[3].payload, CANARY), "without a key of the owner, nothing can say that it was erased");
    let read = db.read_log(&store).await.unwrap();
    let places =
        |event: &PersistedEvent| event.redacted.iter().map(|place| place.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(places(&read[1]), ["/name", "/lines/0/text", "/lines/1/text"]);
    assert_eq!(places(&read[2]), ["/name", "/lines/0/text", "/lines/1/text"]);
    let text = String::from_utf8_lossy(&read[2].payload).into_owned();
    assert_eq!(
        text,
        r#"{"customer":"gone","name":"erased","note":"stays","lines":[{"text":null},{"text":null}],"total":1}"#
    );
    // Reopened, the subject has new keys, and what was erased stays erased.
    db.reopen(&store, "gone").await;
    assert!(db.read_log(&store).await.unwrap() == read);
    // A subject that comes into being and is shredded again has a key to name.
    db.reopen(&store, "never").await;
    db.shred(&store, "never").await;
    let done = db.backfill(&store, &erasing()).await.unwrap();
    assert_eq!((done.sealed, done.erased, done.skipped), (1, 1, 0));
    assert!(db.census(&store, &every()).await.may_refuse_plaintext("Placed").is_yes());
    assert!(db.read_log(&db.process(strict())).await.unwrap().iter().skip(1).take(3).all(PersistedEvent::is_redacted));

    // The whole payload of an aggregate that was shredded.
    let order = KeyScope::new("Order", "2");
    db.append(&store, "2", &[NewEvent::raw("Whole", 1, "first")]).await;
    let mut transaction = db.begin().await.unwrap();
    store.keys().shred(db.tx(&mut transaction), &order, "request").await.unwrap();
    db.commit(transaction).await.unwrap();
    db.append_bare("2", &[NewEvent::raw("Whole", 1, format!("{CANARY}\0"))]).await;
    assert_eq!(db.backfill(&store, &erasing()).await.unwrap().erased, 1);
    let (stored, read) = (db.stored().await, db.read_log(&db.process(strict())).await.unwrap());
    assert!(!contains(&stored.last().unwrap().payload, CANARY));
    assert_eq!(
        (read.last().unwrap().payload.as_slice(), places(read.last().unwrap())),
        (&b"null"[..], vec![String::new()])
    );
}

async fn i4_protection_that_grew_is_completed<B: Backend>() {
    let db = B::make().await;
    let narrow = Schemas::new([event("Placed").version(1).protect(&["/name", "/old"], customer())]).unwrap();
    let old = db.prepared(narrow).await;
    let event_of = |customer: &str, old: &str| {
        NewEvent::raw(
            "Placed",
            1,
            format!(r#"{{"customer":"{customer}","name":"{CANARY}"{old},"email":"{CANARY}@","host":"kim"}}"#),
        )
    };
    db.append(&old, "1", &[event_of("ada", ""), event_of("eve", ""), event_of("ada", r#","old":"x""#)]).await;
    db.shred(&old, "eve").await;
    let wide = || {
        event("Placed").version(1).protect(&["/name"], customer()).protect(&["/email"], subject("Customer", "/host"))
    };
    let store = db.process(Schemas::builder([wide()]).accept_plaintext("Placed").build().unwrap());
    let read = db.read_log(&store).await.unwrap();
    assert_eq!(db.backfill(&store, &small()).await.unwrap().sealed, 0, "what starts with a header is not looked into");
    let options = with(small(), |options| options.every_payload = true);
    let done = db.backfill(&store, &options).await.unwrap();
    assert_eq!((done.sealed, done.erased, done.skipped), (2, 0, 1));
    assert!(
        matches!(done.first_skipped[0].error, Error::Event { fault: EventFault::Unsealed { .. }, .. }),
        "what was sealed at /old must not come to lie in the clear"
    );
    let stored = db.stored().await;
    assert!(
        !contains(&stored[0].payload, CANARY)
            && !contains(&stored[1].payload, CANARY)
            && !contains(&stored[2].payload, r#""old":"x""#)
    );
    assert!(db.read_log(&store).await.unwrap() == read, "redactions included");
    assert_eq!(read[1].redacted.len(), 1);
    db.shred(&store, "kim").await;
    let now = db.read_log(&store).await.unwrap();
    assert_eq!((now[0].redacted.len(), now[1].redacted.len()), (1, 2));
}

/// Somebody who can write to the store names another owner in an event, and adds a value in the clear so that the event
/// is sealed again.
async fn i4_i5_a_sealed_value_stays_with_the_owner_it_was_sealed_for<B: Backend>() {
    let schemas = || {
        let placed = event("Placed").version(1).protect(&["/name", "/phone"], customer());
        Schemas::builder([placed, event("Counted").version(1)]).accept_plaintext("Placed").build().unwrap()
    };
    for (is_shredded, every_payload) in [(true, true), (true, false), (false, true), (false, false)] {
        let db = B::make().await;
        let store = db.prepared(schemas()).await;
        let named =
            |who: &str| NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{who}","name":"{CANARY} {who}"}}"#));
        db.append(&store, "1", &[named("ada"), named("eve")]).await;
        // A header that is not the first member is looked into by default.
        let ada = db.stored().await.remove(0);
        let text = String::from_utf8(ada.payload.clone()).unwrap().replace(r#""ada""#, r#""eve""#);
        let altered = if every_payload {
            text.replacen('}', r#","phone":"1"}"#, 1)
        } else {
            text.replacen('{', r#"{"phone":"1","#, 1)
        };
        let mut transaction = in_transaction(&db).await;
        let replacement = PayloadReplacement {
            position: ada.global_position,
            event_id: ada.event_id,
            old: ada.payload,
            new: altered.into_bytes(),
            metadata: None,
        };
        assert_eq!(
            B::Store::default().replace_payloads(db.tx(&mut transaction), &[replacement]).await.unwrap().len(),
            1
        );
        db.commit(transaction).await.unwrap();
        if is_shredded {
            db.shred(&store, "eve").await;
        }
        let before = db.stored().await;
        for dry_run in [true, false] {
            let options =
                with(erasing(), |options| (options.every_payload, options.dry_run) = (every_payload, dry_run));
            let done = db.backfill(&store, &options).await.unwrap();
            assert_eq!((done.sealed, done.erased, done.skipped), (0, 0, 1), "{done:?}");
            let error = &done.first_skipped[0].error;
            assert!(
                matches!(
                    error,
                    Error::Event { fault: EventFault::OtherOwner { pointer }, .. }
                        if pointer.as_str() == "/name"
                ),
                "{error:?}"
            );
            assert!(!whole(error).contains(CANARY), "I9");
        }
        assert!(db.stored().await == before);
        let ada = db.read_log(&store).await.unwrap().remove(0);
        assert!(contains(&ada.payload, CANARY) && !ada.is_redacted(), "I4: she was not shredded");
        db.shred(&store, "ada").await;
        assert!(!contains(&db.read_log(&store).await.unwrap()[0].payload, CANARY), "I5: her shred reaches it");
    }
}

async fn a_dry_run_writes_nothing_and_says_the_same<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(accepting()).await;
    db.append(&store, "warm", &[placed("gone")]).await;
    db.shred(&store, "gone").await;
    db.shred(&store, "never").await;
    db.append_bare(
        "1",
        &[placed("ada"), placed("gone"), placed("never"), NewEvent::raw("Placed", 2, "no JSON"), placed("eve")],
    )
    .await;
    let before = db.stored().await;
    for options in [small(), erasing()] {
        let dry = db.backfill(&store, &with(options.clone(), |options| options.dry_run = true)).await.unwrap();
        assert!(db.stored().await == before);
        let mut connection = db.connect().await.unwrap();
        let history =
            store.keys().key_history(db.connection(&mut connection), &KeyScope::new("Customer", "ada")).await.unwrap();
        assert!(history.is_none(), "a dry run makes no keys");
        drop(connection);
        let expected = if options.erase_shredded { (3, 1, 2) } else { (2, 0, 3) };
        assert_eq!((dry.sealed, dry.erased, dry.skipped), expected);
    }
    let done = db.backfill(&store, &erasing()).await.unwrap();
    assert_eq!((done.sealed, done.erased, done.skipped), (3, 1, 2));
}

async fn events_without_a_version_are_sealed_as_they_are_read<B: Backend>() {
    let db = B::make().await;
    let schemas = |accept: bool| {
        let placed = event("Placed").version(1).protect(&["/name"], customer()).legacy_version(1);
        let builder = Schemas::builder([placed]);
        if accept { builder.accept_plaintext("Placed") } else { builder }.build().unwrap()
    };
    let store = db.prepared(schemas(true)).await;
    let named = NewEvent::raw("Placed", 1, format!(r#"{{"customer":"ada","name":"{CANARY}"}}"#));
    let mut old = db.append_bare("1", std::slice::from_ref(&named)).await.remove(0);
    old.stored_version = EventVersion::new(0);
    old.global_position = GlobalPosition::try_from(old.global_position.get() + 10).unwrap();
    old.event_id = uuid::Uuid::now_v7();
    old.aggregate = aggregate("Order", "old");
    insert(&db, old).await;
    let census = db.census(&store, &every()).await;
    let row = census.rows.iter().find(|row| row.event_version.get() == 0).unwrap();
    assert_eq!((row.registration, row.protection.unwrap().plaintext), (Some(Registration::Current), 1));
    let done = db.backfill(&store, &small()).await.unwrap();
    assert_eq!((done.sealed, done.skipped), (2, 0));
    let stored = db.stored().await.remove(1);
    assert!(stored.stored_version.get() == 0 && !contains(&stored.payload, CANARY));
    let mut transaction = db.begin().await.unwrap();
    let strict = db.process(schemas(false));
    let opened =
        strict.read_stream(db.tx(&mut transaction), &aggregate("Order", "old")).await.unwrap().events.remove(0);
    assert_eq!((opened.payload, opened.event_version.get()), (named.payload().to_vec(), 1));
}

/// SQLite leaves what is moved or replaced in the pages of its file, until they are written anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_after_a_vacuum_nothing_of_the_plaintext_is_left_in_the_file() {
    let db = Sqlite::new().await;
    let store = db.prepared(accepting()).await;
    let long = format!(r#"{{"customer":"ada","name":"{}"}}"#, CANARY.repeat(5_000));
    for round in 0..40 {
        db.append_bare("1", &[placed("ada"), NewEvent::raw("Placed", 2, long.clone()), placed(&format!("p{round}"))])
            .await;
    }
    let in_file = async || {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&db.pool).await.unwrap();
        contains(&std::fs::read(db.folder.path().join("test.db")).unwrap(), CANARY)
    };
    assert!(in_file().await);
    assert_eq!(db.backfill(&store, &small()).await.unwrap().sealed, 120);
    sqlx::query("VACUUM").execute(&db.pool).await.unwrap();
    assert!(!in_file().await, "the file still holds plaintext");
}
