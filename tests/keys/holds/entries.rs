//! Whoever can write to the key table, and has not the integrity key, can neither alter, move, drop nor invent an entry
//! without being found by the next change of the scope, and by whoever asks for its holds (invariant I14).

use super::{commit, in_a_year, is_scope_state, placed, reads, schemas};
use async_trait::async_trait;
use eventseal::erasure::ShredMode;
use eventseal::error::{KeyFault, StorageFault};
use eventseal::{Error, Result};
use sqlx::{AssertSqlSafe, Executor};
use support::backend::Backend;
use support::{Postgres, Sqlite, customer_scope, on_sqlite_and_postgres};

on_sqlite_and_postgres! {
    i14_an_altered_column_is_found,
    i14_entries_that_were_dropped_moved_or_invented_are_found,
    i14_what_a_shred_destroyed_is_part_of_its_entry,
    i4_a_row_alone_redacts_nothing,
}

#[async_trait]
trait Forger: Backend {
    async fn run(&self, sql: &str);

    /// Takes the guards away, as a superuser can.
    async fn disarm(&self);
}

#[async_trait]
impl Forger for Sqlite {
    async fn run(&self, sql: &str) {
        self.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    async fn disarm(&self) {
        let names = "SELECT name FROM sqlite_master WHERE type = 'trigger'";
        let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&self.pool).await.unwrap();
        for name in names {
            self.run(&format!("DROP TRIGGER \"{name}\"")).await;
        }
    }
}

#[async_trait]
impl Forger for Postgres {
    async fn run(&self, sql: &str) {
        self.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    async fn disarm(&self) {
        self.run("ALTER TABLE shred_entries DISABLE TRIGGER ALL").await;
        self.run("ALTER TABLE key_scopes DISABLE TRIGGER ALL").await;
    }
}

fn is_found<T: std::fmt::Debug>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Keys(KeyFault::LogAltered { .. }) | Error::Storage(StorageFault::InvalidRow { .. })))
}

/// Asserts that the next change finds it, and so does whoever asks for the holds, and that nothing is erased.
async fn assert_found<B: Forger>(db: &B, id: &str, forgery: &str) {
    let store = db.process(schemas());
    let scope = customer_scope(id);
    let changed = commit!(db, store, shred(&scope, "r"));
    assert!(is_found(&changed), "{forgery}: {changed:?}");
    let changed = commit!(db, store, hold(&scope, "r", None));
    assert!(is_found(&changed), "{forgery}: {changed:?}");
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    let asked = store.keys().holds_of(connection, &scope).await;
    assert!(is_found(&asked), "{forgery}: {asked:?}");
    let history = store.keys().key_history(connection, &scope).await;
    assert!(
        history.is_err() || history.unwrap().unwrap().keys.iter().all(|key| key.shredded_at.is_none()),
        "{forgery}"
    );
}

/// A customer with three entries: a hold, and two changes.
async fn with_entries<B: Forger>(db: &B, id: &str) {
    let store = db.process(schemas());
    db.append(&store, id, &[placed(id)]).await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let keys = store.keys().acting_as("clerk 7");
    keys.hold(tx, &customer_scope(id), "case 1", Some(in_a_year())).await.unwrap();
    keys.disable(tx, &customer_scope(id), "incident").await.unwrap();
    keys.enable(tx, &customer_scope(id), "over").await.unwrap();
    db.commit(transaction).await.unwrap();
}

async fn i14_an_altered_column_is_found<B: Forger>() {
    let db = B::make().await;
    drop(db.prepared(schemas()).await);
    db.disarm().await;
    let another = "'0199d5d0-7a3e-7c11-9f3c-1d2e3f405162'";
    let time = "'2026-01-02T03:04:05.000000Z'";
    let alterations = [
        format!("entry_id = {another}"),
        format!("decided_at = {time}"),
        "action = 'release'".to_owned(),
        "action = 'cancel'".to_owned(),
        "state = 'withheld'".to_owned(),
        "state = 'shredded'".to_owned(),
        "generation = 2".to_owned(),
        format!("keys = '[[\"{}\",1,\"{}\",0]]'", another.trim_matches('\''), another.trim_matches('\'')),
        "keys = 'x'".to_owned(),
        format!("until = {time}"),
        "until = NULL".to_owned(),
        format!("about = {another}"),
        "reason = 'case 2'".to_owned(),
        "actor = 'clerk 8'".to_owned(),
        "actor = NULL".to_owned(),
        format!("mac_key_id = {another}"),
        "mac_key_id = (SELECT active_key_id FROM key_scopes WHERE kind_of_it)".to_owned(),
        "mac = (SELECT o.mac FROM shred_entries AS o WHERE o.scope_id = 'other' AND o.scope_seq = 1)".to_owned(),
        "mac = NULL, mac_key_id = NULL".to_owned(),
        "scope_seq = 7".to_owned(),
    ];
    with_entries(&db, "other").await;
    for (number, alteration) in alterations.iter().enumerate() {
        let id = format!("c{number}");
        with_entries(&db, &id).await;
        // The data key of the customer, which whoever erases him could know.
        let alteration = alteration.replace("kind_of_it", &format!("scope_id = '{id}'"));
        db.run(&format!("UPDATE shred_entries SET {alteration} WHERE scope_id = '{id}' AND scope_seq = 1")).await;
        assert_found(&db, &id, &alteration).await;
    }
    // The last entry is covered by nothing but its own MAC.
    for (number, alteration) in ["reason = 'x'", "actor = NULL", "mac = NULL, mac_key_id = NULL"].iter().enumerate() {
        let id = format!("last{number}");
        with_entries(&db, &id).await;
        db.run(&format!("UPDATE shred_entries SET {alteration} WHERE scope_id = '{id}' AND scope_seq = 3")).await;
        assert_found(&db, &id, alteration).await;
    }
    // An entry that was not altered is as good as before.
    let store = db.process(schemas());
    assert!(matches!(
        commit!(db, store, shred(&customer_scope("other"), "r")),
        Err(Error::Keys(KeyFault::Held { .. }))
    ));
}

#[expect(clippy::too_many_lines, reason = "a list of forgeries")]
async fn i14_entries_that_were_dropped_moved_or_invented_are_found<B: Forger>() {
    let db = B::make().await;
    drop(db.prepared(schemas()).await);
    db.disarm().await;
    with_entries(&db, "other").await;
    let copied = "decided_at, action, state, generation, keys, until, about, reason, actor, mac_key_id, mac";
    let named = format!("(entry_id, scope_kind, scope_id, scope_seq, {copied})");
    let new = "'0199d5d0-7a3e-7c11-9f3c-1d2e3f4051";
    let forgeries = [
        ("drops the first", "DELETE FROM shred_entries WHERE scope_id = '{id}' AND scope_seq = 1".to_owned()),
        ("drops one in the middle", "DELETE FROM shred_entries WHERE scope_id = '{id}' AND scope_seq = 2".to_owned()),
        (
            "drops the first, and moves the others up",
            "DELETE FROM shred_entries WHERE scope_id = '{id}' AND scope_seq = 1;
             UPDATE shred_entries SET scope_seq = 1 WHERE scope_id = '{id}' AND scope_seq = 2;
             UPDATE shred_entries SET scope_seq = 2 WHERE scope_id = '{id}' AND scope_seq = 3"
                .to_owned(),
        ),
        (
            "swaps two",
            "UPDATE shred_entries SET scope_seq = 9 WHERE scope_id = '{id}' AND scope_seq = 2;
             UPDATE shred_entries SET scope_seq = 2 WHERE scope_id = '{id}' AND scope_seq = 3;
             UPDATE shred_entries SET scope_seq = 3 WHERE scope_id = '{id}' AND scope_seq = 9"
                .to_owned(),
        ),
        (
            "moves one to another scope",
            "UPDATE shred_entries SET scope_id = '{id}', scope_seq = 4 WHERE scope_id = 'other' AND scope_seq = 3"
                .to_owned(),
        ),
        (
            "invents one, with the MAC of another",
            format!(
                "INSERT INTO shred_entries {named} SELECT {new}{{n}}', scope_kind, scope_id, 4, {copied}
                 FROM shred_entries WHERE scope_id = '{{id}}' AND scope_seq = 3"
            ),
        ),
        (
            "invents one, without a MAC",
            format!(
                "INSERT INTO shred_entries {named} VALUES ({new}{{n}}', 'Customer', '{{id}}', 4,
                 '2026-01-02T03:04:05.000000Z', 'shred', 'shredded', 1, '[]', NULL, NULL, 'r', NULL, NULL, NULL)"
            ),
        ),
        (
            "invents the release of the hold",
            format!(
                "INSERT INTO shred_entries {named} SELECT {new}{{n}}', scope_kind, scope_id, 4, decided_at, 'release',
                 state, generation, keys, NULL, entry_id, reason, actor, mac_key_id, mac
                 FROM shred_entries WHERE scope_id = '{{id}}' AND scope_seq = 1"
            ),
        ),
    ];
    for (number, (forgery, sql)) in forgeries.iter().enumerate() {
        let id = format!("c{number}");
        with_entries(&db, &id).await;
        db.run(&sql.replace("{id}", &id).replace("{n}", &format!("{number:02}"))).await;
        assert_found(&db, &id, forgery).await;
    }
    // One that holds something without a MAC, where nothing was ever decided.
    let store = db.process(schemas());
    db.append(&store, "fresh", &[placed("fresh")]).await;
    db.run(&format!(
        "INSERT INTO shred_entries {named} VALUES ({new}99', 'Customer', 'fresh', 1, '2026-01-02T03:04:05.000000Z',
         'hold', 'live', 1, '[]', NULL, NULL, 'r', NULL, NULL, NULL)"
    ))
    .await;
    assert_found(&db, "fresh", "invents the first, without a MAC").await;
}

async fn i14_what_a_shred_destroyed_is_part_of_its_entry<B: Forger>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for id in ["1", "2"] {
        db.append(&store, id, &[placed(id)]).await;
        db.shred(&store, id).await;
    }
    let history = db.history(&store, "1").await.unwrap();
    let [key] = &history.entries[0].keys[..] else { panic!("{:?}", history.entries) };
    let info = &history.keys[0];
    assert_eq!((key.key_id, key.version, key.kek_id, key.created_at), (info.key_id, 1, info.kek_id, info.created_at));
    db.disarm().await;
    db.run("UPDATE shred_entries SET keys = '[]' WHERE scope_id = '1'").await;
    let changed = commit!(db, store, reopen(&customer_scope("1"), "r"));
    assert!(is_found(&changed), "{changed:?}");
    commit!(db, store, reopen(&customer_scope("2"), "r")).unwrap();
}

/// Whoever can write to the table could otherwise make every value look erased.
async fn i4_a_row_alone_redacts_nothing<B: Forger>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for id in ["1", "2"] {
        db.append(&store, id, &[placed(id)]).await;
    }
    // The second one had a schedule once, and is disabled now.
    commit!(db, store, schedule_shred(&customer_scope("2"), in_a_year(), ShredMode::Redact, "request")).unwrap();
    commit!(db, store, cancel(&customer_scope("2"), "withdrawn")).unwrap();
    db.disable(&store, "2").await;
    for id in ["1", "2"] {
        db.run(&format!("UPDATE key_scopes SET state = 'disabled', withheld = true WHERE scope_id = '{id}'")).await;
        let read = reads(&db, &store, id).await;
        assert!(
            matches!(read, Err(Error::Storage(StorageFault::InvalidRow { what: "key_scopes.withheld", .. }))),
            "{read:?}"
        );
        assert!(is_scope_state(commit!(db, store, enable(&customer_scope(id), "r"))), "row and entries disagree");
        assert!(is_scope_state(commit!(db, store, hold(&customer_scope(id), "r", None))), "an entry vouched for a row");
    }
}
