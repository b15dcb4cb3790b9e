//! What certificates say of the chain and of a copy: an erasure is proved by a copy that has its entry, and nothing
//! that was altered proves one.

use super::restores::{RESTORE_ALL, after_a_backup, replay};
use super::verify::{CUT, RESTORE, SAVE};
use super::{Intruder, chain, copy_in, export, ports, schemas, shop, verify_store};
use eventseal::erasure::{
    Authenticity, Certificate, CertificateFinding, CertificateFindingKind as Kind, CertificateOptions, CopyState,
    FileCopy, LogStanding, ShredLogCopy, VerifyFindingKind,
};
use eventseal::error::KeyFault;
use eventseal::{Error, Result, SealedStore};
use support::backend::Backend;
use support::customer_scope;

fn kinds(findings: &[CertificateFinding]) -> Vec<Kind> {
    findings.iter().map(|finding| finding.kind).collect()
}

async fn try_certify<B: Backend>(db: &B, id: &str, copy: Option<&FileCopy>) -> Result<Certificate> {
    let (store, mut connection) = (db.process(schemas()), db.connect().await.unwrap());
    let (scope, options) = (customer_scope(id), CertificateOptions::default());
    store.certificate(db.connection(&mut connection), &scope, &ports(copy), &options, &mut |_| {}).await
}

async fn certify<B: Backend>(db: &B, id: &str, copy: Option<&FileCopy>) -> Certificate {
    let certificate = try_certify(db, id, copy).await.unwrap();
    let says_so = kinds(&certificate.remarks).contains(&Kind::NotProved);
    assert_eq!(says_so, certificate.erased && !certificate.proved, "{certificate:?}");
    assert_eq!(certificate.erased, certificate.why_not.is_empty(), "{certificate:?}");
    certificate
}

/// What a certificate says of the proof.
fn on_proof(certificate: &Certificate) -> &str {
    &certificate.remarks.iter().find(|remark| remark.kind == Kind::NotProved).unwrap().text
}

async fn an_erasure_is_proved_by_a_copy_that_has_its_entry<B: Backend>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    db.shred(&store, "1").await;
    let alone = certify(&db, "1", None).await;
    assert!(alone.erased && !alone.proved, "{alone:?}");
    let row = chain(&db).await[0].row;
    assert_eq!((row.seq, alone.entries[0].log), (1, LogStanding::Sealed { seq: 1, hash: row.hash }), "it was sealed");
    assert_eq!((alone.log.seq, alone.log.hash, alone.log.sound), (1, row.hash, true));
    assert!(alone.log.copies.is_empty() && on_proof(&alone).starts_with("No copy"), "{alone:?}");
    assert!(alone.not_looked_at.iter().any(|what| what.starts_with("Copies of the shred log")), "{alone:?}");

    let (copy, _folder) = copy_in();
    let with_empty = certify(&db, "1", Some(&copy)).await;
    assert!(with_empty.erased && !with_empty.proved, "{with_empty:?}");
    assert_eq!(with_empty.log.copies[0].state, CopyState::Empty);
    export(&db, &store, &copy).await.unwrap();
    db.shred(&store, "2").await;
    let missing = certify(&db, "2", Some(&copy)).await;
    assert!(missing.erased && !missing.proved, "{missing:?}");
    assert!(matches!(missing.entries[0].log, LogStanding::Sealed { seq: 2, .. }), "{missing:?}");
    assert!(on_proof(&missing).contains("ends at entry 1") && on_proof(&missing).contains("the shred is entry 2"));
    assert_eq!(missing.log.copies[0].state, CopyState::Behind);

    let proved = certify(&db, "1", Some(&copy)).await;
    assert!(proved.erased && proved.proved && proved.remarks.is_empty(), "{proved:?}");
    assert_eq!(proved.entries[0].log, LogStanding::InCopy { seq: 1, hash: row.hash });
    assert!(!proved.not_looked_at.iter().any(|what| what.starts_with("Copies of the shred log")), "{proved:?}");
    let json = serde_json::to_value(&proved).unwrap();
    assert_eq!((&json["entries"][0]["log"]["standing"], &json["log"]["seq"]), (&"in_copy".into(), &2.into()));
    assert_eq!((&json["log"]["copies"][0]["state"], &json["log"]["copies"][0]["seq"]), (&"behind".into(), &1.into()));
    export(&db, &store, &copy).await.unwrap();
    assert!(certify(&db, "2", Some(&copy)).await.proved);

    // Nothing is sealed in a transaction.
    let mut transaction = db.begin().await.unwrap();
    let (scope, options) = (customer_scope("3"), CertificateOptions::default());
    store.keys().shred(db.tx(&mut transaction), &scope, "request").await.unwrap();
    let tx = db.tx(&mut transaction);
    let within = store.certificate(tx, &scope, &ports(Some(&copy)), &options, &mut |_| {}).await.unwrap();
    assert!(within.erased && !within.proved && within.log.sound, "{within:?}");
    assert_eq!(
        (within.entries[0].log, within.entries[0].authenticity),
        (LogStanding::Unsealed, Authenticity::Verified)
    );
    assert!(on_proof(&within).contains("has no number"), "{within:?}");
}

/// Two shreds and a decision about somebody else, with a copy of them.
async fn shredded<B: Backend>() -> (B, SealedStore<B::Store>, FileCopy, tempfile::TempDir) {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    db.shred(&store, "1").await;
    super::seal(&db, &store).await.unwrap();
    db.shred(&store, "2").await;
    super::seal(&db, &store).await.unwrap();
    db.disable(&store, "3").await;
    let (copy, folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    (db, store, copy, folder)
}

async fn i14_a_chain_that_was_altered_proves_nothing<B: Intruder>() {
    let (db, store, copy, _folder) = shredded::<B>().await;
    assert!(certify(&db, "1", Some(&copy)).await.proved);
    db.write(SAVE).await;
    let other_number = "UPDATE shred_log SET seq = 1001 WHERE seq = 1; UPDATE shred_log SET seq = 1 WHERE seq = 2;
        UPDATE shred_log SET seq = 2 WHERE seq = 1001";
    for (how, why_not) in [
        ("UPDATE shred_log SET hash = previous_hash WHERE seq = 1", vec![Kind::ChainDisagrees]),
        (
            "UPDATE shred_log SET mac = (SELECT mac FROM saved_log WHERE seq = 2) WHERE seq = 1",
            vec![Kind::ChainDisagrees],
        ),
        (other_number, vec![Kind::ChainDisagrees]),
        ("DELETE FROM shred_log WHERE seq = 1", vec![Kind::ChainDisagrees]),
        ("UPDATE shred_entries SET reason = 'another' WHERE scope_id = '1'", vec![Kind::LogAltered]),
        // What is about others leaves this shred what it is, and proves nothing.
        ("UPDATE shred_log SET hash = previous_hash WHERE seq = 2", vec![]),
        ("UPDATE shred_entries SET reason = 'another' WHERE scope_id = '2'", vec![]),
        ("DELETE FROM shred_log WHERE seq = 2", vec![]),
        ("DELETE FROM shred_log WHERE seq = 3", vec![]),
    ] {
        db.write(how).await;
        for copy in [None, Some(&copy)] {
            let found = certify(&db, "1", copy).await;
            assert_eq!(kinds(&found.why_not), why_not, "{how}: {found:?}");
            assert!(!found.proved && !found.log.sound, "{how}: {found:?}");
            assert!(kinds(&found.remarks).contains(&Kind::ChainAltered), "{how}: {found:?}");
        }
        db.write(RESTORE).await;
        assert!(certify(&db, "1", Some(&copy)).await.proved, "{how}: it was put back");
    }
    // The end was cut off, with the decision about the third one. Only the copy shows it.
    db.write(&format!(
        "DELETE FROM shred_log WHERE seq = 3; {CUT};
         UPDATE shred_log_head SET seq = 2, hash = (SELECT hash FROM saved_log WHERE seq = 2);
         UPDATE key_scopes SET state = 'live' WHERE scope_id = '3'"
    ))
    .await;
    let alone = certify(&db, "1", None).await;
    assert!(alone.erased && alone.log.sound, "the table alone can't know: {alone:?}");
    let found = certify(&db, "1", Some(&copy)).await;
    assert!(found.erased && !found.proved && found.log.sound, "{found:?}");
    assert_eq!(kinds(&found.remarks), [Kind::NotProved, Kind::CopyUnusable]);
    let third = certify(&db, "3", Some(&copy)).await;
    assert!(kinds(&third.why_not).contains(&Kind::CopyDisagrees), "{third:?}");
    let text = &third.why_not.iter().find(|why| why.kind == Kind::CopyDisagrees).unwrap().text;
    assert!(text.contains("\"disable\"") && text.contains(&copy.path().display().to_string()), "{text}");
    drop(store);
}

async fn i14_an_invented_shred_is_no_erasure<B: Intruder>() {
    let (db, store, copy, _folder) = shredded::<B>().await;
    // Whoever can write destroys the keys, and writes a shred as it was before there was a log.
    db.write(
        "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state, generation,
             reason)
         SELECT '00000000-0000-4000-8000-000000000001', scope_kind, '4', 1, decided_at, 'shred', 'shredded', 1, 'no'
         FROM shred_entries WHERE scope_id = '1';
         INSERT INTO key_scopes (scope_kind, scope_id, state, generation)
         SELECT scope_kind, '4', 'shredded', generation FROM key_scopes WHERE scope_id = '1'",
    )
    .await;
    let found = certify(&db, "4", Some(&copy)).await;
    assert_eq!(
        (found.entries[0].authenticity, found.entries[0].log),
        (Authenticity::NotVerified, LogStanding::Unsealed)
    );
    assert_eq!(kinds(&found.why_not), [Kind::LogAltered], "{found:?}");
    assert!(kinds(&found.remarks).contains(&Kind::ChainAltered), "sealing refuses it: {found:?}");
    let found = verify_store(&db, &store, None).await;
    let finding = found.findings.iter().find(|finding| finding.kind == VerifyFindingKind::ShredLog).unwrap();
    assert!(finding.first.to_string().contains('4') && finding.problem.contains("has no MAC"), "{found:?}");
}

/// What was shredded before there was a log has no MAC. It can be adopted, and a copy of it proves nothing.
async fn a_shred_from_before_the_log_is_not_proved<B: Intruder>() {
    let (db, store) = shop::<B>(&["1"]).await;
    db.write(
        "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state, generation,
             reason)
         SELECT '00000000-0000-4000-8000-000000000001', scope_kind, '1', 1, created_at, 'shred', 'shredded', 1, 'old'
         FROM data_keys WHERE scope_id = '1';
         UPDATE key_scopes SET state = 'shredded', active_key_id = NULL WHERE scope_id = '1';
         UPDATE data_keys SET state = 'shredded', wrapped_key = NULL, shredded_at = created_at WHERE scope_id = '1'",
    )
    .await;
    let found = certify(&db, "1", None).await;
    assert_eq!(kinds(&found.why_not), [Kind::LogAltered], "it is not adopted: {found:?}");
    store.keys().adopt_entries(db.connection(&mut db.connect().await.unwrap()), "looked at").await.unwrap();
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    let found = certify(&db, "1", Some(&copy)).await;
    assert!(found.erased && !found.proved && found.log.sound, "{found:?}");
    assert_eq!(found.entries[0].authenticity, Authenticity::BeforeTheLog);
    assert!(matches!(found.entries[0].log, LogStanding::InCopy { .. }), "{found:?}");
    assert_eq!(kinds(&found.remarks), [Kind::NotProved, Kind::NotAuthenticated]);
    assert!(on_proof(&found).contains("not authenticated"), "{found:?}");
}

async fn i14_a_copy_that_was_altered_proves_nothing<B: Backend>() {
    let (db, _store, copy, folder) = shredded::<B>().await;
    let text = std::fs::read_to_string(copy.path()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let last = *lines.last().unwrap();
    for (what, altered) in [
        ("another's entry", text.replacen("\"reason\":\"stop\"", "\"reason\":\"go\"", 1)),
        ("a line that is missing", [&lines[..2], &lines[3..]].concat().join("\n") + "\n"),
        ("a line that is no entry", format!("{text}{{}}\n")),
        ("another namespace", text.replace("\"namespace\":\"", "\"namespace\":\"other ")),
        ("a repeated number", format!("{text}{}\n", last.replacen("\"seq\":3", "\"seq\":2", 1))),
    ] {
        assert_ne!(altered, text, "{what}");
        std::fs::write(copy.path(), altered).unwrap();
        let found = certify(&db, "1", Some(&copy)).await;
        assert!(found.erased && !found.proved && found.log.copies.is_empty(), "{what}: {found:?}");
        assert_eq!(kinds(&found.remarks), [Kind::NotProved, Kind::CopyUnusable], "{what}");
        assert!(matches!(found.entries[0].log, LogStanding::Sealed { .. }), "{what}: {found:?}");
        let found = verify_store(&db, &db.process(schemas()), Some(&copy)).await;
        let kinds: Vec<_> = found.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!((kinds, found.copies.len()), (vec![VerifyFindingKind::Copy], 0), "{what}");
    }
    std::fs::write(copy.path(), text).unwrap();
    assert!(certify(&db, "1", Some(&copy)).await.proved, "it was put back");
    // What can't be read at all is an error.
    let unreadable = FileCopy::new(folder.path());
    let refused = try_certify(&db, "1", Some(&unreadable)).await;
    assert!(matches!(refused, Err(Error::Keys(KeyFault::LogCopy { source: Some(_), .. }))), "{refused:?}");
}

async fn one_of_several_copies_proves_and_all_must_be_sound<B: Backend>() {
    let (db, store, long, _folder) = shredded::<B>().await;
    let (short, _other) = copy_in();
    export(&db, &store, &short).await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    store.keys().shred(db.tx(&mut transaction), &customer_scope("3"), "request").await.unwrap();
    db.commit(transaction).await.unwrap();
    export(&db, &store, &long).await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let (connection, scope) = (db.connection(&mut connection), customer_scope("3"));
    let copies: [&dyn ShredLogCopy; 2] = [&short, &long];
    let options = CertificateOptions::default();
    let found = store.certificate(connection, &scope, &copies, &options, &mut |_| {}).await.unwrap();
    assert!(found.proved && found.remarks.is_empty(), "{found:?}");
    let states: Vec<_> = found.log.copies.iter().map(|copy| copy.state).collect();
    assert_eq!(states, [CopyState::Behind, CopyState::Complete]);
    assert!(!certify(&db, "3", Some(&short)).await.proved);

    let text = std::fs::read_to_string(short.path()).unwrap();
    std::fs::write(short.path(), text.replace("\"reason\":\"stop\"", "\"reason\":\"go\"")).unwrap();
    let found = store.certificate(connection, &scope, &copies, &options, &mut |_| {}).await.unwrap();
    assert!(found.erased && !found.proved && found.log.copies.len() == 1, "{found:?}");
    assert_eq!(kinds(&found.remarks), [Kind::NotProved, Kind::CopyUnusable]);
}

async fn i13_a_restored_database_is_certified_as_what_it_is<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    let before = certify(&db, "1", Some(&copy)).await;
    assert!(before.proved, "{before:?}");
    db.write(RESTORE_ALL).await;
    let restored = certify(&db, "1", Some(&copy)).await;
    assert_eq!(kinds(&restored.why_not), [Kind::CopyDisagrees, Kind::NeverShredded, Kind::LiveKeys], "{restored:?}");
    assert!(kinds(&restored.remarks).contains(&Kind::CopyUnusable), "{restored:?}");
    // Another shred does not make good what the log has lost.
    let store = db.process(schemas());
    db.shred(&store, "1").await;
    let forked = certify(&db, "1", Some(&copy)).await;
    assert_eq!(kinds(&forked.why_not), [Kind::CopyDisagrees], "{forked:?}");
    assert_eq!(forked.log.copies[0].state, CopyState::Forked);

    assert!(replay(&db, &store, &copy).await.forked);
    let by_old = certify(&db, "1", Some(&copy)).await;
    assert!(by_old.erased && !by_old.proved, "{by_old:?}");
    assert_eq!(by_old.log.copies[0].state, CopyState::Replayed);
    assert!(kinds(&by_old.remarks).contains(&Kind::CopyUnusable), "{by_old:?}");
    let (new, _other) = copy_in();
    export(&db, &store, &new).await.unwrap();
    let by_new = certify(&db, "1", Some(&new)).await;
    assert!(by_new.proved && by_new.entries.len() == 2, "{by_new:?}");
    // Who came back has keys again, whatever a copy says.
    let reopened = certify(&db, "2", Some(&new)).await;
    assert!(!reopened.erased && !reopened.proved, "{reopened:?}");
}

support::on_every_database! {
    an_erasure_is_proved_by_a_copy_that_has_its_entry,
    i14_a_copy_that_was_altered_proves_nothing,
    one_of_several_copies_proves_and_all_must_be_sound,
}

mod of_tables {
    use super::{
        a_shred_from_before_the_log_is_not_proved, i13_a_restored_database_is_certified_as_what_it_is,
        i14_a_chain_that_was_altered_proves_nothing, i14_an_invented_shred_is_no_erasure,
    };

    support::on_sqlite_and_postgres! {
        a_shred_from_before_the_log_is_not_proved,
        i13_a_restored_database_is_certified_as_what_it_is,
        i14_a_chain_that_was_altered_proves_nothing,
        i14_an_invented_shred_is_no_erasure,
    }
}
