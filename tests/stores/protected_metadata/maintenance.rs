//! What works on the whole log knows protected metadata: backfill, rewrite, census, search, verification, export.

use super::{AGENT, IP, actor, is_hidden, login, metadata_of, schema, schemas, seen};
use eventseal::conformance::Database;
use eventseal::erasure::{ExportItem, ExportLines, ExportOptions, VerifyFindingKind, VerifyOptions};
use eventseal::maintenance::{BackfillOptions, CensusOptions, EventsOfOptions, KeptBecause, RewriteOptions, Rewritten};
use eventseal::schema::StepContext;
use eventseal::store::{EventTable, MetadataReplacement, PayloadReplacement};
use eventseal::{
    Changes, KeyScope, Namespace, NewEvent, Owner, PersistedEvent, Schemas, SealedStore, Sealer, event, metadata,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use support::backend::Backend;
use support::{KEYRING, contains, on_every_database};

on_every_database! {
    i1_i5_i11_i17_backfill_seals_what_was_in_the_clear,
    i17_backfill_erases_metadata_of_a_shredded_owner_if_it_may,
    i2_i4_i17_a_rewrite_keeps_seals_and_redactions_of_metadata,
    i17_the_census_a_search_and_a_verification_look_into_metadata,
    i15_i17_an_export_has_the_owners_metadata_and_nobody_elses,
    i5_ciphertext_is_no_owner,
    i17_metadata_of_unregistered_types_are_found_and_sealed,
    odd_numbers_stop_no_backfill,
}

fn accepting() -> Schemas {
    Schemas::builder([schema()]).accept_plaintext("LoggedIn").build().unwrap()
}

/// Puts other metadata into a stored event.
async fn replace<B: Backend>(db: &B, event: &PersistedEvent, metadata: &str) {
    let old = event.metadata.clone().unwrap();
    let replacement = PayloadReplacement {
        position: event.global_position,
        event_id: event.event_id,
        old: event.payload.clone(),
        new: event.payload.clone(),
        metadata: Some(MetadataReplacement { old, new: metadata.into() }),
    };
    let mut transaction = db.begin().await.unwrap();
    let done = B::Store::default().replace_payloads(db.tx(&mut transaction), &[replacement]).await.unwrap();
    assert_eq!(done, [event.global_position]);
    db.commit(transaction).await.unwrap();
}

async fn i1_i5_i11_i17_backfill_seals_what_was_in_the_clear<B: Backend>() {
    let db = B::make().await;
    let bare = [login("1", "ada"), NewEvent::raw("LoggedIn", 1, "{}").with_metadata(metadata_of("eve"))];
    db.append_bare("1", &bare).await;
    db.append_bare("1", &[login("1", "ada").with_metadata(r#"{"ip":"192.0.2.77"}"#)]).await;
    let store = db.prepared(accepting()).await;
    // Its payload is sealed, and its metadata are not: an older schema protected payloads only.
    let older = event("LoggedIn").version(1).protect(&["/name"], eventseal::subject("Customer", "/customer"));
    let older = db.process(Schemas::new([older]).unwrap());
    db.append(&older, "2", &[login("2", "ada")]).await;
    let before: Vec<Value> = db.read_log(&store).await.unwrap().iter().map(|event| seen(event).0).collect();
    let options = BackfillOptions::default();
    let mut dry = options.clone();
    dry.dry_run = true;
    assert_eq!(db.backfill(&store, &dry).await.unwrap().sealed, 3);
    let done = db.backfill(&store, &options).await.unwrap();
    assert_eq!((done.sealed, done.skipped, done.erased), (3, 1, 0), "nobody owns one of them: {done:?}");
    assert!(done.first_skipped[0].error.to_string().contains("in the metadata"), "{:?}", done.first_skipped[0].error);
    let stored = db.stored().await;
    let shown: Vec<bool> = stored.iter().map(|event| contains(event.metadata.as_ref().unwrap(), IP)).collect();
    assert_eq!(shown, [false, false, true, false], "I2");
    let read = db.read_log(&store).await.unwrap();
    assert_eq!(read.iter().map(|event| seen(event).0).collect::<Vec<_>>(), before, "I1");
    let again = db.backfill(&store, &options).await.unwrap();
    assert_eq!((again.sealed, again.skipped, again.unchanged), (0, 1, 3), "I11: running it again changes nothing");
    assert_eq!(db.stored().await, stored);
    db.shred(&store, "ada").await;
    let redacted: Vec<usize> =
        db.read_log(&store).await.unwrap().iter().map(|event| event.redacted_metadata.len()).collect();
    assert_eq!(redacted, [2, 0, 0, 2], "I5");
}

async fn i17_backfill_erases_metadata_of_a_shredded_owner_if_it_may<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(accepting()).await;
    db.append(&store, "1", &[login("1", "ada")]).await;
    db.shred(&store, "ada").await;
    db.append_bare("1", &[login("1", "ada")]).await;
    let done = db.backfill(&store, &BackfillOptions::default()).await.unwrap();
    assert_eq!((done.sealed, done.skipped), (0, 1), "somebody has to decide");
    let mut erasing = BackfillOptions::default();
    erasing.erase_shredded = true;
    let done = db.backfill(&store, &erasing).await.unwrap();
    assert_eq!((done.sealed, done.erased), (1, 1));
    assert!(is_hidden(&db).await);
    let read = db.read(&store, "1").await.unwrap();
    let (metadata, redacted) = seen(&read[1]);
    assert_eq!((metadata["ip"].as_str(), redacted.len()), (Some("unknown"), 2));
    assert!(!read[1].is_redacted() && contains(&read[1].payload, "Ada"), "the payload's owner is another one");
}

async fn rewritten<B: Backend>(db: &B, store: &SealedStore<B::Store>, copy: &B) -> Rewritten {
    let target = B::Store::default();
    let mut connections = (db.connect().await.unwrap(), copy.connect().await.unwrap());
    let (from, to) = (db.connection(&mut connections.0), copy.connection(&mut connections.1));
    store.rewrite(from, &target, to, &RewriteOptions::default(), &mut |_| {}).await.unwrap()
}

async fn i2_i4_i17_a_rewrite_keeps_seals_and_redactions_of_metadata<B: Backend>() {
    let old = |name: &str| {
        let old = event(name).version(1).protect_metadata(&["/ip", "/seen/*/agent"], actor());
        old.redact_metadata_as("/ip", "unknown")
    };
    let next = |name: &str| old(name).version(2).protect_same_as(1);
    let open = |name: &str| old(name).version(2).metadata_in_the_clear("nobody looked");
    let copies = |mut payload: Value, context: &StepContext<'_>| {
        payload["from"] = context.metadata().unwrap()["ip"].clone();
        Ok::<_, Infallible>(payload)
    };
    let moves = |mut metadata: Option<Value>, _: &StepContext<'_>| {
        let metadata = metadata.as_mut().map(Value::take).map(|mut metadata| {
            metadata["address"] = metadata["ip"].take();
            metadata
        });
        Ok::<_, Infallible>(metadata)
    };
    let other = old("Other").version(2).protect_metadata(&["/ip", "/seen/*/agent"], metadata("Customer", "/by"));
    let moved = old("Moved").version(2).protect_metadata(&["/ip", "/seen/*/agent", "/address"], actor());
    let schemas = || {
        Schemas::builder([
            next("Same").change(1, Changes::new()),
            open("Opens").change(1, Changes::new()),
            next("Copies").upcast_with(1, copies),
            other.change(1, Changes::new()),
            moved.change(1, Changes::new()).upcast_metadata(1, moves),
        ])
        .allow_older_appends()
        .build()
        .unwrap()
    };
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let named = |name: &str, actor: &str| {
        let mut metadata: Value = serde_json::from_str(&metadata_of(actor)).unwrap();
        metadata["by"] = "eve".into();
        NewEvent::raw(name, 1, r#"{"n":1}"#).with_metadata(metadata.to_string())
    };
    let names = ["Same", "Opens", "Copies", "Other", "Moved"];
    let events: Vec<NewEvent> = names.iter().flat_map(|name| [named(name, "ada"), named(name, "bob")]).collect();
    db.append(&store, "1", &events).await;
    db.shred(&store, "bob").await;
    let before = db.read(&store, "1").await.unwrap();
    let copy = B::make().await;
    let done = rewritten(&db, &store, &copy).await;
    // A value that moves to where it is protected is no leak.
    assert_eq!((done.rewritten, done.with_voids), (3, 1), "{done:?}");
    assert_eq!(done.kept[&KeptBecause::InTheClear], 2, "{done:?}");
    assert_eq!(done.kept[&KeptBecause::OtherOwner], 1, "{done:?}");
    assert_eq!(done.kept[&KeptBecause::RedactionElsewhere], 2, "{done:?}");
    assert_eq!(done.kept[&KeptBecause::RedactionsUncertain], 2, "{done:?}");
    assert!(is_hidden(&copy).await, "I2");
    let stored = copy.stored().await;
    assert!(stored.iter().all(|event| !contains(&event.payload, IP)), "I2");
    let sealer = Sealer::new(B::Keys::default(), Arc::clone(&KEYRING), rewrite_schemas());
    let mut transaction = db.begin().await.unwrap();
    let same: Vec<PersistedEvent> = stored.into_iter().take(2).collect();
    assert!(same.iter().all(|event| event.stored_version.get() == 2));
    let read = sealer.open(db.tx(&mut transaction), same).await.unwrap();
    db.roll_back(transaction).await;
    for (copied, before) in read.iter().zip(&before) {
        assert_eq!(seen(copied), seen(before), "I1, I4: the copy reads the same");
    }
}

/// The first of the types of the rewrite.
fn rewrite_schemas() -> Schemas {
    let old = event("Same").version(1).protect_metadata(&["/ip", "/seen/*/agent"], actor());
    let old = old.redact_metadata_as("/ip", "unknown");
    Schemas::new([old.version(2).protect_same_as(1).change(1, Changes::new())]).unwrap()
}

async fn i17_the_census_a_search_and_a_verification_look_into_metadata<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(accepting()).await;
    db.append(&store, "1", &[login("1", "ada"), login("1", "eve"), login("ada", "eve")]).await;
    let protection = async |options: &CensusOptions| db.census(&store, options).await.rows[0].protection.unwrap();
    assert_eq!(protection(&CensusOptions::default()).await.sealed, 3);
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    let ada = KeyScope::new("Customer", "ada");
    let mut search = store.events_of(connection, &ada, &EventsOfOptions::default()).await.unwrap();
    let mut found = Vec::new();
    while let Some(page) = search.next(connection).await.unwrap() {
        for event in page.events {
            let places = event.places.iter().map(|at| (at.pointer.to_string(), at.in_metadata));
            found.push(places.collect::<BTreeSet<_>>());
        }
    }
    let at = |pointer: &str, in_metadata| (pointer.to_owned(), in_metadata);
    let of_first = BTreeSet::from([at("/ip", true), at("/seen/0/agent", true)]);
    assert_eq!(found, [of_first, BTreeSet::from([at("/name", false)])]);
    let verified = store.verify(connection, &[], &VerifyOptions::default(), &mut |_| {}).await.unwrap();
    assert!(verified.is_clean(), "{verified:?}");
    assert_eq!((verified.sealed, verified.opened, verified.redacted), (3, 9, 0));

    // In the clear, altered, and without what it had.
    let stored = db.stored().await;
    replace(&db, &stored[0], &metadata_of("ada")).await;
    let mut cut: Value = serde_json::from_slice(stored[1].metadata.as_ref().unwrap()).unwrap();
    cut["ip"] = cut["seen"][0]["agent"].clone();
    replace(&db, &stored[1], &cut.to_string()).await;
    let census = protection(&CensusOptions::default()).await;
    assert_eq!((census.sealed, census.partly_sealed), (2, 1), "its payload is sealed, and its metadata are not");
    let strict = db.process(schemas());
    let verified = strict.verify(connection, &[], &VerifyOptions::default(), &mut |_| {}).await.unwrap();
    let kinds: Vec<_> = verified.findings.iter().map(|finding| (finding.kind, finding.count)).collect();
    assert_eq!(kinds.len(), 2, "{:?}", verified.findings);
    assert!(kinds.contains(&(VerifyFindingKind::Plaintext, 1)) && kinds.contains(&(VerifyFindingKind::AlteredSeal, 1)));
    let texts = format!("{:?}", verified.findings);
    assert!(!texts.contains(IP) && !texts.contains(AGENT), "I9: {texts}");
}

async fn i15_i17_an_export_has_the_owners_metadata_and_nobody_elses<B: Backend>() {
    let two = schema().protect_metadata(&["/order"], Owner::Aggregate);
    let db = B::make().await;
    let store = db.prepared(Schemas::new([two]).unwrap()).await;
    let with = |customer: &str, actor: &str| {
        let mut metadata: Value = serde_json::from_str(&metadata_of(actor)).unwrap();
        metadata["order"] = "of the order".into();
        login(customer, actor).with_metadata(metadata.to_string())
    };
    db.append(&store, "1", &[with("1", "ada"), with("ada", "eve"), with("1", "eve")]).await;
    let export = async |id: &str| {
        let mut connection = db.connect().await.unwrap();
        let scope = KeyScope::new("Customer", id);
        let mut out = ExportLines::begin(Vec::new(), &Namespace::new("shop").unwrap(), &scope).unwrap();
        let mut sink = |item: ExportItem<'_>| Ok(out.write(item)?);
        let connection = db.connection(&mut connection);
        let exported = store.export(connection, &scope, &ExportOptions::default(), &mut sink, &mut |_| {}).await;
        let exported = exported.unwrap();
        let text = String::from_utf8(out.end(&exported).unwrap()).unwrap();
        (text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>(), exported)
    };
    let (lines, exported) = export("ada").await;
    assert!(exported.is_complete());
    assert_eq!((exported.events, exported.fields, exported.left_out, exported.lost), (2, 3, 5, 0), "{exported:?}");
    let stored = &lines[1]["stored"];
    assert_eq!(stored["metadata"]["ip"], IP);
    assert_eq!(stored["metadata"].get("order"), None, "I15: {stored}");
    assert_eq!(stored["payload"].get("name"), None, "I15: {stored}");
    let places = json!({ "fields": ["/ip", "/seen/0/agent"], "erased": [], "left_out": ["/order"] });
    assert_eq!(stored["in_metadata"], places);
    let stored = &lines[2]["stored"];
    assert_eq!((&stored["payload"]["name"], stored["metadata"].get("ip")), (&json!("Ada"), None), "I15: {stored}");
    db.shred(&store, "ada").await;
    let (lines, exported) = export("ada").await;
    assert_eq!((exported.erased, exported.fields), (3, 0));
    let mut erased: Vec<&str> =
        lines[1]["stored"]["in_metadata"]["erased"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    erased.sort_unstable();
    assert_eq!(erased, ["/ip", "/seen/0/agent"]);
}

/// An older schema sealed what names an owner now.
async fn i5_ciphertext_is_no_owner<B: Backend>() {
    let db = B::make().await;
    let sealed_id = event("LoggedIn").version(1).protect(&["/customer"], Owner::Aggregate);
    let older = db.prepared(Schemas::new([sealed_id]).unwrap()).await;
    let metadata = r#"{"actor":{"name":"Ada"},"ip":"192.0.2.77"}"#;
    let logged_in = NewEvent::raw("LoggedIn", 1, r#"{"customer":"ada","order":"7"}"#).with_metadata(metadata);
    db.append(&older, "1", &[logged_in]).await;
    let function = Owner::by("Customer", "who", |event| Some(event.payload()["customer"].as_str()?.to_owned()));
    let at =
        |pointer| event("LoggedIn").version(1).protect_metadata(&["/actor/name"], eventseal::subject("Other", pointer));
    for owner in [eventseal::subject("Customer", "/customer"), function] {
        // Another id is read before, and is in the clear.
        let newer = at("/order").protect_metadata(&["/ip"], owner);
        let newer = Schemas::builder([newer]).accept_plaintext("LoggedIn").build().unwrap();
        let done = db.backfill(&db.process(newer), &BackfillOptions::default()).await.unwrap();
        assert_eq!((done.sealed, done.skipped), (0, 1), "{done:?}");
    }
}

async fn i17_metadata_of_unregistered_types_are_found_and_sealed<B: Backend>() {
    let of_all = || {
        let schemas = Schemas::builder([event("Known").version(1)]).allow_unknown_types();
        schemas.protect_metadata(&["/ip", "/seen/*/agent"], actor())
    };
    let db = B::make().await;
    db.append_bare("1", &[NewEvent::raw("Foreign", 1, "{}").with_metadata(metadata_of("ada"))]).await;
    let strict = db.prepared(of_all().build().unwrap()).await;
    assert!(db.read(&strict, "1").await.is_err());
    let mut connection = db.connect().await.unwrap();
    let found = strict.verify(db.connection(&mut connection), &[], &VerifyOptions::default(), &mut |_| {}).await;
    let found = found.unwrap();
    assert_eq!(found.findings[0].kind, VerifyFindingKind::Plaintext, "{found:?}");
    assert_eq!(found.unregistered, 1);
    drop(connection);
    let census = db.census(&strict, &CensusOptions::default()).await;
    assert_eq!(census.rows[0].protection.unwrap().plaintext, 1);
    let accepting = db.process(of_all().accept_plaintext("Foreign").build().unwrap());
    assert_eq!(seen(&db.read(&accepting, "1").await.unwrap()[0]).0["ip"], IP);
    assert_eq!(db.backfill(&accepting, &BackfillOptions::default()).await.unwrap().sealed, 1);
    assert!(is_hidden(&db).await);
    db.shred(&strict, "ada").await;
    assert_eq!(seen(&db.read(&strict, "1").await.unwrap()[0]).1.len(), 2);
}

async fn odd_numbers_stop_no_backfill<B: Backend>() {
    let db = B::make().await;
    let odd = r#"{"n":1e400,"wide":123456789012345678901234567890,"ip":"192.0.2.77","actor":{"id":"ada"}}"#;
    db.append_bare("1", &[NewEvent::raw("LoggedIn", 1, "{}").with_metadata(odd)]).await;
    let store = db.prepared(accepting()).await;
    assert_eq!(db.backfill(&store, &BackfillOptions::default()).await.unwrap().sealed, 1);
    assert!(is_hidden(&db).await);
}

#[tokio::test]
async fn i15_an_export_without_metadata_says_that_it_lacks_some() {
    let db = <support::Memory as Backend>::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[login("1", "ada")]).await;
    let mut connection = db.connect().await.unwrap();
    let mut options = ExportOptions::default();
    options.metadata = false;
    let scope = KeyScope::new("Customer", "ada");
    let mut sink = |item: ExportItem<'_>| {
        let ExportItem::Event(event) = item else { panic!("it can be read") };
        assert!(event.stored.metadata.is_none());
        Ok(())
    };
    let connection = db.connection(&mut connection);
    let exported = store.export(connection, &scope, &options, &mut sink, &mut |_| {}).await.unwrap();
    assert_eq!((exported.fields, exported.withheld, exported.is_complete()), (0, 2, false));
}
