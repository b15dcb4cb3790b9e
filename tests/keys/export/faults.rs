//! An export that can't have everything says so.

use super::{ExportItem, ExportOptions, events, lines, met, old};
use async_trait::async_trait;
use eventseal::conformance::Database;
use eventseal::error::{ErrorKind, MaintenanceFault};
use eventseal::keys::{DataKeyRecord, KeyId};
use eventseal::memory::{MemoryKeys, MemoryTx};
use eventseal::store::{EventTable, PayloadReplacement};
use eventseal::{Error, KeyScope, NewEvent, PersistedEvent, Result, Schemas, event, subject};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use support::backend::Backend;
use support::faults::{Faulty, KeyFaults};
use support::{KEYRING, Memory, customer, customer_scope, on_every_database, whole};

on_every_database! {
    what_cannot_be_read_is_named_and_the_rest_exported,
    a_step_that_fails_at_stand_ins_leaves_what_was_stored,
    plaintext_of_others_is_left_out,
    a_sink_that_fails_ends_the_export,
}

async fn replace<B: Backend>(db: &B, event: &PersistedEvent, new: Vec<u8>) {
    let mut transaction = db.begin().await.unwrap();
    let (position, event_id, old) = (event.global_position, event.event_id, event.payload.clone());
    let replacement = PayloadReplacement { position, event_id, old, new, metadata: None };
    let table = B::Store::default();
    assert_eq!(table.replace_payloads(db.tx(&mut transaction), &[replacement]).await.unwrap(), [position]);
    db.commit(transaction).await.unwrap();
}

async fn what_cannot_be_read_is_named_and_the_rest_exported<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(Schemas::new([old()]).unwrap()).await;
    db.append(&store, "1", &[met(), met(), met(), met()]).await;
    let stored = db.stored().await;
    let text = |event: &PersistedEvent| String::from_utf8(event.payload.clone()).unwrap();
    // A value of the owner, a value of somebody else that is no ciphertext any more, and a header that nobody can read.
    let value: Value = serde_json::from_slice(&stored[0].payload).unwrap();
    let (own, others) = (value["name"].as_str().unwrap(), text(&stored[1]));
    let broken = text(&stored[0]).replace(own, &format!("{}{}", &own[1..], &own[..1]));
    replace(&db, &stored[0], broken.into_bytes()).await;
    let value: Value = serde_json::from_str(&others).unwrap();
    let in_the_clear = others.replace(value["friend"]["name"].as_str().unwrap(), "Eve in the clear");
    replace(&db, &stored[1], in_the_clear.into_bytes()).await;
    replace(&db, &stored[2], text(&stored[2]).replace("{\"$seal\":\"", "{\"$seal\":\"!").into_bytes()).await;
    let mut connection = db.connect().await.unwrap();
    let scope = customer_scope("ada");
    let found = lines(&store, db.connection(&mut connection), &scope, &ExportOptions::default()).await;
    let (lines, exported) = found.unwrap();
    assert_eq!((exported.events, exported.unreadable, exported.is_complete()), (1, 3, false));
    let positions: Vec<_> = lines[..4].iter().map(|line| line["position"].as_i64().unwrap()).collect();
    assert_eq!(positions, [1, 2, 3, 4]);
    for line in &lines[..3] {
        assert!(
            line["unreadable"].as_str().unwrap().contains("not what was written") || line["unreadable"].is_string()
        );
        assert!(line.get("stored").is_none(), "{line}");
    }
    assert_eq!((&lines[3]["stored"]["payload"]["name"], &lines[4]["complete"]), (&json!("Ada L."), &json!(false)));
    assert!(!lines.iter().any(|line| line.to_string().contains("Eve")), "{lines:?}");
}

async fn a_step_that_fails_at_stand_ins_leaves_what_was_stored<B: Backend>() {
    let db = B::make().await;
    let writer = db.prepared(Schemas::new([old()]).unwrap()).await;
    db.append(&writer, "1", &[met()]).await;
    let picky = old().version(2).protect_same_as(1).upcast(1, |old: Value| match old["friend"]["name"] == "somebody" {
        true => Err("who is that?"),
        false => Ok(old),
    });
    let reader = db.process(Schemas::new([picky]).unwrap());
    let (found, exported) = events(&db, &reader, &customer_scope("ada")).await;
    assert_eq!((exported.not_upcast, exported.fields), (1, 2));
    assert!(found[0].current.as_ref().unwrap().is_err());
    let mut connection = db.connect().await.unwrap();
    let scope = customer_scope("ada");
    let found = lines(&reader, db.connection(&mut connection), &scope, &ExportOptions::default()).await;
    let (lines, _) = found.unwrap();
    assert!(lines[0]["not_upcast"].is_string() && lines[0].get("current").is_none(), "{}", lines[0]);
    assert_eq!(lines[0]["stored"]["payload"]["name"], "Ada L.");
}

async fn plaintext_of_others_is_left_out<B: Backend>() {
    let db = B::make().await;
    // Only the names were protected when the event was sealed; notes are since then.
    let narrow = event("Met").version(1).protect(&["/name"], customer());
    let wide = || {
        let wide = event("Met").version(1).protect(&["/name", "/note"], customer());
        let wide = wide.protect(&["/friend/name"], subject("Friend", "/friend/id"));
        Schemas::builder([wide
            .version(2)
            .protect_same_as(1)
            .upcast(1, |old: Value| Ok::<_, std::convert::Infallible>(old))])
        .accept_plaintext("Met")
        .build()
        .unwrap()
    };
    let writer = db.prepared(Schemas::new([narrow]).unwrap()).await;
    let payload = r#"{"customer":"ada","name":"Ada","note":"own","friend":{"id":"eve","name":"Eve F."}}"#;
    db.append(&writer, "1", &[NewEvent::raw("Met", 1, payload)]).await;
    let (found, exported) = events(&db, &db.process(wide()), &customer_scope("ada")).await;
    let expected = r#"{"customer":"ada","name":"Ada","note":"own","friend":{"id":"eve"}}"#;
    assert_eq!(found[0].stored.payload.as_deref(), Some(expected.as_bytes()));
    let current = found[0].current.as_ref().unwrap().as_ref().unwrap();
    assert!(!String::from_utf8_lossy(current[0].payload.as_ref().unwrap()).contains("Eve F."));
    assert_eq!((exported.left_out, exported.not_searched), (1, vec!["Met".to_owned()]));
    // If the payload does not say whose it is, nothing is guessed.
    let payload = r#"{"customer":"ada","name":"Ada","friend":{"name":"Eve F."}}"#;
    db.append(&writer, "2", &[NewEvent::raw("Met", 1, payload)]).await;
    let mut connection = db.connect().await.unwrap();
    let scope = customer_scope("ada");
    let found = lines(&db.process(wide()), db.connection(&mut connection), &scope, &ExportOptions::default()).await;
    let (lines, exported) = found.unwrap();
    assert_eq!((exported.events, exported.unreadable), (1, 1));
    assert!(!lines.iter().any(|line| line.to_string().contains("Eve F.")), "{lines:?}");
}

async fn a_sink_that_fails_ends_the_export<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(Schemas::new([old()]).unwrap()).await;
    db.append(&store, "1", &[met(), met()]).await;
    let mut connection = db.connect().await.unwrap();
    let mut items = 0;
    let mut sink = |_: ExportItem<'_>| {
        items += 1;
        Err(std::io::Error::other("the disk is full").into())
    };
    let (connection, scope) = (db.connection(&mut connection), customer_scope("ada"));
    let error = store.export(connection, &scope, &ExportOptions::default(), &mut sink, &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Maintenance(MaintenanceFault::Sink(_))), "{error:?}");
    assert!(error.kind() == ErrorKind::Application && whole(&error).contains("the disk is full"), "{}", whole(&error));
    assert_eq!(items, 1);
}

/// A key table in memory that has lost a row.
struct LosesARow {
    keys: MemoryKeys,
    lost: Arc<Mutex<Option<KeyId>>>,
}

#[async_trait]
impl KeyFaults for LosesARow {
    type Inner = MemoryKeys;

    fn inner(&self) -> &MemoryKeys {
        &self.keys
    }

    async fn data_keys(&self, tx: &mut MemoryTx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let lost = *self.lost.lock().unwrap();
        let mut rows = eventseal::keys::KeyStore::data_keys(&self.keys, tx, key_ids).await?;
        rows.retain(|row| Some(row.key_id) != lost);
        Ok(rows)
    }
}

#[tokio::test]
async fn a_key_without_a_row_is_a_loss_and_not_an_erasure() {
    let (db, lost) = (Memory::new(), Arc::new(Mutex::new(None)));
    let keys = Faulty(LosesARow { keys: MemoryKeys::new(), lost: Arc::clone(&lost) });
    let store = db.process_with(keys, Arc::clone(&KEYRING), Schemas::new([old()]).unwrap());
    db.prepare(&store).await;
    db.append(&store, "1", &[met()]).await;
    let friend = KeyScope::new("Friend", "eve");
    let mut transaction = db.begin().await.unwrap();
    let history = store.keys().key_history(db.tx(&mut transaction), &friend).await.unwrap().unwrap();
    *lost.lock().unwrap() = Some(history.keys[0].key_id);
    let mut connection = db.connect().await.unwrap();
    let scope = customer_scope("ada");
    let (lines, exported) =
        lines(&store, db.connection(&mut connection), &scope, &ExportOptions::default()).await.unwrap();
    assert_eq!((exported.lost, exported.left_out, exported.fields, exported.is_complete()), (2, 0, 2, false));
    assert_eq!(lines[0]["lost"], json!(["/friend/name", "/friends/0/name"]));
    assert_eq!(lines[0]["stored"]["payload"]["name"], "Ada L.", "what can be exported is");
}
