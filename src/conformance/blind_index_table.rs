//! The contract of a table of blind indexes.

use super::{Database, must, must_be_refused, until_idle};
use crate::blind_index::{BlindEntry, BlindIndexTable};
use crate::error::{Error, Result, TransactionFault};
use crate::keys::names::{KeyId, KeyScope};
use std::pin::pin;
use uuid::Uuid;

/// Checks a table of blind indexes: places hold one entry, entries are found by their hashes and in order, and the
/// entries of a scope or of a key are dropped together. The table must be empty.
///
/// That a look-up is one look into an index of the database can't be checked here.
pub async fn blind_index_table<D: Database, T: BlindIndexTable<Tx = D::Tx>>(db: &D, table: &T) {
    let ctx = Ctx { db, table };
    places_hold_one_entry(&ctx).await;
    entries_are_found_by_their_hashes(&ctx).await;
    entries_are_removed(&ctx).await;
    scopes_and_keys_are_dropped(&ctx).await;
    keys_are_compared(&ctx).await;
    changes_are_part_of_the_transaction(&ctx).await;
    changes_need_a_transaction(&ctx).await;
    one_of_two_has_a_place(&ctx).await;
}

struct Ctx<'c, D, T> {
    db: &'c D,
    table: &'c T,
}

fn scope(id: &str) -> KeyScope {
    KeyScope::new("Customer", id)
}

fn entry(index: &str, key_id: KeyId, hash: u8, id: &str, unique: bool) -> BlindEntry {
    BlindEntry { index: index.into(), key_id, hash: vec![hash; 16], scope: scope(id), unique, generation: 1 }
}

fn new_key() -> KeyId {
    KeyId(Uuid::now_v7())
}

fn sorted(mut entries: Vec<BlindEntry>) -> Vec<BlindEntry> {
    entries.sort_unstable();
    entries
}

impl<D: Database, T: BlindIndexTable<Tx = D::Tx>> Ctx<'_, D, T> {
    async fn add(&self, entries: &[BlindEntry]) -> Vec<BlindEntry> {
        let mut transaction = must(self.db.begin().await, "begin");
        let there = must(self.table.add(self.db.tx(&mut transaction), entries).await, "add");
        must(self.db.commit(transaction).await, "commit");
        there
    }

    async fn find(&self, index: &str, hashes: &[(KeyId, u8)], limit: u32) -> Vec<BlindEntry> {
        let hashes: Vec<_> = hashes.iter().map(|(key_id, hash)| (*key_id, vec![*hash; 16])).collect();
        let mut connection = must(self.db.connect().await, "connect");
        must(self.table.find(self.db.connection(&mut connection), index, &hashes, limit).await, "find")
    }

    async fn scopes(&self, after: Option<&KeyScope>, limit: u32) -> Vec<KeyScope> {
        let mut connection = must(self.db.connect().await, "connect");
        must(self.table.scopes_after(self.db.connection(&mut connection), after, limit).await, "scopes_after")
    }

    async fn drop_scope(&self, id: &str) -> u64 {
        let mut transaction = must(self.db.begin().await, "begin");
        let dropped = must(self.table.drop_scope(self.db.tx(&mut transaction), &scope(id), None).await, "drop_scope");
        must(self.db.commit(transaction).await, "commit");
        dropped
    }
}

async fn places_hold_one_entry<D: Database, T: BlindIndexTable<Tx = D::Tx>>(ctx: &Ctx<'_, D, T>) {
    let (key, other) = (new_key(), new_key());
    let first = entry("place", key, 1, "1", true);
    let one = std::slice::from_ref(&first);
    assert_eq!(ctx.add(&[]).await, [], "adding nothing adds nothing");
    assert_eq!(ctx.add(one).await, *one, "an added entry is there");
    assert_eq!(ctx.add(one).await, *one, "adding it again changes nothing");
    let second = entry("place", key, 1, "2", true);
    assert_eq!(ctx.add(&[second]).await, *one, "a unique place holds one entry");
    let reopened = BlindEntry { generation: 2, ..first.clone() };
    assert_eq!(ctx.add(&[reopened]).await, [first], "a generation is no part of a place");
    let elsewhere = [
        entry("another", key, 1, "2", true),
        entry("place", other, 1, "2", true),
        entry("place", key, 2, "2", true),
        entry("place", key, 1, "2", false),
        entry("place", key, 1, "3", false),
    ];
    let there = sorted(ctx.add(&elsewhere).await);
    assert_eq!(there, sorted(elsewhere.to_vec()), "index, key, hash, and the scope of shared entries make a place");
    for id in ["1", "2", "3"] {
        ctx.drop_scope(id).await;
    }
}

async fn entries_are_found_by_their_hashes<D: Database, T: BlindIndexTable<Tx = D::Tx>>(ctx: &Ctx<'_, D, T>) {
    let (key, other) = (new_key(), new_key());
    let shared = ["Z", "a", "é", "b"].map(|id| entry("found", key, 1, id, false));
    let unique = [entry("found", key, 2, "a", true), entry("found", other, 3, "a", true)];
    ctx.add(&[&shared[..], &unique[..]].concat()).await;
    let ids = |entries: &[BlindEntry]| entries.iter().map(|entry| entry.scope.id().to_owned()).collect::<Vec<_>>();
    let found = ctx.find("found", &[(key, 1)], 10).await;
    assert_eq!(ids(&found), ["Z", "a", "b", "é"], "entries are found in ascending order of scope, byte by byte");
    assert_eq!(
        ids(&ctx.find("found", &[(key, 1)], 2).await),
        ["Z", "a"],
        "the first entries are found, up to the limit"
    );
    let both = ctx.find("found", &[(key, 2), (other, 3)], 1).await;
    assert_eq!(sorted(both), sorted(unique.to_vec()), "the limit is one for each hash");
    for (index, key, hash) in [("found", other, 1), ("found", key, 3), ("foun", key, 1), ("FOUND", key, 1)] {
        assert_eq!(ctx.find(index, &[(key, hash)], 10).await, [], "index, key and hash must be the same");
    }
    assert_eq!(ctx.find("found", &[], 10).await, [], "no hashes find nothing");
    let scopes = ctx.scopes(None, 10).await;
    assert_eq!(scopes, ["Z", "a", "b", "é"].map(scope), "each scope is listed once, in ascending order");
    assert_eq!(ctx.scopes(Some(&scope("a")), 1).await, [scope("b")], "scopes are listed after one, up to the limit");
    for id in ["Z", "a", "é", "b"] {
        ctx.drop_scope(id).await;
    }
}

async fn entries_are_removed<D: Database, T: BlindIndexTable<Tx = D::Tx>>(ctx: &Ctx<'_, D, T>) {
    let (key, other) = (new_key(), new_key());
    let entries = [
        entry("removed", key, 1, "1", true),
        entry("removed", other, 2, "1", true),
        entry("removed", key, 3, "1", true),
        entry("kept", key, 3, "1", true),
        entry("removed", key, 4, "2", true),
    ];
    ctx.add(&entries).await;
    let places = [(key, 1), (other, 2), (key, 3), (key, 4)];
    let mut transaction = must(ctx.db.begin().await, "begin");
    let not_its_own = entry("removed", key, 1, "2", true);
    must(ctx.table.remove(ctx.db.tx(&mut transaction), &[not_its_own]).await, "remove");
    must(ctx.db.commit(transaction).await, "commit");
    let rule = "an entry is removed if its scope is the same";
    assert_eq!(ctx.find("removed", &places[..1], 9).await, entries[..1], "{rule}");
    let mut transaction = must(ctx.db.begin().await, "begin");
    let of_another = BlindEntry { generation: 9, ..entries[0].clone() };
    must(ctx.table.remove(ctx.db.tx(&mut transaction), &[of_another]).await, "remove");
    must(ctx.db.commit(transaction).await, "commit");
    let rule = "an entry is removed if its generation is the same";
    assert_eq!(ctx.find("removed", &places[..1], 9).await, entries[..1], "{rule}");
    let mut transaction = must(ctx.db.begin().await, "begin");
    must(ctx.table.remove(ctx.db.tx(&mut transaction), &entries[..1]).await, "remove");
    must(ctx.db.commit(transaction).await, "commit");
    let rule = "an entry is removed, and no other one is";
    assert_eq!(
        sorted(ctx.find("removed", &places, 9).await),
        sorted([&entries[1..3], &entries[4..]].concat()),
        "{rule}"
    );
    let mut transaction = must(ctx.db.begin().await, "begin");
    let kept = [(key, vec![3; 16]), (key, vec![2; 16])];
    must(ctx.table.keep_only(ctx.db.tx(&mut transaction), "removed", &scope("1"), &kept).await, "keep_only");
    must(ctx.db.commit(transaction).await, "commit");
    let rule = "of the scope's entries in the index, those with one of the hashes are kept";
    assert_eq!(
        sorted(ctx.find("removed", &places, 9).await),
        sorted([&entries[2..3], &entries[4..]].concat()),
        "{rule}"
    );
    assert_eq!(ctx.find("kept", &[(key, 3)], 9).await, entries[3..4], "entries in another index are kept");
    for id in ["1", "2"] {
        ctx.drop_scope(id).await;
    }
}

async fn scopes_and_keys_are_dropped<D: Database, T: BlindIndexTable<Tx = D::Tx>>(ctx: &Ctx<'_, D, T>) {
    let (key, other) = (new_key(), new_key());
    let entries = [
        entry("one", key, 1, "1", true),
        entry("two", key, 1, "1", false),
        entry("one", other, 2, "1", true),
        entry("one", key, 3, "11", true),
        entry("one", key, 4, "12", true),
        entry("one", other, 5, "12", true),
    ];
    ctx.add(&entries).await;
    assert_eq!(ctx.drop_scope("1").await, 3, "every entry of the scope is dropped");
    assert_eq!(ctx.drop_scope("1").await, 0, "and there are none left");
    assert_eq!(ctx.scopes(None, 10).await, [scope("11"), scope("12")], "entries of other scopes are kept");
    for expected in [1, 1, 0] {
        let mut transaction = must(ctx.db.begin().await, "begin");
        let dropped = must(ctx.table.drop_keys(ctx.db.tx(&mut transaction), &[key], 1).await, "drop_keys");
        must(ctx.db.commit(transaction).await, "commit");
        assert_eq!(dropped, expected, "the entries of a key are dropped, up to the limit");
    }
    let left = ctx.find("one", &[(key, 3), (key, 4), (other, 5)], 9).await;
    assert_eq!(left, entries[5..], "entries of other keys are kept");
    ctx.drop_scope("12").await;
    let newer = BlindEntry { generation: 2, ..entry("two", key, 7, "1", true) };
    ctx.add(&[entry("one", key, 6, "1", true), newer.clone()]).await;
    let mut transaction = must(ctx.db.begin().await, "begin");
    let dropped = ctx.table.drop_scope(ctx.db.tx(&mut transaction), &scope("1"), Some(2)).await;
    assert_eq!(must(dropped, "drop_scope"), 1, "entries of earlier generations are dropped");
    must(ctx.db.commit(transaction).await, "commit");
    assert_eq!(ctx.find("two", &[(key, 7)], 9).await, [newer], "entries of a generation that is named are kept");
    ctx.drop_scope("1").await;
}

async fn keys_are_compared<D: Database, T: BlindIndexTable<Tx = D::Tx>>(ctx: &Ctx<'_, D, T>) {
    let (active, older, gone) = (new_key(), new_key(), new_key());
    let unfinished = async |older: &[KeyId]| {
        let mut connection = must(ctx.db.connect().await, "connect");
        must(ctx.table.unfinished(ctx.db.connection(&mut connection), active, older).await, "unfinished")
    };
    ctx.add(&[entry("one", older, 1, "1", true), entry("one", active, 2, "1", true)]).await;
    ctx.add(&[entry("two", gone, 3, "1", true), entry("one", active, 4, "2", true)]).await;
    assert_eq!(unfinished(&[]).await, None, "without older keys, nothing is missing");
    assert_eq!(unfinished(&[older]).await, None, "an entry under both keys is complete");
    let expected = Some(("two".to_owned(), scope("1")));
    assert_eq!(unfinished(&[older, gone]).await, expected, "an entry in another index does not count");
    ctx.add(&[entry("one", older, 5, "1", true)]).await;
    let expected = Some(("one".to_owned(), scope("1")));
    assert_eq!(unfinished(&[older]).await, expected, "a scope with more entries under an older key is not complete");
    for id in ["1", "2"] {
        ctx.drop_scope(id).await;
    }
}

async fn changes_are_part_of_the_transaction<D: Database, T: BlindIndexTable<Tx = D::Tx>>(ctx: &Ctx<'_, D, T>) {
    let one = entry("rolled back", new_key(), 1, "1", true);
    let entries = std::slice::from_ref(&one);
    let mut transaction = must(ctx.db.begin().await, "begin");
    let there = must(ctx.table.add(ctx.db.tx(&mut transaction), entries).await, "add");
    assert_eq!(there, entries, "a transaction sees what it added");
    drop(transaction);
    assert_eq!(ctx.scopes(None, 10).await, [], "a transaction that is rolled back adds nothing");
    ctx.add(entries).await;
    let mut transaction = must(ctx.db.begin().await, "begin");
    must(ctx.table.remove(ctx.db.tx(&mut transaction), entries).await, "remove");
    drop(transaction);
    assert_eq!(ctx.scopes(None, 10).await, [scope("1")], "a transaction that is rolled back removes nothing");
    ctx.drop_scope("1").await;
}

/// Each operation has rows of its own, so that one does not undo what another one did.
async fn changes_need_a_transaction<D: Database, T: BlindIndexTable<Tx = D::Tx>>(ctx: &Ctx<'_, D, T>) {
    let (key, dropped) = (new_key(), new_key());
    let there = ["removed", "kept only", "of a scope"].map(|id| entry("outside", key, 1, id, false));
    let there = [&there[..], &[entry("outside", dropped, 1, "of a key", false)]].concat();
    ctx.add(&there).await;
    let [removed, kept, of_scope, _] = [0, 1, 2, 3].map(|index: usize| there[index].clone());
    let added = [entry("outside", key, 2, "added", false)];
    let mut outside = must(ctx.db.connect().await, "connect");
    // The database in memory lets a connection write, and forgets it with the connection.
    let done = [
        ctx.table.add(ctx.db.connection(&mut outside), &added).await.map(drop),
        ctx.table.remove(ctx.db.connection(&mut outside), &[removed]).await,
        ctx.table.keep_only(ctx.db.connection(&mut outside), "outside", &kept.scope, &[]).await,
        ctx.table.drop_scope(ctx.db.connection(&mut outside), &of_scope.scope, None).await.map(drop),
        ctx.table.drop_keys(ctx.db.connection(&mut outside), &[dropped], 9).await.map(drop),
    ];
    drop(outside);
    let rule = "entries are changed in a transaction only";
    assert!(done.into_iter().all(is_refused), "{rule}");
    let left = ctx.find("outside", &[(key, 1), (key, 2), (dropped, 1)], 9).await;
    assert_eq!(sorted(left), sorted(there.clone()), "{rule}");
    for entry in &there {
        ctx.drop_scope(entry.scope.id()).await;
    }
}

fn is_refused<T>(done: Result<T>) -> bool {
    matches!(done.err(), None | Some(Error::Transaction(TransactionFault::NotInTransaction { .. })))
}

/// Two transactions add unique entries at one place: the second one waits, collides or finds the entry of the first.
async fn one_of_two_has_a_place<D: Database, T: BlindIndexTable<Tx = D::Tx>>(ctx: &Ctx<'_, D, T>) {
    let rule = "of two transactions that add at one place, one has it";
    let key = new_key();
    let (one, other) = (entry("race", key, 1, "1", true), entry("race", key, 1, "2", true));
    let mut first = must(ctx.db.begin().await, "begin");
    must(ctx.table.add(ctx.db.tx(&mut first), std::slice::from_ref(&one)).await, "add");
    let mut second = must(ctx.db.begin().await, "begin");
    let added = {
        let entries = std::slice::from_ref(&other);
        let mut adding = pin!(ctx.table.add(ctx.db.tx(&mut second), entries));
        let early = until_idle(adding.as_mut()).await;
        must(ctx.db.commit(first).await, "commit");
        match early {
            Some(early) => early,
            None => adding.await,
        }
    };
    match added {
        Ok(there) if there == [one.clone()] => must(ctx.db.commit(second).await, "commit"),
        Ok(_) => must_be_refused(ctx.db.commit(second).await, "Collision", rule),
        refused => must_be_refused(refused, "Collision", rule),
    }
    assert_eq!(ctx.find("race", &[(key, 1)], 9).await, [one], "{rule}");
    ctx.drop_scope("1").await;
}
