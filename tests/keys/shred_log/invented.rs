//! What nothing authenticates gets into no copy: a copy only grows, so it would be spoiled for good.

use super::restores::replay;
use super::{Intruder, copy_in, export, shop, verify};
use eventseal::Error;
use eventseal::erasure::{CopyState, ShredLogCopy};
use eventseal::error::KeyFault;

const SAVE: &str = "CREATE TABLE saved_entries AS SELECT * FROM shred_entries;
    CREATE TABLE saved_log AS SELECT * FROM shred_log; CREATE TABLE saved_head AS SELECT * FROM shred_log_head";
const PUT_BACK: &str = "DELETE FROM shred_log; DELETE FROM shred_entries; DELETE FROM shred_log_head;
    INSERT INTO shred_entries SELECT * FROM saved_entries; INSERT INTO shred_log SELECT * FROM saved_log;
    INSERT INTO shred_log_head SELECT * FROM saved_head";
/// A new entry, with a row of its own at the end of the chain.
const INVENTED: &str =
    "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state,
        generation, reason, mac_key_id, mac, sealed)
    SELECT '00000000-0000-4000-8000-000000000001', scope_kind, '2', 1, decided_at, 'disable', 'live', 1, 'invented',
        mac_key_id, mac, sealed FROM shred_entries LIMIT 1;
    INSERT INTO shred_log (seq, entry_id, previous_hash, hash, mac_key_id, mac)
    SELECT 4, '00000000-0000-4000-8000-000000000001', hash, previous_hash, mac_key_id, mac FROM shred_log
        WHERE seq = 3;
    UPDATE shred_log_head SET seq = 4, hash = (SELECT hash FROM shred_log WHERE seq = 4)";

async fn i14_nothing_that_was_invented_is_exported<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    db.shred(&store, "1").await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    db.disable(&store, "3").await;
    db.enable(&store, "3").await;
    super::seal(&db, &store).await.unwrap();
    db.write(SAVE).await;
    let begun = copy.lines(0, 100).await.unwrap();
    for (what, how, seq) in [
        ("an entry and a row", INVENTED, 4),
        ("a reason", "UPDATE shred_entries SET reason = 'another' WHERE action = 'disable'", 2),
        ("the entry of a row", "UPDATE shred_entries SET actor = 'another' WHERE action = 'enable'", 3),
        ("a hash", "UPDATE shred_log SET hash = previous_hash WHERE seq = 3", 3),
        ("a MAC", "UPDATE shred_log SET mac = (SELECT mac FROM saved_log WHERE seq = 1) WHERE seq = 2", 2),
    ] {
        db.write(how).await;
        let (new, _other) = copy_in();
        for copy in [&copy, &new] {
            let refused = export(&db, &store, copy).await;
            assert!(
                matches!(refused, Err(Error::Keys(KeyFault::ChainAltered { seq: at, .. })) if at == seq),
                "{what}: {refused:?}"
            );
        }
        // What comes before it is safe. The rest follows once the log was put right.
        assert_eq!(new.lines(0, 100).await.unwrap().len() as u64, seq, "{what}: the keys, and what is authentic");
        db.write(PUT_BACK).await;
        for copy in [&copy, &new] {
            assert_eq!(export(&db, &store, copy).await.unwrap().seq, 3, "{what}");
            let report = verify(&db, &store, Some(copy)).await;
            assert_eq!((report.is_sound(), report.copies[0].state), (true, CopyState::Complete), "{what}: {report:?}");
        }
        assert_eq!(replay(&db, &store, &copy).await.missing, 0);
        let text: String = begun.iter().map(|line| line.clone() + "\n").collect();
        std::fs::write(copy.path(), text).unwrap();
    }
}

support::on_sqlite_and_postgres! {
    i14_nothing_that_was_invented_is_exported,
}
