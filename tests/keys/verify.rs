//! The verification of everything: a sound store is clean, and every fault is found where it is.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::conformance::Database;
use eventseal::erasure::{FoundAt, Verified, VerifyFinding, VerifyFindingKind, VerifyOptions};
use eventseal::keys::{DataKeyRecord, KeyId};
use eventseal::memory::{MemoryKeys, MemoryTx};
use eventseal::store::{EventTable, PayloadReplacement};
use eventseal::{EventStore, NewEvent, Owner, PersistedEvent, Result, Schemas, SealedStore, event, subject};
use std::sync::{Arc, Mutex};
use support::backend::Backend;
use support::faults::{Faulty, KeyFaults};
use support::{KEYRING, Memory, Sqlite, customer, customer_scope, on_every_database};

on_every_database! {
    a_sound_store_is_clean,
    every_fault_of_an_event_is_found_where_it_is,
    a_verification_goes_on_where_it_ended,
}

fn schemas() -> Schemas {
    let met = event("Met").version(1).protect(&["/name"], customer());
    let met = met.protect(&["/friend/name"], subject("Friend", "/friend/id"));
    Schemas::builder([
        met,
        event("Whole").version(1).protect_whole(Owner::Aggregate),
        event("Open").version(1),
        event("Old").version(1).protect(&["/name"], customer()),
    ])
    .accept_plaintext("Old")
    .build()
    .unwrap()
}

fn met(id: &str) -> NewEvent {
    let payload = format!(r#"{{"customer":"{id}","name":"Ada","friend":{{"id":"eve","name":"Eve"}}}}"#);
    NewEvent::raw("Met", 1, payload)
}

async fn verify<S: EventStore + EventTable<Tx = <S as EventStore>::Tx>>(
    store: &SealedStore<S>,
    connection: &mut <S as EventStore>::Tx,
    options: &VerifyOptions,
) -> Verified {
    store.verify(connection, &[], options, &mut |_| {}).await.unwrap()
}

async fn verified<B: Backend>(db: &B, schemas: Schemas) -> Verified {
    let (store, mut connection) = (db.process(schemas), db.connect().await.unwrap());
    let mut options = VerifyOptions::default();
    options.batch = 2;
    verify(&store, db.connection(&mut connection), &options).await
}

async fn a_sound_store_is_clean<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let plain = NewEvent::raw("Old", 1, r#"{"customer":"ada","name":"before the wrap"}"#);
    db.append_bare("0", &[plain]).await;
    let open = NewEvent::raw("Open", 1, r#"{"a":1}"#);
    db.append(&store, "1", &[met("ada"), met("kim"), NewEvent::raw("Whole", 1, "x"), open]).await;
    db.shred(&store, "ada").await;
    db.reopen(&store, "ada").await;
    db.append(&store, "1", &[met("ada")]).await;
    let mut transaction = db.begin().await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &customer_scope("kim")).await.unwrap();
    db.commit(transaction).await.unwrap();
    let found = verified(&db, schemas()).await;
    assert!(found.is_clean(), "{:?}", found.findings);
    assert_eq!((found.events, found.sealed, found.opened, found.redacted), (6, 4, 6, 1));
    assert_eq!((found.accepted_plaintext, found.unregistered, found.disabled, found.missing_keys), (1, 0, 0, 0));
    // ada, kim, eve and the order; the integrity key is counted among the keys.
    assert_eq!((found.scopes, found.live_keys, found.destroyed_keys, found.keks), (4, 6, 1, 1));
    // A store without schemas knows no places, but every seal.
    let found = verified(&db, Schemas::new([]).unwrap()).await;
    assert!(found.is_clean(), "{:?}", found.findings);
    assert_eq!((found.sealed, found.unregistered, found.accepted_plaintext), (4, 6, 0));
    // What is disabled can't be verified, and is no fault.
    db.disable(&store, "kim").await;
    let found = verified(&db, schemas()).await;
    assert!(found.is_clean(), "{:?}", found.findings);
    assert_eq!((found.sealed, found.disabled), (3, 1));
}

async fn replace<B: Backend>(db: &B, event: &PersistedEvent, new: Vec<u8>) {
    let mut transaction = db.begin().await.unwrap();
    let (position, event_id, old) = (event.global_position, event.event_id, event.payload.clone());
    let replacement = PayloadReplacement { position, event_id, old, new, metadata: None };
    let table = B::Store::default();
    assert_eq!(table.replace_payloads(db.tx(&mut transaction), &[replacement]).await.unwrap(), [position]);
    db.commit(transaction).await.unwrap();
}

/// The payload with a change in its header.
fn with_header(payload: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let text = std::str::from_utf8(payload).unwrap();
    let (token, rest) = text.strip_prefix(r#"{"$seal":""#).unwrap().split_once('"').unwrap();
    let mut header = URL_SAFE_NO_PAD.decode(token).unwrap();
    change(&mut header);
    format!(r#"{{"$seal":"{}"{rest}"#, URL_SAFE_NO_PAD.encode(header)).into_bytes()
}

fn kinds(found: &Verified) -> Vec<(&'static str, u64, i64)> {
    let position = |finding: &VerifyFinding| match &finding.first {
        FoundAt::Event { position, .. } => position.get(),
        _ => 0,
    };
    found.findings.iter().map(|finding| (finding.kind.as_str(), finding.count, position(finding))).collect()
}

async fn every_fault_of_an_event_is_found_where_it_is<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let events: Vec<NewEvent> = (0..8).map(|_| met("ada")).collect();
    db.append(&store, "1", &events).await;
    db.append(&store, "2", &[met("kim")]).await;
    let stored = db.stored().await;
    let text = |at: usize| String::from_utf8(stored[at].payload.clone()).unwrap();
    // Two commitments of 32 bytes are behind the tag. All keys are live, so no read looks at the tag.
    let tag = |header: &mut Vec<u8>| {
        let at = header.len() - 65;
        header[at] ^= 1;
    };
    replace(&db, &stored[1], with_header(&stored[1].payload, tag)).await;
    assert!(db.read(&store, "1").await.is_ok());
    assert_eq!(kinds(&verified(&db, schemas()).await), [("altered_seal", 1, 2)]);
    // The seal of another event.
    replace(&db, &stored[2], stored[3].payload.clone()).await;
    let version = |header: &mut Vec<u8>| header[0] = 9;
    replace(&db, &stored[4], with_header(&stored[4].payload, version)).await;
    replace(&db, &stored[5], br#"{"customer":"ada","name":"in the clear"}"#.to_vec()).await;
    replace(&db, &stored[6], br#"{"customer":"ada","friend":"no object"}"#.to_vec()).await;
    let last: serde_json::Value = serde_json::from_str(&text(7)).unwrap();
    let name = last["name"].as_str().unwrap();
    replace(&db, &stored[7], text(7).replace(name, &name.chars().rev().collect::<String>()).into_bytes()).await;
    let found = verified(&db, schemas()).await;
    let expected =
        [("altered_seal", 3, 2), ("unsupported_seal", 1, 5), ("plaintext", 1, 6), ("unreadable_payload", 1, 7)];
    assert_eq!(kinds(&found), expected, "{:?}", found.findings);
    assert_eq!((found.events, found.sealed), (9, 3));
    assert!(found.findings.iter().all(|finding| !finding.problem.contains("in the clear\"")));
    // Without schemas, nobody knows what should be protected.
    let found = verified(&db, Schemas::new([]).unwrap()).await;
    assert_eq!(kinds(&found), [("altered_seal", 3, 2), ("unsupported_seal", 1, 5)]);
}

async fn a_verification_goes_on_where_it_ended<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let events: Vec<NewEvent> = (0..7).map(|_| met("ada")).collect();
    db.append(&store, "1", &events).await;
    let stored = db.stored().await;
    replace(&db, &stored[0], br#"{"customer":"ada","name":"in the clear"}"#.to_vec()).await;
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    let mut options = VerifyOptions::default();
    (options.batch, options.range.up_to) = (3, Some(4.try_into().unwrap()));
    let mut told = Vec::new();
    let mut tell = |progress: eventseal::erasure::VerifyProgress| told.push(progress);
    let found = store.verify(connection, &[], &options, &mut tell).await.unwrap();
    assert_eq!((found.events, kinds(&found)), (4, vec![("plaintext", 1, 1)]));
    let last = told.last().unwrap();
    assert_eq!((last.position.get(), last.last.get(), last.events, last.scopes), (4, 4, 4, 2));
    options.range.after = last.position;
    options.range.up_to = None;
    options.keys = false;
    let found = verify(&store, connection, &options).await;
    assert!(found.is_clean() && (found.events, found.scopes, found.range.after.get()) == (3, 0, 4));
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
async fn keys_without_a_row_are_counted_apart() {
    let (db, lost) = (Memory::new(), Arc::new(Mutex::new(None)));
    let keys = Faulty(LosesARow { keys: MemoryKeys::new(), lost: Arc::clone(&lost) });
    let store = db.process_with(keys, Arc::clone(&KEYRING), schemas());
    db.prepare(&store).await;
    db.append(&store, "1", &[met("ada"), met("ada"), met("kim")]).await;
    let mut transaction = db.begin().await.unwrap();
    let scope = customer_scope("ada");
    let history = store.keys().key_history(db.tx(&mut transaction), &scope).await.unwrap().unwrap();
    *lost.lock().unwrap() = Some(history.keys[0].key_id);
    let mut connection = db.connect().await.unwrap();
    let found = verify(&store, db.connection(&mut connection), &VerifyOptions::default()).await;
    assert_eq!((found.missing_keys, kinds(&found)), (1, vec![("missing_key", 2, 1)]), "{:?}", found.findings);
}

/// What somebody does to the key tables of SQLite, with the kinds that are found.
#[tokio::test]
async fn every_fault_of_the_key_tables_is_found() {
    let db = Sqlite::new().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[met("ada"), met("kim")]).await;
    db.shred(&store, "gone").await;
    let is_of_ada = |finding: &VerifyFinding| match &finding.first {
        FoundAt::Scope(scope) | FoundAt::Key { scope, .. } => scope.id() == "ada",
        _ => false,
    };
    let ada = "WHERE scope_kind = 'Customer' AND scope_id = 'ada'";
    let kim = "(SELECT key_id FROM data_keys WHERE scope_kind = 'Customer' AND scope_id = 'kim')";
    let cases: [(String, &[VerifyFindingKind]); 4] = [
        (format!("UPDATE data_keys SET wrapped_key = randomblob(65) {ada}"), &[VerifyFindingKind::DataKey]),
        (
            format!("UPDATE key_scopes SET state = 'shredded' {ada}"),
            &[VerifyFindingKind::Scope, VerifyFindingKind::NotErased, VerifyFindingKind::ShredLog],
        ),
        (format!("UPDATE key_scopes SET active_key_id = {kim} {ada}"), &[VerifyFindingKind::Scope]),
        (format!("UPDATE key_scopes SET generation = 7 {ada}"), &[VerifyFindingKind::ShredLog]),
    ];
    for (fault, kinds) in cases {
        sqlx::raw_sql("DROP TABLE IF EXISTS kept_keys; DROP TABLE IF EXISTS kept_scopes")
            .execute(&db.pool)
            .await
            .unwrap();
        sqlx::raw_sql(
            "CREATE TABLE kept_keys AS SELECT * FROM data_keys; CREATE TABLE kept_scopes AS SELECT * FROM key_scopes",
        )
        .execute(&db.pool)
        .await
        .unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(fault.clone())).execute(&db.pool).await.unwrap();
        // A process without a cache.
        let found = verified(&db, schemas()).await;
        for kind in kinds {
            let finding = found.findings.iter().find(|finding| finding.kind == *kind);
            assert!(finding.is_some_and(is_of_ada), "{fault}: {kind:?} is not among {:?}", found.findings);
        }
        let undo = "UPDATE data_keys SET wrapped_key =
                (SELECT wrapped_key FROM kept_keys AS kept WHERE kept.key_id = data_keys.key_id);
            UPDATE key_scopes SET (state, generation, active_key_id) =
                (SELECT state, generation, active_key_id FROM kept_scopes AS kept
                WHERE kept.scope_kind = key_scopes.scope_kind AND kept.scope_id = key_scopes.scope_id)";
        sqlx::raw_sql(undo).execute(&db.pool).await.unwrap();
        let found = verified(&db, schemas()).await;
        assert!(found.is_clean(), "{:?}", found.findings);
    }
    // Another keyring opens nothing: that is said of the key-encryption key, and of what needs it.
    let other = Arc::new(eventseal::Keyring::generate("main").unwrap());
    let store = db.process_with(eventseal::sqlite::SqliteKeys::new(), other, schemas());
    let mut connection = db.connect().await.unwrap();
    let found = verify(&store, db.connection(&mut connection), &VerifyOptions::default()).await;
    let kek = found.findings.iter().find(|finding| finding.kind == VerifyFindingKind::Kek).unwrap();
    assert!(matches!(kek.first, FoundAt::Kek(_)) && found.keks == 0 && found.sealed == 0, "{found:?}");
}
