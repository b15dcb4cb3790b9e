//! Whoever writes to the log, or to a copy of it, is found.

use super::{Intruder, copy_in, hold, shop, verify, verify_store};
use eventseal::erasure::{CopyState, FileCopy, LogReport, ReplayOptions, ShredLogCopy, Verified, VerifyFindingKind};
use support::Memory;
use support::backend::Backend;
use tempfile::TempDir;

/// A log of five entries, the last of which changes no state, and a copy of it.
async fn logged<B: Backend>() -> (B, eventseal::SealedStore<B::Store>, FileCopy, TempDir) {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    db.shred(&store, "3").await;
    db.disable(&store, "1").await;
    db.reopen(&store, "3").await;
    db.enable(&store, "1").await;
    super::seal(&db, &store).await.unwrap();
    hold(&db, &store, "2").await;
    let (copy, folder) = copy_in();
    let exported = super::export(&db, &store, &copy).await.unwrap();
    assert_eq!((exported.added, exported.seq, exported.began), (5, 5, true));
    (db, store, copy, folder)
}

pub(super) const SAVE: &str = "CREATE TABLE saved_entries AS SELECT * FROM shred_entries;
    CREATE TABLE saved_log AS SELECT * FROM shred_log; CREATE TABLE saved_head AS SELECT * FROM shred_log_head";
pub(super) const RESTORE: &str = "DELETE FROM shred_log; DELETE FROM shred_entries; DELETE FROM shred_log_head;
    INSERT INTO shred_entries SELECT * FROM saved_entries; INSERT INTO shred_log SELECT * FROM saved_log;
    INSERT INTO shred_log_head SELECT * FROM saved_head";
pub(super) const CUT: &str = "DELETE FROM shred_entries WHERE entry_id NOT IN (SELECT entry_id FROM shred_log)";

fn kinds(found: &Verified) -> Vec<(VerifyFindingKind, u64)> {
    found.findings.iter().map(|finding| (finding.kind, finding.count)).collect()
}

/// How often this was found.
fn of(found: &Verified, kind: VerifyFindingKind) -> u64 {
    found.findings.iter().filter(|finding| finding.kind == kind).map(|finding| finding.count).sum()
}

async fn i14_whatever_is_changed_in_the_log_is_found<B: Intruder>() {
    let (db, store, copy, _folder) = logged::<B>().await;
    let all = verify_store(&db, &store, Some(&copy)).await;
    assert!(all.is_clean() && all.log_entries == 5, "{all:?}");
    assert_eq!(all.copies[0].state, CopyState::Complete);
    let sound = verify(&db, &store, Some(&copy)).await;
    assert!(sound.is_sound() && sound.seq == 5, "{sound:?}");
    assert_eq!(sound.copies[0].state, CopyState::Complete);
    db.write(SAVE).await;
    let drop_second = format!("DELETE FROM shred_log WHERE seq = 2; {CUT}");
    let invent = "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state,
            generation, reason, mac_key_id, mac, sealed)
        SELECT '00000000-0000-4000-8000-000000000001', scope_kind, '1', 3, decided_at, 'enable', 'live', 1, 'no',
            mac_key_id, mac, sealed FROM shred_entries WHERE scope_id = '3' AND scope_seq = 1";
    let swap = "UPDATE shred_log SET seq = 1001 WHERE seq = 1; UPDATE shred_log SET seq = 1 WHERE seq = 2;
        UPDATE shred_log SET seq = 2 WHERE seq = 1001";
    for (what, how) in [
        ("an altered reason", "UPDATE shred_entries SET reason = 'another' WHERE scope_id = '3' AND scope_seq = 1"),
        (
            "an altered time",
            "UPDATE shred_entries SET decided_at = (SELECT max(decided_at) FROM saved_entries)
            WHERE scope_id = '3' AND scope_seq = 1",
        ),
        ("keys that a shred no longer names", "UPDATE shred_entries SET keys = '[]' WHERE action = 'shred'"),
        ("an entry of another scope", "UPDATE shred_entries SET scope_id = '4' WHERE scope_id = '2'"),
        ("a number that was taken away", "DELETE FROM shred_log WHERE seq = 2"),
        ("an entry that was dropped", drop_second.as_str()),
        ("an entry that was invented", invent),
        ("numbers that were exchanged", swap),
        ("a hash that was altered", "UPDATE shred_log SET hash = previous_hash WHERE seq = 3"),
        (
            "a row of another entry's MAC",
            "UPDATE shred_log SET mac = (SELECT mac FROM saved_log WHERE seq = 1)
            WHERE seq = 3",
        ),
    ] {
        db.write(how).await;
        let found = verify(&db, &store, None).await;
        assert!(!found.is_sound(), "{what} was not found");
        let found = verify_store(&db, &store, None).await;
        assert!(of(&found, VerifyFindingKind::Chain) > 0, "{what} was not found by a verification of everything");
        db.write(RESTORE).await;
        assert!(verify(&db, &store, None).await.is_sound(), "{what}: it was put back");
    }
    // What only a copy shows: the end was dropped.
    let cut = format!(
        "DELETE FROM shred_log WHERE seq = 5; {CUT};
         UPDATE shred_log_head SET seq = 4, hash = (SELECT hash FROM saved_log WHERE seq = 4)"
    );
    db.write(&cut).await;
    assert!(verify(&db, &store, None).await.is_sound(), "the table alone can't know");
    assert!(verify_store(&db, &store, None).await.is_clean());
    let found = verify_store(&db, &store, Some(&copy)).await;
    assert_eq!(kinds(&found), [(VerifyFindingKind::Copy, 1)], "{found:?}");
    assert_eq!(found.copies[0].state, CopyState::Ahead);
    let found = verify(&db, &store, Some(&copy)).await;
    assert!(!found.is_sound() && found.copies[0].state == CopyState::Ahead, "the copy knows");
    // The own end of the chain was left as it was.
    db.write(RESTORE).await;
    db.write(&format!("DELETE FROM shred_log WHERE seq = 5; {CUT}")).await;
    assert!(!verify(&db, &store, None).await.is_sound());
}

async fn i14_keys_that_disagree_with_the_log_are_found<B: Intruder>() {
    let (db, store, copy, _folder) = logged::<B>().await;
    for (how, kind) in [
        ("UPDATE key_scopes SET state = 'disabled' WHERE scope_id = '1'", VerifyFindingKind::ShredLog),
        ("UPDATE key_scopes SET generation = 1 WHERE scope_id = '3'", VerifyFindingKind::ShredLog),
        (
            "UPDATE data_keys SET state = 'live', shredded_at = NULL,
            wrapped_key = (SELECT k.wrapped_key FROM data_keys AS k WHERE k.scope_id = '1')
            WHERE scope_id = '3' AND version = 1",
            VerifyFindingKind::NotErased,
        ),
        ("DELETE FROM data_keys WHERE scope_id = '3' AND version = 1", VerifyFindingKind::NoTombstone),
    ] {
        db.write("CREATE TABLE keys_before AS SELECT * FROM data_keys").await;
        db.write("CREATE TABLE scopes_before AS SELECT * FROM key_scopes").await;
        db.write(how).await;
        let found: LogReport = verify(&db, &store, Some(&copy)).await;
        assert!(!found.is_sound(), "{how}");
        let found = verify_store(&db, &store, Some(&copy)).await;
        assert_eq!(of(&found, kind), 1, "{how}: {found:?}");
        db.write(
            "DELETE FROM data_keys; DELETE FROM key_scopes; INSERT INTO key_scopes SELECT * FROM scopes_before;
             INSERT INTO data_keys SELECT * FROM keys_before; DROP TABLE keys_before; DROP TABLE scopes_before",
        )
        .await;
        assert!(verify(&db, &store, Some(&copy)).await.is_sound());
    }
}

/// Each copy that was begun at some time is the beginning of the log.
#[tokio::test]
async fn several_copies_are_kept() {
    let (db, store, first, _folder) = logged::<Memory>().await;
    let (second, _other) = copy_in();
    db.shred(&store, "1").await;
    super::export(&db, &store, &second).await.unwrap();
    for (copy, state) in [(&first, CopyState::Behind), (&second, CopyState::Complete)] {
        let found = verify(&db, &store, Some(copy)).await;
        assert_eq!((found.is_sound(), found.copies.first().map(|copy| copy.state)), (true, Some(state)));
        let options = ReplayOptions::default();
        let done = store.keys().replay_log(&mut db.0.begin(), &[copy], &options, &mut |_| {}).await.unwrap();
        assert_eq!((done.missing, done.destroyed, done.forked), (0, 0, false));
    }
    assert!(first.last().await.unwrap() != second.last().await.unwrap());
}

mod of_tables {
    use super::{i14_keys_that_disagree_with_the_log_are_found, i14_whatever_is_changed_in_the_log_is_found};

    support::on_sqlite_and_postgres! {
        i14_whatever_is_changed_in_the_log_is_found,
        i14_keys_that_disagree_with_the_log_are_found,
    }
}
