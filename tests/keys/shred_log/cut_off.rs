//! Replays that were cut off: nothing is opened, and no new copy is begun, until they come to their end.

use super::restores::{RESTORE_ALL, after_a_backup, is_behind, prepare, read, requiring};
use super::{Intruder, chain, copy_in, export, schemas, verify};
use async_trait::async_trait;
use eventseal::erasure::{CopyState, FileCopy, ReplayOptions, Replayed, ShredLogCopy};
use eventseal::error::{BoxError, KeyFault};
use eventseal::keys::ScopeAction;
use eventseal::{Error, Result, SealedStore};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use support::backend::Backend;

/// A copy that can be read so many times.
struct CutOff(FileCopy, AtomicI32);

#[async_trait]
impl ShredLogCopy for CutOff {
    fn name(&self) -> String {
        self.0.name()
    }

    async fn last(&self) -> std::result::Result<Option<String>, BoxError> {
        self.0.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> std::result::Result<Vec<String>, BoxError> {
        if self.1.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err("the copy is out of reach".into());
        }
        self.0.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> std::result::Result<(), BoxError> {
        self.0.append(last, lines).await
    }
}

/// A replay, entry by entry, of a copy that can be read so many times.
async fn replay<B: Backend>(db: &B, store: &SealedStore<B::Store>, copy: &FileCopy, reads: i32) -> Result<Replayed> {
    let copy = CutOff(FileCopy::new(copy.path()), AtomicI32::new(reads));
    let mut options = ReplayOptions::default();
    options.batch = 1;
    let mut connection = db.connect().await.unwrap();
    store.keys().replay_log(db.connection(&mut connection), &[&copy], &options, &mut |_| {}).await
}

/// A database that was restored and written to since, a copy of the log from before, and one that was begun too early.
async fn forked<B: Intruder>() -> (B, SealedStore<B::Store>, [FileCopy; 2], [tempfile::TempDir; 2]) {
    let (db, _, copy, folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ALL).await;
    let unguarded = db.process(schemas());
    db.disable(&unguarded, "3").await;
    db.enable(&unguarded, "3").await;
    let (early, other) = copy_in();
    export(&db, &unguarded, &early).await.unwrap();
    (db, unguarded, [copy, early], [folder, other])
}

/// The copy does not count as replayed, for anybody.
async fn is_not_replayed<B: Intruder>(db: &B, store: &SealedStore<B::Store>, copy: &FileCopy) {
    let report = verify(db, store, Some(copy)).await;
    assert_eq!((report.is_sound(), report.copies[0].state), (false, CopyState::Forked), "{report:?}");
    assert!(report.findings.iter().any(|finding| finding.to_string().contains("replay")), "{report:?}");
    is_behind(async || db.read(&requiring(db, copy, Duration::ZERO), "1").await).await;
    let refused = export(db, store, copy).await.unwrap_err();
    assert!(matches!(refused, Error::Keys(KeyFault::ShredLogBehind { .. })), "{refused:?}");
}

/// No other copy vouches for what the log is now.
async fn nothing_new_is_begun<B: Intruder>(db: &B, store: &SealedStore<B::Store>, early: &FileCopy) {
    let (new, _folder) = copy_in();
    let refused = export(db, store, &new).await.unwrap_err();
    assert!(matches!(refused, Error::Keys(KeyFault::LogCopy { .. })), "{refused:?}");
    assert!(refused.to_string().contains("eventseal shred-log replay COPY"), "{refused}");
    assert_eq!(new.last().await.unwrap(), None);
    assert!(!verify(db, store, None).await.is_sound(), "it is found without the copy too");
    is_behind(async || db.read(&requiring(db, early, Duration::ZERO), "1").await).await;
}

async fn i13_a_replay_that_was_cut_off_opens_nothing<B: Intruder>() {
    let (db, unguarded, [copy, early], _folders) = forked::<B>().await;
    let running = requiring(&db, &early, Duration::ZERO);
    let mut cut_off = 0;
    let done = loop {
        is_not_replayed(&db, &unguarded, &copy).await;
        if chain(&db).await.iter().any(|sealed| sealed.entry.action == ScopeAction::Fork) {
            cut_off += 1;
            nothing_new_is_begun(&db, &unguarded, &early).await;
            is_behind(async || db.read(&running, "1").await).await;
        } else {
            // The log is ahead of this copy, and nothing shows that it was restored.
            prepare(&db, &running).await.unwrap();
        }
        match replay(&db, &unguarded, &copy, cut_off.max(3) + 1).await {
            Ok(done) => break done,
            Err(error) => assert!(matches!(error, Error::Keys(KeyFault::LogCopy { .. })), "{error:?}"),
        }
    };
    assert!(cut_off > 5 && done.forked && done.is_complete(), "{cut_off}: {done:?}");
    let report = verify(&db, &unguarded, Some(&copy)).await;
    assert_eq!((report.is_sound(), report.copies[0].state), (true, CopyState::Replayed), "{report:?}");
    let (new, _folder) = copy_in();
    export(&db, &unguarded, &new).await.unwrap();
    for copy in [&new, &early] {
        assert_eq!(read(&db, copy, "1").await, ["redacted"]);
    }
    let notes = |chain: &[eventseal::keys::SealedEntry]| {
        chain.iter().filter(|sealed| sealed.entry.action == ScopeAction::Fork).count()
    };
    assert_eq!(notes(&chain(&db).await), 2, "its beginning and its end are noted once");
    replay(&db, &unguarded, &copy, i32::MAX).await.unwrap();
    assert_eq!(notes(&chain(&db).await), 2);
}

/// Somebody who can write to the tables says that the replay came to its end, in the table and in the chain.
async fn i14_a_note_that_was_invented_ends_no_replay<B: Intruder>() {
    let (db, unguarded, [copy, _], _folders) = forked::<B>().await;
    for reads in [5, 6] {
        replay(&db, &unguarded, &copy, reads).await.unwrap_err();
    }
    let invent = "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state,
            generation, reason, about, mac_key_id, mac, sealed)
        SELECT '00000000-0000-4000-8000-000000000001', scope_kind, scope_id, scope_seq + 1, decided_at, action, state,
            generation, 'invented', entry_id, mac_key_id, mac, sealed FROM shred_entries WHERE action = 'fork'";
    let number = "INSERT INTO shred_log (seq, entry_id, previous_hash, hash, mac_key_id, mac)
        SELECT seq + 1, '00000000-0000-4000-8000-000000000001', hash, previous_hash, mac_key_id, mac FROM shred_log
            ORDER BY seq DESC LIMIT 1;
        UPDATE shred_log_head SET seq = seq + 1, hash = (SELECT hash FROM shred_log ORDER BY seq DESC LIMIT 1)";
    for sql in [invent, number] {
        db.write(sql).await;
        let report = verify(&db, &unguarded, Some(&copy)).await;
        assert_eq!((report.is_sound(), report.copies[0].state), (false, CopyState::Forked), "{report:?}");
        let (new, _folder) = copy_in();
        for copy in [&copy, &new] {
            let refused = export(&db, &unguarded, copy).await.unwrap_err();
            assert!(!refused.to_string().contains("begin a new copy"), "{refused}");
        }
        assert_eq!(new.last().await.unwrap(), None);
    }
}

support::on_sqlite_and_postgres! {
    i13_a_replay_that_was_cut_off_opens_nothing,
    i14_a_note_that_was_invented_ends_no_replay,
}
