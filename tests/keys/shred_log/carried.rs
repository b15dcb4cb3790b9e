//! What was changed before there was a shred log: carried over by a migration, it counts once it was adopted.

use super::{Intruder, chain, copy_in, export, hold, placed, schemas, shop, verify};
use async_trait::async_trait;
use eventseal::erasure::{AdoptedEntries, FileCopy, LogFinding, ReplayOptions};
use eventseal::error::KeyFault;
use eventseal::keys::ScopeAction;
use eventseal::postgres::PostgresKeys;
use eventseal::sqlite::SqliteKeys;
use eventseal::{Error, Namespace, Result, SealedStore};
use support::backend::Backend;
use support::{Postgres, Sqlite, contains, customer_scope};

/// A database whose keys can be as they were before migration 5.
#[async_trait]
trait Older: Intruder {
    /// Turns the tables back to what they were before there was a log, with their changes.
    async fn go_back(&self);

    async fn migrate(&self);
}

/// The table of changes as migrations 1 and 3 made it, with what the log says.
fn changes(number: &str, strict: &str) -> String {
    let columns = "scope_kind, scope_id, action, state, generation, reason, changed_at, actor";
    format!(
        "CREATE TABLE key_scope_changes (change_id {number}, scope_kind TEXT NOT NULL, scope_id TEXT NOT NULL,
             action TEXT NOT NULL, state TEXT NOT NULL, generation BIGINT NOT NULL, reason TEXT NOT NULL,
             changed_at {strict}, actor TEXT);
         INSERT INTO key_scope_changes ({columns})
             SELECT scope_kind, scope_id, action, state, generation, reason, decided_at, actor FROM shred_entries
             ORDER BY scope_seq;
         DROP TABLE shred_log; DROP TABLE shred_log_head; DROP TABLE shred_entries; DROP INDEX key_scopes_due;
         ALTER TABLE key_scopes DROP COLUMN due_at; ALTER TABLE key_scopes DROP COLUMN withheld;
         DELETE FROM _keys_migrations WHERE version = 5"
    )
}

#[async_trait]
impl Older for Postgres {
    async fn go_back(&self) {
        self.write(&changes("BIGSERIAL PRIMARY KEY", "TIMESTAMPTZ NOT NULL")).await;
    }

    async fn migrate(&self) {
        let mut connection = self.pool.acquire().await.unwrap();
        PostgresKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.unwrap();
    }
}

#[async_trait]
impl Older for Sqlite {
    async fn go_back(&self) {
        self.write(&changes("INTEGER PRIMARY KEY AUTOINCREMENT", "TEXT NOT NULL")).await;
    }

    async fn migrate(&self) {
        let mut connection = self.pool.acquire().await.unwrap();
        SqliteKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.unwrap();
    }
}

/// A shop that was migrated: customer 1 was shredded, 2 is disabled, 3 came back after a shred, 4 was never changed.
async fn migrated<B: Older>() -> (B, SealedStore<B::Store>) {
    let (db, store) = shop::<B>(&["1", "2", "3", "4"]).await;
    db.shred(&store, "1").await;
    db.disable(&store, "2").await;
    db.shred(&store, "3").await;
    db.reopen(&store, "3").await;
    db.append(&store, "3", &[placed("3")]).await;
    db.go_back().await;
    db.migrate().await;
    let store = db.prepared(schemas()).await;
    (db, store)
}

async fn adopt<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Result<AdoptedEntries> {
    store.keys().adopt_entries(db.connection(&mut db.connect().await?), "the upgrade").await
}

/// How each event of an order is read.
async fn read<B: Backend>(db: &B, store: &SealedStore<B::Store>, id: &str) -> Vec<&'static str> {
    match db.read(store, id).await {
        Ok(events) => {
            let of = |event: &eventseal::PersistedEvent| contains(&event.payload, "Ada");
            events.iter().map(|event| if of(event) { "open" } else { "redacted" }).collect()
        }
        Err(Error::Disabled { .. }) => vec!["disabled"],
        Err(error) => panic!("{error:?}"),
    }
}

/// Values are as they were before the migration.
async fn assert_read<B: Backend>(db: &B, store: &SealedStore<B::Store>) {
    for (id, expected) in
        [("1", &["redacted"][..]), ("2", &["disabled"]), ("3", &["redacted", "open"]), ("4", &["open"])]
    {
        assert_eq!(read(db, store, id).await, expected, "order {id}");
    }
    assert!(db.try_append(store, "1", &[placed("1")]).await.is_err(), "what was shredded stays shredded");
}

fn is_refused<T: std::fmt::Debug>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Keys(KeyFault::LogAltered { problem, .. })) if problem.contains("no MAC"))
}

/// Every change of a scope that has entries without a MAC alone is refused.
async fn assert_unchangeable<B: Backend>(db: &B, store: &SealedStore<B::Store>, id: &str) {
    let scope = customer_scope(id);
    let keys = store.keys();
    macro_rules! refused {
        ($call:ident($($argument:expr),*)) => {{
            let mut transaction = db.begin().await.unwrap();
            let changed = keys.$call(db.tx(&mut transaction), &scope, $($argument),*).await;
            assert!(is_refused(&changed), "{id}: {changed:?}");
        }};
    }
    refused!(shred("r"));
    refused!(reopen("r"));
    refused!(disable("r"));
    refused!(enable("r"));
    refused!(hold("r", None));
    refused!(holds_of());
}

async fn i14_what_was_changed_before_the_log_counts_once_it_is_adopted<B: Older>() {
    let (db, store) = migrated::<B>().await;
    assert_read(&db, &store).await;
    db.append(&store, "3", &[placed("3")]).await;
    for id in ["1", "2", "3"] {
        assert_unchangeable(&db, &store, id).await;
    }
    hold(&db, &store, "4").await;
    let found = verify(&db, &store, None).await;
    let lists = |finding: &LogFinding| matches!(finding, LogFinding::Unsealed { .. });
    assert!(!found.is_sound() && found.findings.iter().any(lists), "{found:?}");
    assert_eq!((found.seq, chain(&db).await.len()), (1, 1), "only the hold has a number: {found:?}");

    let adopted = adopt(&db, &store).await.unwrap();
    assert_eq!((adopted.entries, adopted.scopes, adopted.left), (4, 3, vec![]));
    let found = verify(&db, &store, None).await;
    assert!(found.is_sound(), "{found:?}");
    assert_eq!((found.seq, found.carried), (1 + 4 + 3 + 1, 4), "and one that says that adoption is over");
    let history = db.history(&store, "1").await.unwrap();
    let [shred, adoption] = &history.entries[..] else { panic!("{history:?}") };
    assert_eq!((shred.action, adoption.action), (ScopeAction::Shred, ScopeAction::Adopt));
    assert_eq!(adoption.keys.iter().map(|key| key.key_id).collect::<Vec<_>>(), [history.keys[0].key_id]);
    let keys_of_three: Vec<u32> =
        db.history(&store, "3").await.unwrap().entries[2].keys.iter().map(|k| k.version).collect();
    assert_eq!(keys_of_three, [1], "the key since the reopening is alive");

    db.enable(&store, "2").await;
    assert_eq!(read(&db, &store, "2").await, ["open"]);
    db.reopen(&store, "1").await;
    assert_eq!(db.shred(&store, "3").await.destroyed.len(), 1);
    assert!(verify(&db, &store, None).await.is_sound());
    assert_eq!(adopt(&db, &store).await.unwrap(), AdoptedEntries::default(), "a second time does nothing");
}

/// A restore brings a key back that was destroyed before there was a log.
async fn i13_old_shreds_stay_shredded<B: Older>() {
    let (db, store) = migrated::<B>().await;
    adopt(&db, &store).await.unwrap();
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    let back = "UPDATE data_keys SET state = 'live', shredded_at = NULL,
        wrapped_key = (SELECT k.wrapped_key FROM data_keys AS k WHERE k.scope_id = '4') WHERE scope_id = '1'";
    db.write(back).await;
    let found = verify(&db, &store, Some(&copy)).await;
    assert!(found.findings.iter().any(|finding| finding.to_string().contains("is there again")), "{found:?}");
    let mut connection = db.connect().await.unwrap();
    let options = ReplayOptions::default();
    let connection = db.connection(&mut connection);
    let replayed = store.keys().replay_log(connection, &[&copy], &options, &mut |_| {}).await.unwrap();
    assert_eq!((replayed.missing, replayed.destroyed), (0, 1));
    assert_read(&db, &store).await;
    assert!(verify(&db, &store, Some(&copy)).await.is_sound());
}

/// Somebody who can write to the table writes entries as the migration does.
fn invent(id: &str, number: u32, action: &str, state: &str) -> String {
    let entry = format!("00000000-0000-4000-8000-00000000{id}00{number}");
    format!(
        "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state, generation,
             reason)
         VALUES ('{entry}', 'Customer', '{id}', {number},
             '2026-01-02T03:04:05.000000Z', '{action}', '{state}', 1, 'no');
         UPDATE key_scopes SET state = '{state}' WHERE scope_id = '{id}'"
    )
}

async fn i14_entries_that_were_invented_are_never_acted_on<B: Older>() {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    db.write(&invent("1", 1, "disable", "disabled")).await;
    db.write(&invent("1", 2, "enable", "live")).await;
    db.write(&invent("2", 1, "shred", "shredded")).await;
    for id in ["1", "2"] {
        assert_unchangeable(&db, &store, id).await;
    }
    assert!(is_refused(&super::seal(&db, &store).await));
    assert!(chain(&db).await.is_empty(), "they get no number");
    assert!(!verify(&db, &store, None).await.is_sound());
    // A process that starts is not kept from its work, unless it requires a copy.
    db.prepare(&db.process(schemas())).await;
    let (copy, _folder) = copy_in();
    let requiring = db.process_over(db.keys().require_shred_log(copy, std::time::Duration::ZERO), schemas());
    let refused = requiring.keys().prepare(db.connection(&mut db.connect().await.unwrap())).await;
    assert!(is_refused(&refused), "{refused:?}");
}

/// A copy can't have the entries from before the log while they are not adopted. Where it is required, and agrees with
/// the rest, they are adopted all the same.
async fn i13_entries_are_adopted_where_a_required_copy_agrees<B: Older>() {
    let (db, store) = migrated::<B>().await;
    hold(&db, &store, "4").await;
    let (copy, _folder) = copy_in();
    assert!(is_refused(&export(&db, &store, &copy).await), "the hold is copied, and the others have no number");
    let keys = db.keys().require_shred_log(FileCopy::new(copy.path()), std::time::Duration::ZERO);
    let requiring = db.process_over(keys, schemas());
    assert_eq!(adopt(&db, &requiring).await.unwrap().scopes, 3);
    export(&db, &store, &copy).await.unwrap();
    assert!(verify(&db, &store, Some(&copy)).await.is_sound());
    assert_eq!(adopt(&db, &requiring).await.unwrap(), AdoptedEntries::default());
}

async fn i14_nothing_is_adopted_twice<B: Older>() {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    assert_eq!(adopt(&db, &store).await.unwrap(), AdoptedEntries::default(), "there is nothing to adopt");
    assert_eq!(chain(&db).await.len(), 1, "but it is over");
    db.write(&invent("1", 1, "disable", "disabled")).await;
    let adopted = adopt(&db, &store).await;
    assert!(is_refused(&adopted), "{adopted:?}");
    assert_unchangeable(&db, &store, "1").await;
    db.shred(&store, "2").await;
    assert_eq!(read(&db, &store, "1").await, ["disabled"], "nothing is lost");
}

/// Entries that can't be from before there was a log, or whose scope says something else, are left alone.
async fn i14_what_does_not_agree_is_not_adopted<B: Older>() {
    let (db, store) = migrated::<B>().await;
    db.write("UPDATE key_scopes SET state = 'live' WHERE scope_id = '2'").await;
    db.write("UPDATE shred_entries SET scope_seq = 7 WHERE scope_id = '1'").await;
    let adopted = adopt(&db, &store).await.unwrap();
    assert_eq!((adopted.entries, adopted.scopes), (2, 1));
    assert_eq!(adopted.left, [customer_scope("1"), customer_scope("2")]);
    // Once they agree, they are adopted: it was not over.
    db.write("UPDATE key_scopes SET state = 'disabled' WHERE scope_id = '2'").await;
    db.write("UPDATE shred_entries SET scope_seq = 1 WHERE scope_id = '1'").await;
    assert_eq!(adopt(&db, &store).await.unwrap().entries, 2);
    assert!(verify(&db, &store, None).await.is_sound());
}

support::on_sqlite_and_postgres! {
    i14_what_was_changed_before_the_log_counts_once_it_is_adopted,
    i13_old_shreds_stay_shredded,
    i14_entries_that_were_invented_are_never_acted_on,
    i13_entries_are_adopted_where_a_required_copy_agrees,
    i14_nothing_is_adopted_twice,
    i14_what_does_not_agree_is_not_adopted,
}
