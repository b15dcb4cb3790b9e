//! The export of one owner's data: it holds every value of the owner, and nobody else's.

mod anything;
mod faults;

use eventseal::erasure::{ExportItem, ExportLines, ExportOptions, Exported, ExportedEvent};
use eventseal::keys::KeyStore;
use eventseal::schema::{EventSchema, SplitPart};
use eventseal::store::EventTable;
use eventseal::{
    Changes, EventStore, KeyScope, Namespace, NewEvent, Owner, Result, Schemas, SealedStore, event, subject,
};
use serde_json::{Value, json};
use std::convert::Infallible;
use support::backend::Backend;
use support::{customer, customer_scope, on_every_database};

on_every_database! {
    an_export_has_the_values_of_its_owner_and_leaves_out_those_of_others,
    an_erased_generation_is_named_and_the_new_one_exported,
    a_store_without_schemas_exports_what_was_stored,
}

/// The lines of an export, without the first.
async fn lines<S, K>(
    store: &SealedStore<S, K>,
    connection: &mut <S as EventStore>::Tx,
    scope: &KeyScope,
    options: &ExportOptions,
) -> Result<(Vec<Value>, Exported)>
where
    S: EventStore + EventTable<Tx = <S as EventStore>::Tx>,
    K: KeyStore<Tx = <S as EventStore>::Tx> + ?Sized,
{
    let mut out = ExportLines::begin(Vec::new(), &Namespace::new("shop").unwrap(), scope).unwrap();
    let mut sink = |item: ExportItem<'_>| Ok(out.write(item)?);
    let exported = store.export(connection, scope, options, &mut sink, &mut |_| {}).await?;
    let text = String::from_utf8(out.end(&exported).unwrap()).unwrap();
    assert!(text.ends_with('\n'));
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = lines.remove(0);
    assert_eq!((&first["eventseal_export"], &first["kind"]), (&json!(1), &json!(scope.kind())));
    assert_eq!(lines.last().unwrap()["complete"], exported.is_complete());
    Ok((lines, exported))
}

/// The events of an export, which must be complete.
async fn events<B: Backend>(db: &B, store: &SealedStore<B::Store>, scope: &KeyScope) -> (Vec<ExportedEvent>, Exported) {
    let mut events = Vec::new();
    let mut sink = |item: ExportItem<'_>| {
        let ExportItem::Event(event) = item else { panic!("{item:?}") };
        events.push(event.clone());
        Ok(())
    };
    let (mut told, mut connection) = (None, db.connect().await.unwrap());
    let mut options = ExportOptions::default();
    options.batch = 2;
    let connection = db.connection(&mut connection);
    let exported = store.export(connection, scope, &options, &mut sink, &mut |at| told = Some(at)).await.unwrap();
    assert!(exported.is_complete(), "{exported:?}");
    assert!(told.is_none_or(|told| told.position == told.last && told.events == exported.events));
    (events, exported)
}

fn text(payload: Option<&Vec<u8>>) -> &str {
    payload.map_or("nothing", |payload| std::str::from_utf8(payload).unwrap())
}

/// `Met` with two kinds of owners in one event, through a declarative step, a function, a split and a drop.
fn old() -> EventSchema {
    event("Met")
        .version(1)
        .protect(&["/name", "/lines/*/note"], customer())
        .protect(&["/friend/name", "/friends/*/name"], subject("Friend", "/friend/id"))
        .redact_as("/friend/name", "somebody")
}

fn met() -> NewEvent {
    NewEvent::raw(
        "Met",
        1,
        r#"{"customer":"ada", "name":"Ada L.", "lines":[{"note":"n1","sku":1.50},{"sku":2}],
            "friend":{"id":"eve","name":"Eve F."},"friends":[{"name":"Kim"},{}],"total":1e2}"#,
    )
    .with_metadata(r#"{"ip":"10.0.0.1"}"#)
}

#[expect(clippy::too_many_lines, reason = "one export, looked at line by line")]
async fn an_export_has_the_values_of_its_owner_and_leaves_out_those_of_others<B: Backend>() {
    let db = B::make().await;
    let writer = db.prepared(Schemas::new([old()]).unwrap()).await;
    db.append(&writer, "1", &[met()]).await;
    db.append(&writer, "2", &[NewEvent::raw("Met", 1, r#"{"customer":"kim","name":"Kim K."}"#)]).await;

    let (found, exported) = events(&db, &writer, &customer_scope("ada")).await;
    assert_eq!((found.len(), exported.events, exported.fields, exported.left_out), (1, 1, 2, 2));
    let stored = &found[0].stored;
    let payload: Value = serde_json::from_slice(stored.payload.as_ref().unwrap()).unwrap();
    let expected = json!({
        "customer": "ada", "name": "Ada L.", "lines": [{"note": "n1", "sku": 1.5}, {"sku": 2}],
        "friend": {"id": "eve"}, "friends": [{}, {}], "total": 100.0
    });
    assert_eq!(payload, expected);
    // Memory and SQLite keep the spelling of what is not left out. All of the test's databases do.
    assert!(text(stored.payload.as_ref()).contains(r#""sku":1.50"#) && text(stored.payload.as_ref()).contains("1e2"));
    let places = |places: &[eventseal::JsonPointer]| -> Vec<String> {
        places.iter().map(|place| place.as_str().to_owned()).collect()
    };
    assert_eq!(places(&stored.fields), ["/lines/0/note", "/name"]);
    assert_eq!(
        (places(&stored.erased).len(), places(&stored.left_out)),
        (0, vec!["/friend/name".into(), "/friends/0/name".into()])
    );
    assert!(found[0].current.is_none() && found[0].is_registered);
    assert_eq!(serde_json::from_slice::<Value>(stored.metadata.as_ref().unwrap()).unwrap(), json!({"ip": "10.0.0.1"}));

    // The friend's export is the other half.
    let (found, _) = events(&db, &writer, &KeyScope::new("Friend", "eve")).await;
    let payload: Value = serde_json::from_slice(found[0].stored.payload.as_ref().unwrap()).unwrap();
    assert_eq!(payload["friend"]["name"], "Eve F.");
    assert!(payload.get("name").is_none() && payload["lines"] == json!([{"sku": 1.5}, {"sku": 2}]));

    // Brought up to date, and as it was stored.
    let reader = db.process(
        Schemas::new([
            old()
                .version(2)
                .protect(&["/called", "/lines/*/note"], customer())
                .protect(&["/friend/name", "/friends/*/name"], subject("Friend", "/friend/id"))
                .change(1, Changes::new().move_value("/name", "/called"))
                .split(2, &[("Left", 1), ("Friendship", 1)], |old, _| {
                    Ok::<_, Infallible>(vec![
                        SplitPart::new("Left", 1, json!({"customer": old["customer"], "called": old["called"]})),
                        SplitPart::new("Friendship", 1, old["friend"].clone()),
                    ])
                }),
            event("Left").version(1).protect(&["/called"], customer()),
            event("Friendship").version(1).protect(&["/name"], subject("Friend", "/id")),
        ])
        .unwrap(),
    );
    let (found, _) = events(&db, &reader, &customer_scope("ada")).await;
    let current = found[0].current.as_ref().unwrap().as_ref().unwrap();
    let left: Value = serde_json::from_str(text(current[0].payload.as_ref())).unwrap();
    assert_eq!(left, json!({"customer": "ada", "called": "Ada L."}));
    assert_eq!(
        (text(current[1].payload.as_ref()), places(&current[1].left_out)),
        (r#"{"id":"eve"}"#, vec!["/name".into()])
    );
    assert_eq!((current[1].part.index, current[1].part.count), (1, 2));
    assert!(text(found[0].stored.payload.as_ref()).contains("n1"), "what a step drops is in what was stored");
    let dropping = db.process(
        Schemas::new([old()
            .version(2)
            .protect_same_as(1)
            .upcast(1, |old: Value| Ok::<_, Infallible>(old))
            .drop_from(2)])
        .unwrap(),
    );
    let (found, _) = events(&db, &dropping, &customer_scope("ada")).await;
    assert!(found[0].current.as_ref().unwrap().as_ref().unwrap().is_empty());
    assert_eq!(found[0].stored.fields.len(), 2);

    // As lines, and without metadata.
    let mut options = ExportOptions::default();
    options.metadata = false;
    let mut connection = db.connect().await.unwrap();
    let scope = customer_scope("ada");
    let (lines, _) = lines(&reader, db.connection(&mut connection), &scope, &options).await.unwrap();
    let line = &lines[0];
    assert_eq!((&line["stored"]["type"], &line["stored"]["version"]), (&json!("Met"), &json!(1)));
    assert_eq!(line["current"][0]["payload"], json!({"customer": "ada", "called": "Ada L."}));
    assert!(!line.to_string().contains("10.0.0.1") && !line.to_string().contains("Eve F."), "{line}");
    assert_eq!((&lines[1]["events"], &lines[1]["fields"], lines.len()), (&json!(1), &json!(2), 2));
}

async fn an_erased_generation_is_named_and_the_new_one_exported<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(Schemas::new([old()]).unwrap()).await;
    db.append(&store, "1", &[met()]).await;
    db.shred(&store, "ada").await;
    let (found, exported) = events(&db, &store, &customer_scope("ada")).await;
    assert_eq!((exported.events, exported.fields, exported.erased, exported.left_out), (1, 0, 2, 2));
    let stored = &found[0].stored;
    assert_eq!(stored.erased.len(), 2);
    assert!(!text(stored.payload.as_ref()).contains("Ada L.") && !text(stored.payload.as_ref()).contains("\"name\""));
    db.reopen(&store, "ada").await;
    db.append(&store, "1", &[NewEvent::raw("Met", 1, r#"{"customer":"ada","name":"Ada again"}"#)]).await;
    let (found, exported) = events(&db, &store, &customer_scope("ada")).await;
    assert_eq!((exported.events, exported.fields, exported.erased), (2, 1, 2));
    assert_eq!(text(found[1].stored.payload.as_ref()), r#"{"customer":"ada","name":"Ada again"}"#);
    // Whoever is left out may be disabled, or erased.
    let friend = KeyScope::new("Friend", "eve");
    let mut transaction = db.begin().await.unwrap();
    store.keys().disable(db.tx(&mut transaction), &friend, "incident").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(events(&db, &store, &customer_scope("ada")).await.1, exported);
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    let mut sink = |item: ExportItem<'_>| panic!("{item:?}");
    let refused = store.export(connection, &friend, &ExportOptions::default(), &mut sink, &mut |_| {}).await;
    assert!(matches!(refused, Err(eventseal::Error::Disabled { .. })), "{refused:?}");
}

async fn a_store_without_schemas_exports_what_was_stored<B: Backend>() {
    let db = B::make().await;
    let whole = || event("Whole").version(1).protect_whole(Owner::Aggregate);
    let writer = db.prepared(Schemas::new([old(), whole()]).unwrap()).await;
    db.append(&writer, "1", &[met(), NewEvent::raw("Whole", 1, &b"\xff no JSON"[..])]).await;
    let store = db.process(Schemas::new([]).unwrap());
    let (found, exported) = events(&db, &store, &customer_scope("ada")).await;
    assert_eq!((exported.events, exported.fields, exported.left_out), (1, 2, 2));
    assert!(!found[0].is_registered && found[0].current.is_none());
    assert!(
        text(found[0].stored.payload.as_ref()).contains("Ada L.")
            && !text(found[0].stored.payload.as_ref()).contains("Eve F.")
    );
    let mut connection = db.connect().await.unwrap();
    let order = KeyScope::new("Order", "1");
    let (lines, _) = lines(&store, db.connection(&mut connection), &order, &ExportOptions::default()).await.unwrap();
    assert_eq!(lines[0]["stored"]["payload_base64"], "/yBubyBKU09O");
    assert_eq!((&lines[0]["registered"], &lines[0]["stored"]["fields"]), (&json!(false), &json!([""])));
}
