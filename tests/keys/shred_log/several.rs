//! Several copies of one log: the longest is replayed, and copies that differ are an error.

use super::places::{Place, with_every_copy};
use super::restores::{RESTORE_ALL, after_a_backup};
use super::{Intruder, copy_in, export, replay, schemas, verify_all};
use eventseal::Error;
use eventseal::erasure::{CopyState, FileCopy, ReplayOptions, ShredLogCopy};
use eventseal::error::{ErrorKind, KeyFault};
use support::backend::Backend;
use support::contains;

/// A copy that has the beginning of another one.
fn begun_like(copy: &FileCopy, lines: usize) -> (FileCopy, tempfile::TempDir) {
    let (short, folder) = copy_in();
    let text = std::fs::read_to_string(copy.path()).unwrap();
    let begun: String = text.lines().take(lines).map(|line| line.to_owned() + "\n").collect();
    std::fs::write(short.path(), begun).unwrap();
    (short, folder)
}

async fn i13_the_longest_of_several_copies_is_replayed<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    let (short, _other) = begun_like(&copy, 5);
    db.write(RESTORE_ALL).await;
    let unguarded = db.process(schemas());
    let mut dry = ReplayOptions::default();
    dry.dry_run = true;
    for copies in [[&short, &copy], [&copy, &short], [&copy, &copy]] {
        let copies: [&dyn ShredLogCopy; 2] = copies.map(|copy| -> &dyn ShredLogCopy { copy });
        let mut connection = db.connect().await.unwrap();
        let keys = unguarded.keys();
        let found = keys.replay_log(db.connection(&mut connection), &copies, &dry, &mut |_| {}).await.unwrap();
        assert_eq!((found.entries, found.missing, &found.copy), (6, 4, &copy.name()), "{found:?}");
    }
    let done = replay(&db, &unguarded, &[&short, &copy]).await.unwrap();
    assert_eq!((done.missing, done.destroyed, done.tombstones), (4, 2, 1), "{done:?}");
    assert!(!contains(&db.read(&unguarded, "1").await.unwrap()[0].payload, "Ada"));
    let found = verify_all(&db, &unguarded, &[&short, &copy]).await;
    let states: Vec<CopyState> = found.copies.iter().map(|copy| copy.state).collect();
    assert_eq!((found.is_sound(), &states[..]), (true, &[CopyState::Behind, CopyState::Complete][..]), "{found:?}");
}

/// After a restore the service has written, and somebody began another copy. Neither is the beginning of the other.
async fn i13_copies_that_differ_are_not_replayed<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ALL).await;
    let unguarded = db.process(schemas());
    db.disable(&unguarded, "3").await;
    let (other, _other_folder) = copy_in();
    export(&db, &unguarded, &other).await.unwrap();
    let before = super::chain(&db).await;
    for (first, second) in [(&copy, &other), (&other, &copy)] {
        let refused = replay(&db, &unguarded, &[first, second]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::CopiesDiffer);
        let Error::Keys(KeyFault::CopiesDiffer { first: one, second: two, seq }) = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!((one, two, *seq), (&first.name(), &second.name(), 3), "the backup has two entries");
        assert_eq!(super::chain(&db).await, before, "nothing is replayed");
        let open = db.read(&unguarded, "1").await.unwrap();
        assert!(contains(&open[0].payload, "Ada"), "nothing is destroyed");
        let found = verify_all(&db, &unguarded, &[first, second]).await;
        let named = found.findings.iter().any(|finding| finding.to_string() == refused.to_string());
        assert!(!found.is_sound() && named, "{found:?}");
    }
    assert!(replay(&db, &unguarded, &[&copy]).await.unwrap().forked);
}

/// Whatever is wrong with one of them, nothing is replayed from the others.
async fn i13_one_copy_that_can_not_be_used_stops_all<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ALL).await;
    let unguarded = db.process(schemas());
    let before = super::chain(&db).await;
    let (empty, _empty_folder) = copy_in();
    let (altered, _altered_folder) = begun_like(&copy, 4);
    let text = std::fs::read_to_string(altered.path()).unwrap();
    std::fs::write(altered.path(), text.replacen("stop", "another", 1)).unwrap();
    for wrong in [&empty, &altered] {
        for copies in [[wrong, &copy], [&copy, wrong]] {
            let copies: [&dyn ShredLogCopy; 2] = copies.map(|copy| -> &dyn ShredLogCopy { copy });
            let refused = replay(&db, &unguarded, &copies).await.unwrap_err();
            assert!(
                matches!(&refused, Error::Keys(KeyFault::LogCopy { copy, .. }) if *copy == wrong.name()),
                "{refused:?}"
            );
            assert_eq!(super::chain(&db).await, before);
        }
    }
    let none = replay(&db, &unguarded, &[]).await.unwrap_err();
    assert!(none.to_string().contains("name at least one"), "{none}");
}

/// Copies in two kinds of places are copies of one log.
async fn copies_in_different_places_agree<B: Backend, P: Place>() {
    let (db, store) = super::shop::<B>(&["1", "2"]).await;
    let (file, _folder) = copy_in();
    let place = P::make().await;
    let other = place.copy().await;
    db.shred(&store, "1").await;
    export(&db, &store, &file).await.unwrap();
    db.shred(&store, "2").await;
    export(&db, &store, &other).await.unwrap();
    let found = verify_all(&db, &store, &[&file, &other]).await;
    let states: Vec<CopyState> = found.copies.iter().map(|copy| copy.state).collect();
    assert_eq!((found.is_sound(), &states[..]), (true, &[CopyState::Behind, CopyState::Complete][..]));
    let done = replay(&db, &store, &[&file, &other]).await.unwrap();
    assert_eq!((done.entries, done.missing, done.copy), (2, 0, other.name()));
    // A place may be filled from another one.
    let lines = other.lines(0, 100).await.unwrap();
    let (again, _again_folder) = copy_in();
    again.append(None, &lines).await.unwrap();
    assert_eq!(export(&db, &store, &again).await.unwrap().added, 0);
}

with_every_copy! {
    copies_in_different_places_agree,
}

mod of_tables {
    use super::{
        i13_copies_that_differ_are_not_replayed, i13_one_copy_that_can_not_be_used_stops_all,
        i13_the_longest_of_several_copies_is_replayed,
    };

    support::on_sqlite_and_postgres! {
        i13_the_longest_of_several_copies_is_replayed,
        i13_copies_that_differ_are_not_replayed,
        i13_one_copy_that_can_not_be_used_stops_all,
    }
}
