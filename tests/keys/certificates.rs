//! Certificates, on every database: they count what is there, say plainly what is not erased, and take no loss and no
//! forgery for an erasure.

use crate::events_of::{placed, schemas};
use async_trait::async_trait;
use eventseal::erasure::{
    Authenticity, Certificate, CertificateFinding, CertificateFindingKind, CertificateOptions, EventCounts,
    KeyStanding, LogStanding,
};
use eventseal::error::KeyFault;
use eventseal::keys::{DataKeyRecord, DestroyedKey, KeyHistory, KeyId, KeyTable, ScopeAction, ScopeState};
use eventseal::maintenance::{BackfillOptions, IndexSealsOptions, index_seals};
use eventseal::store::{EventTable, PayloadReplacement};
use eventseal::{Error, KeyScope, NewEvent, Result, SealedStore};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::backend::Backend;
use support::faults::{Faulty, KeyFaults, KeyTx};
use support::{KEYRING, customer_scope, fault, on_every_database};
use time::OffsetDateTime;

on_every_database! {
    counts_are_those_of_the_scope,
    a_reopened_scope_is_not_erased,
    a_lost_key_is_no_erasure,
    keys_that_came_back_and_altered_rows_are_named,
    entries_and_states_that_were_altered_are_named,
    erased_values_and_scopes_without_events_are_certified,
    holds_and_schedules_are_listed,
    events_of_which_nobody_knows_whose_they_are_are_counted_apart,
    what_changes_meanwhile_is_not_certified,
    an_index_leads_to_the_same_counts,
    scopes_that_cannot_be_certified_are_refused,
}

fn kinds(findings: &[CertificateFinding]) -> Vec<CertificateFindingKind> {
    findings.iter().map(|finding| finding.kind).collect()
}

/// Events: all, unreadable, readable, lost. Fields: unreadable, void, readable, lost.
fn counts(events: [u64; 4], fields: [u64; 4]) -> EventCounts {
    let mut counts = EventCounts::default();
    [counts.events, counts.unreadable_events, counts.readable_events, counts.lost_events] = events;
    [counts.unreadable_fields, counts.void_fields, counts.readable_fields, counts.lost_fields] = fields;
    counts
}

async fn try_certify<B: Backend>(
    db: &B,
    store: &SealedStore<B::Store>,
    scope: &KeyScope,
    options: &CertificateOptions,
) -> Result<Certificate> {
    let mut connection = db.connect().await.unwrap();
    store.certificate(db.connection(&mut connection), scope, &[], options, &mut |_| {}).await
}

async fn certify<B: Backend>(db: &B, store: &SealedStore<B::Store>, id: &str) -> Certificate {
    let certificate = try_certify(db, store, &customer_scope(id), &CertificateOptions::default()).await.unwrap();
    assert_eq!(certificate.erased, certificate.why_not.is_empty());
    assert!(!certificate.proved, "no copy of the log was looked at");
    let noted = kinds(&certificate.remarks).contains(&CertificateFindingKind::NotProved);
    assert_eq!(noted, certificate.erased, "what is erased and not proved says so");
    certificate
}

fn gift(customer: &str, friend: &str) -> NewEvent {
    let payload = format!(r#"{{"customer":"{customer}","name":"N","friend":"{friend}","gift":{{"note":"G"}}}}"#);
    NewEvent::raw("Placed", 1, payload)
}

fn lines(ids: [&str; 3]) -> NewEvent {
    let lines = ids.map(|id| format!(r#"{{"id":"{id}","name":"N"}}"#)).join(",");
    NewEvent::raw("Lines", 1, format!(r#"{{"lines":[{lines}]}}"#))
}

async fn counts_are_those_of_the_scope<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), gift("ada", "eve"), gift("eve", "ada"), lines(["ada", "eve", "ada"])])
        .await;
    db.append(&store, "2", &[placed("eve"), NewEvent::raw("Plain", 1, "{}")]).await;

    let before = certify(&db, &store, "ada").await;
    assert_eq!(kinds(&before.why_not), [CertificateFindingKind::NeverShredded, CertificateFindingKind::LiveKeys]);
    assert_eq!((before.live_keys, before.horizon.as_ref(), before.last_shred()), (1, None, None));
    let readable = counts([3, 0, 3, 0], [0, 0, 4, 0]);
    assert_eq!(before.events, readable);

    let shredding = db.shred(&store, "ada").await;
    let mut options = CertificateOptions::default();
    options.batch = 2;
    options.retention.backups = Some(Duration::from_secs(86_400));
    (options.retention.archives, options.retention.replicas) = (Some(Duration::ZERO), Some(Duration::ZERO));
    let after = try_certify(&db, &store, &customer_scope("ada"), &options).await.unwrap();
    assert!(after.erased && !after.proved, "{after:?}");
    assert_eq!((after.state, after.generation, after.live_keys), (ScopeState::Shredded, 1, 0));
    let unreadable = counts([3, 3, 0, 0], [4, 0, 0, 0]);
    assert_eq!(after.events, unreadable);
    let types: Vec<_> = after
        .event_types
        .iter()
        .map(|of| (of.event_type.as_str(), of.event_version.get(), of.counts.events, of.counts.unreadable_fields))
        .collect();
    assert_eq!(types, [("Lines", 1, 1, 2), ("Placed", 1, 2, 2)], "not the fields of others");
    let key = &after.keys[0];
    assert_eq!((after.keys.len(), key.version, key.standing), (1, 1, KeyStanding::Destroyed));
    assert_eq!((key.key_id, key.entry), (Some(shredding.destroyed[0]), shredding.entry));
    assert_eq!(key.destroyed_at, Some(shredding.at));
    let shred = after.last_shred().unwrap();
    assert_eq!((shred.number, shred.authenticity), (1, Authenticity::Verified));
    assert!(matches!(shred.log, LogStanding::Sealed { seq: 1, .. }), "{shred:?}");
    assert_eq!((&shred.keys, &shred.reason[..]), (&shredding.destroyed, "request"));
    assert_eq!(after.horizon.as_ref().unwrap().at, Some(shredding.at + Duration::from_secs(86_400)));
    let scan = after.scan;
    assert_eq!((scan.after.get(), scan.up_to.get(), scan.looked_at), (0, 6, 6));
    assert_eq!((after.malformed_seals.events, after.unknown_keys.events), (0, 0));

    // The others are as they were, and their counts too.
    let eve = certify(&db, &store, "eve").await;
    assert_eq!((eve.erased, eve.events.events, eve.events.readable_fields), (false, 3, 3));
    let friend = KeyScope::new("Friend", "ada");
    let friend = try_certify(&db, &store, &friend, &CertificateOptions::default()).await.unwrap();
    assert_eq!((friend.erased, friend.events.events), (false, 1));

    let json = serde_json::to_value(&after).unwrap();
    assert_eq!(json["scope"], serde_json::json!({ "kind": "Customer", "id": "ada" }));
    assert_eq!(json["event_types"][0]["unreadable_fields"], 2);
    assert_eq!((&json["entries"][0]["log"]["standing"], &json["log"]["sound"]), (&"sealed".into(), &true.into()));
    assert_eq!(json["entries"][0]["digest"].as_str().unwrap().len(), 64);
}

async fn a_reopened_scope_is_not_erased<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), gift("ada", "eve")]).await;
    db.shred(&store, "ada").await;
    db.reopen(&store, "ada").await;
    db.append(&store, "1", &[placed("ada")]).await;
    let certificate = certify(&db, &store, "ada").await;
    assert_eq!(kinds(&certificate.why_not), [CertificateFindingKind::Reopened, CertificateFindingKind::LiveKeys]);
    assert!(certificate.why_not[0].text.contains("back"), "why: {certificate:?}");
    assert_eq!((certificate.state, certificate.generation), (ScopeState::Live, 2));
    let standings: Vec<_> = certificate.keys.iter().map(|key| (key.version, key.standing)).collect();
    assert_eq!(standings, [(1, KeyStanding::Destroyed), (2, KeyStanding::Live)]);
    let counts = certificate.events;
    assert_eq!((counts.events, counts.unreadable_events, counts.readable_events), (3, 2, 1));
    let actions: Vec<_> = certificate.entries.iter().map(|entry| entry.action).collect();
    assert_eq!(actions, [ScopeAction::Shred, ScopeAction::Reopen]);

    db.shred(&store, "ada").await;
    let certificate = certify(&db, &store, "ada").await;
    assert!(certificate.erased, "{certificate:?}");
    assert_eq!(certificate.last_shred().unwrap().number, 3);
}

/// A key table to which somebody wrote.
#[derive(Clone, Default)]
struct Tampered<K> {
    keys: K,
    how: Arc<Mutex<How>>,
}

#[derive(Clone, Default)]
struct How {
    /// These rows are gone.
    lost: HashSet<KeyId>,
    /// These keys were restored.
    back: HashSet<KeyId>,
    /// These rows have neither a key nor a time.
    halved: HashSet<KeyId>,
    /// The entry with this number has another reason.
    altered: Option<u32>,
    /// The row of the scope says this.
    state: Option<ScopeState>,
}

#[async_trait]
impl<K: KeyTable> KeyFaults for Tampered<K> {
    type Inner = K;

    fn inner(&self) -> &K {
        &self.keys
    }

    async fn data_keys(&self, tx: &mut KeyTx<Self>, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let mut rows = self.keys.data_keys(tx, key_ids).await?;
        let how = self.how.lock().unwrap().clone();
        rows.retain(|row| !how.lost.contains(&row.key_id));
        for row in &mut rows {
            if how.back.contains(&row.key_id) {
                (row.wrapped_key, row.shredded_at) = (Some(vec![7; 65]), None);
            }
            if how.halved.contains(&row.key_id) {
                (row.wrapped_key, row.shredded_at) = (None, None);
            }
        }
        Ok(rows)
    }

    async fn destroy_keys(
        &self,
        tx: &mut KeyTx<Self>,
        scope: &KeyScope,
        at: OffsetDateTime,
    ) -> Result<Vec<DestroyedKey>> {
        let mut destroyed = self.keys.destroy_keys(tx, scope, at).await?;
        destroyed.retain(|key| !self.how.lock().unwrap().lost.contains(&key.key_id));
        Ok(destroyed)
    }

    async fn history(&self, tx: &mut KeyTx<Self>, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        let mut history = self.keys.history(tx, scope).await?;
        let how = self.how.lock().unwrap().clone();
        if let Some(history) = &mut history {
            history.keys.retain(|key| !how.lost.contains(&key.key_id));
            history.state = how.state.unwrap_or(history.state);
            for entry in history.entries.iter_mut().filter(|entry| Some(entry.scope_seq) == how.altered) {
                entry.reason.push_str(" of another kind");
            }
        }
        Ok(history)
    }
}

/// A process over a key table to which somebody writes, and the writer.
fn tampered<B: Backend>(db: &B) -> (SealedStore<B::Store>, Arc<Mutex<How>>) {
    let keys = Faulty(Tampered::<B::Keys>::default());
    let how = Arc::clone(&keys.how);
    (db.process_with(keys, Arc::clone(&KEYRING), schemas()), how)
}

/// A customer with an event under each of two keys, and the ids of these.
async fn with_two_keys<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Vec<KeyId> {
    db.append(store, "1", &[placed("ada")]).await;
    let mut transaction = db.begin().await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &customer_scope("ada")).await.unwrap();
    db.commit(transaction).await.unwrap();
    db.append(store, "1", &[placed("ada"), gift("ada", "eve")]).await;
    db.history(store, "ada").await.unwrap().keys.iter().map(|key| key.key_id).collect()
}

async fn a_lost_key_is_no_erasure<B: Backend>() {
    let db = B::make().await;
    db.prepare(&db.process(schemas())).await;
    let (store, how) = tampered(&db);
    let keys = with_two_keys(&db, &store).await;

    // The row is gone before the shred, which therefore does not name the key.
    how.lock().unwrap().lost.insert(keys[0]);
    db.shred(&store, "ada").await;
    let certificate = certify(&db, &store, "ada").await;
    assert_eq!(kinds(&certificate.why_not), [CertificateFindingKind::KeyLost], "{certificate:?}");
    let keys_of = |certificate: &Certificate| -> Vec<_> {
        certificate.keys.iter().map(|key| (key.version, key.key_id, key.standing)).collect()
    };
    assert_eq!(keys_of(&certificate), [(1, None, KeyStanding::Missing), (2, Some(keys[1]), KeyStanding::Destroyed)]);
    let counts = certificate.events;
    assert_eq!((counts.events, counts.unreadable_events, counts.lost_events), (2, 2, 0));
    assert_eq!(certificate.unknown_keys.events, 1, "nobody knows whose it is");
    assert_eq!(certificate.unknown_keys.first[0].position.get(), 1);
    assert!(kinds(&certificate.remarks).contains(&CertificateFindingKind::UnknownKeys));

    // The row is gone after the shred, which names the key.
    *how.lock().unwrap() = How { lost: [keys[1]].into(), ..How::default() };
    let certificate = certify(&db, &store, "ada").await;
    assert_eq!(kinds(&certificate.why_not), []);
    assert!(kinds(&certificate.remarks).contains(&CertificateFindingKind::NoTombstone), "{certificate:?}");
    assert!(kinds(&certificate.remarks).contains(&CertificateFindingKind::NotNamed), "the other one: {certificate:?}");
    let counts = certificate.events;
    assert_eq!((counts.events, counts.unreadable_events, counts.lost_events, counts.lost_fields), (3, 1, 2, 2));
    assert_eq!(
        keys_of(&certificate),
        [(1, Some(keys[0]), KeyStanding::Destroyed), (2, Some(keys[1]), KeyStanding::Missing)]
    );
}

async fn keys_that_came_back_and_altered_rows_are_named<B: Backend>() {
    let db = B::make().await;
    db.prepare(&db.process(schemas())).await;
    let (store, how) = tampered(&db);
    let keys = with_two_keys(&db, &store).await;
    db.shred(&store, "ada").await;
    assert!(certify(&db, &store, "ada").await.erased);

    how.lock().unwrap().back.insert(keys[1]);
    let certificate = certify(&db, &store, "ada").await;
    assert_eq!(kinds(&certificate.why_not), [CertificateFindingKind::KeysCameBack]);
    assert_eq!((certificate.live_keys, certificate.keys[1].standing), (1, KeyStanding::Live));
    let counts = certificate.events;
    assert_eq!((counts.unreadable_events, counts.readable_events, counts.readable_fields), (1, 2, 2));

    *how.lock().unwrap() = How { halved: [keys[0]].into(), ..How::default() };
    let certificate = certify(&db, &store, "ada").await;
    assert_eq!(kinds(&certificate.why_not), [CertificateFindingKind::KeyAltered]);
    assert!(certificate.why_not[0].text.contains("key 1 "), "it is named: {certificate:?}");
    assert_eq!((certificate.live_keys, certificate.events.lost_fields), (0, 1));
}

async fn entries_and_states_that_were_altered_are_named<B: Backend>() {
    let db = B::make().await;
    db.prepare(&db.process(schemas())).await;
    let (store, how) = tampered(&db);
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    db.disable(&store, "ada").await;
    db.shred(&store, "ada").await;
    for (altered, expected) in [
        (1, [Authenticity::NotVerified, Authenticity::NotVerified]),
        (2, [Authenticity::Verified, Authenticity::NotVerified]),
    ] {
        *how.lock().unwrap() = How { altered: Some(altered), ..How::default() };
        let certificate = certify(&db, &store, "ada").await;
        assert_eq!(kinds(&certificate.why_not), [CertificateFindingKind::LogAltered]);
        assert!(certificate.why_not[0].text.contains(&format!("Entry {altered} ")), "{certificate:?}");
        assert_eq!(certificate.entries.iter().map(|entry| entry.authenticity).collect::<Vec<_>>(), expected);
        assert_eq!(certificate.keys[0].entry, None, "an entry that is not authentic names no key");
    }

    // Somebody sets a state by hand, so that a scope looks as if it were shredded, or not.
    *how.lock().unwrap() = How { state: Some(ScopeState::Shredded), ..How::default() };
    let certificate = certify(&db, &store, "eve").await;
    assert_eq!(
        kinds(&certificate.why_not),
        [CertificateFindingKind::StateDisagrees, CertificateFindingKind::KeysCameBack]
    );
    *how.lock().unwrap() = How { state: Some(ScopeState::Live), ..How::default() };
    let certificate = certify(&db, &store, "ada").await;
    assert_eq!(
        kinds(&certificate.why_not),
        [CertificateFindingKind::StateDisagrees, CertificateFindingKind::NeverShredded]
    );
}

async fn erased_values_and_scopes_without_events_are_certified<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada")]).await;
    db.append_bare("2", &[gift("ada", "eve")]).await;
    db.shred(&store, "ada").await;
    let mut erasing = BackfillOptions::default();
    erasing.erase_shredded = true;
    assert_eq!(db.backfill(&store, &erasing).await.unwrap().erased, 1);
    let certificate = certify(&db, &store, "ada").await;
    let expected = counts([2, 2, 0, 0], [1, 1, 0, 0]);
    assert_eq!((certificate.erased, certificate.events), (true, expected));

    db.shred(&store, "nobody").await;
    let certificate = certify(&db, &store, "nobody").await;
    assert!(certificate.erased && certificate.keys.is_empty() && certificate.event_types.is_empty());
    assert_eq!(certificate.events, EventCounts::default());
}

async fn holds_and_schedules_are_listed<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada")]).await;
    let (keys, ada) = (store.keys().acting_as("clerk 7"), customer_scope("ada"));
    let later = OffsetDateTime::now_utc() + Duration::from_secs(3_600);
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let first = keys.hold(tx, &ada, "case 1", None).await.unwrap();
    let second = keys.hold(tx, &ada, "case 2", Some(later)).await.unwrap();
    keys.release(tx, &first, "case 1 closed").await.unwrap();
    let schedule =
        keys.schedule_shred(tx, &ada, later, eventseal::erasure::ShredMode::KeepWorking, "due").await.unwrap();
    db.commit(transaction).await.unwrap();

    let certificate = certify(&db, &store, "ada").await;
    let holds: Vec<_> = certificate.holds.iter().map(|hold| (hold.hold, &hold.reason[..], hold.in_force)).collect();
    assert_eq!(holds, [(first.id, "case 1", false), (second.id, "case 2", true)]);
    assert!(certificate.holds[0].released_at.is_some() && certificate.holds[1].until == second.until);
    assert_eq!(certificate.schedule.as_ref().map(|of| (of.schedule, of.due)), Some((schedule.id, schedule.due)));
    assert_eq!(kinds(&certificate.remarks), [CertificateFindingKind::Held, CertificateFindingKind::Scheduled]);
    assert_eq!(certificate.entries[0].actor.as_deref(), Some("clerk 7"));

    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    keys.release(tx, &second, "case 2 closed").await.unwrap();
    keys.cancel(tx, &ada, "not now").await.unwrap();
    db.commit(transaction).await.unwrap();
    let certificate = certify(&db, &store, "ada").await;
    assert_eq!((certificate.schedule, kinds(&certificate.remarks)), (None, vec![]));
    db.shred(&store, "ada").await;
    let certificate = certify(&db, &store, "ada").await;
    assert!(certificate.erased && certificate.holds.len() == 2, "past holds stay listed: {certificate:?}");
}

async fn events_of_which_nobody_knows_whose_they_are_are_counted_apart<B: Backend>() {
    let db = B::make().await;
    db.prepare(&db.process(schemas())).await;
    let (store, how) = tampered(&db);
    db.append(&store, "1", &[placed("ada"), placed("eve"), gift("ada", "kim"), placed("ada")]).await;
    db.shred(&store, "ada").await;
    let stored = &db.stored().await[3];
    let broken = String::from_utf8(stored.payload.clone()).unwrap().replacen(r#"{"$seal":""#, r#"{"$seal":"_"#, 1);
    let mut transaction = db.begin().await.unwrap();
    let replacement = PayloadReplacement {
        position: stored.global_position,
        event_id: stored.event_id,
        old: stored.payload.clone(),
        new: broken.into_bytes(),
        metadata: None,
    };
    B::Store::default().replace_payloads(db.tx(&mut transaction), &[replacement]).await.unwrap();
    db.commit(transaction).await.unwrap();
    for id in ["eve", "kim"] {
        let scope = if id == "eve" { customer_scope(id) } else { KeyScope::new("Friend", id) };
        let mut transaction = db.begin().await.unwrap();
        let history = store.keys().key_history(db.tx(&mut transaction), &scope).await.unwrap().unwrap();
        how.lock().unwrap().lost.insert(history.keys[0].key_id);
    }
    let certificate = certify(&db, &store, "ada").await;
    assert!(certificate.erased, "all of the keys that it had are destroyed: {certificate:?}");
    assert_eq!((certificate.events.events, certificate.events.unreadable_fields), (2, 2));
    let apart = [&certificate.malformed_seals, &certificate.unknown_keys]
        .map(|of| of.first.iter().map(|event| event.position.get()).collect::<Vec<_>>());
    assert_eq!(apart, [vec![4], vec![2, 3]]);
    let remarks = kinds(&certificate.remarks);
    assert_eq!(
        remarks,
        [
            CertificateFindingKind::NotProved,
            CertificateFindingKind::MalformedSeals,
            CertificateFindingKind::UnknownKeys
        ]
    );
}

async fn what_changes_meanwhile_is_not_certified<B: Backend>() {
    let db = B::make().await;
    db.prepare(&db.process(schemas())).await;
    let (store, how) = tampered(&db);
    let keys = with_two_keys(&db, &store).await;
    db.shred(&store, "ada").await;
    let mut connection = db.connect().await.unwrap();
    let mut bring_back = |_| {
        how.lock().unwrap().back.insert(keys[0]);
    };
    let (ada, options) = (customer_scope("ada"), CertificateOptions::default());
    let refused = store.certificate(db.connection(&mut connection), &ada, &[], &options, &mut bring_back).await;
    assert!(matches!(refused, Err(Error::Collision { .. })), "{refused:?}");
    drop(connection);
    assert!(!certify(&db, &store, "ada").await.erased);
}

async fn an_index_leads_to_the_same_counts<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve"), gift("eve", "ada"), lines(["ada", "eve", "ada"])]).await;
    db.shred(&store, "ada").await;
    let by_scan = certify(&db, &store, "ada").await;
    assert!(!by_scan.scan.index_used);
    let (table, mut connection) = (B::Store::default(), db.connect().await.unwrap());
    let options = IndexSealsOptions::default();
    index_seals(&table, db.connection(&mut connection), &options, &mut |_| {}).await.unwrap();
    drop(connection);
    let by_index = certify(&db, &store, "ada").await;
    assert_eq!((by_index.scan.index_used, by_index.scan.looked_at), (true, 2), "{by_index:?}");
    assert_eq!((by_index.events, &by_index.event_types), (by_scan.events, &by_scan.event_types));
    assert_eq!(by_index.not_looked_at.len(), by_scan.not_looked_at.len() + 1, "what an index does not lead to");
    let mut options = CertificateOptions::default();
    options.use_index = false;
    let again = try_certify(&db, &store, &customer_scope("ada"), &options).await.unwrap();
    assert_eq!(again.scan, by_scan.scan);
}

async fn scopes_that_cannot_be_certified_are_refused<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada")]).await;
    for (scope, problem) in [
        (customer_scope("Ada"), "has no keys"),
        (KeyScope::integrity(), "belongs to eventseal itself"),
        (customer_scope(""), "InvalidText"),
    ] {
        let error = try_certify(&db, &store, &scope, &CertificateOptions::default()).await.unwrap_err();
        let text = if let Error::Keys(KeyFault::ScopeState { .. }) = error { error.to_string() } else { fault(&error) };
        assert!(text.contains(problem), "{text}");
    }
}
