//! Changes that something in the database prevents or undoes.

use super::{OLD, Scripted, change, placed, schemas, scope, with_scopes};
use eventseal::ExpectedVersion::Any;
use eventseal::error::{SetUpFault, StorageFault};
use eventseal::keys::{KeyManager, KeyStore, KeyTable};
use eventseal::postgres::PostgresKeys;
use eventseal::sqlite::SqliteKeys;
use eventseal::{Error, EventStore, EventStoreExt, Keyring, Namespace, aggregate};
use sqlx::{AssertSqlSafe, Executor};
use support::{Postgres, Sqlite, on_sqlite_and_postgres};

on_sqlite_and_postgres! {
    i5_a_change_that_is_kept_away_is_an_error_of_its_own,
    i5_keys_that_come_back_are_destroyed_on_the_record,
    what_is_retired_stays_so_and_in_its_partition,
    an_older_active_key_seals_nothing_and_a_rotation_puts_it_right,
    a_key_is_retired_in_its_own_database_only,
}

async fn i5_a_change_that_is_kept_away_is_an_error_of_its_own<B: Scripted>() {
    let db = B::make().await;
    let (store, unused) = with_scopes(&db).await;
    let cases: [(&str, &str, &[&str]); 6] = [
        ("UPDATE", "data_keys", &["shred", "rewrap"]),
        ("INSERT", "data_keys", &["reopen", "rotate_data_key", "append"]),
        ("UPDATE", "key_scopes", &["shred", "disable", "enable", "reopen", "rotate_data_key", "append"]),
        ("INSERT", "key_scopes", &["shred a scope that was never seen", "append"]),
        ("INSERT", "shred_entries", &["shred", "disable", "enable", "reopen"]),
        ("UPDATE", "key_encryption_keys", &["rotate_kek", "retire_kek", "move_master_key"]),
    ];
    let inserted: (&str, &str, &[&str]) = ("INSERT", "key_encryption_keys", &["create_kek", "rotate_kek"]);
    for (what, table, operations) in cases.into_iter().chain([inserted]) {
        db.keep_away(what, table).await;
        // A scope that is created with its key is not updated.
        let at_once = B::Keys::default().creates_at_once();
        let is_made =
            |operation: &&&str| !(at_once && **operation == "append" && (what, table) == ("UPDATE", "key_scopes"));
        for operation in operations.iter().filter(is_made) {
            let error = change(&db, &store, unused, operation).await.expect_err(operation);
            let named =
                matches!(&error, Error::Storage(StorageFault::NoEffect { table: named, .. }) if named.contains(table));
            assert!(named && !error.is_retryable(), "{operation}, with no {what} of {table}: {error:?}");
            assert!(error.to_string().contains("row-level policies, triggers and rules"), "{error}");
        }
        db.let_through(what, table).await;
    }
    // Without an obstacle, every change works.
    let others =
        ["rewrap", "rotate_kek", "create_kek", "append", "reopen", "enable", "disable", "shred", "move_master_key"];
    for operation in ["retire_kek"].into_iter().chain(others) {
        change(&db, &store, unused, operation).await.expect(operation);
    }
}

/// A restore of a part of the tables brings back keys under a tombstone.
async fn i5_keys_that_come_back_are_destroyed_on_the_record<B: Scripted>() {
    let db = B::make().await;
    let (store, _) = with_scopes(&db).await;
    let shred = async |customer: &'static str| {
        let mut transaction = db.begin().await.unwrap();
        let done = store.keys().shred(db.tx(&mut transaction), &scope(customer), "again").await.unwrap();
        let history = store.keys().key_history(db.tx(&mut transaction), &scope(customer)).await.unwrap().unwrap();
        db.commit(transaction).await.unwrap();
        (done, history)
    };
    let (done, history) = shred("shredded").await;
    assert_eq!((done.destroyed.len(), done.already.len(), done.was_shredded, history.entries.len()), (0, 1, true, 1));
    db.execute("UPDATE key_scopes SET state = 'shredded', active_key_id = NULL WHERE scope_id = 'live'".to_owned())
        .await;
    let (done, history) = shred("live").await;
    assert_eq!((done.destroyed.len(), done.already.len(), done.was_shredded), (1, 0, true));
    assert_eq!(
        history.entries.iter().map(|change| change.reason.as_str()).collect::<Vec<_>>(),
        ["again"],
        "a shred left no record"
    );
    let (done, _) = shred("disabled").await;
    assert_eq!((done.destroyed.len(), done.already.len(), done.was_shredded), (1, 0, false));
}

async fn what_is_retired_stays_so_and_in_its_partition<B: Scripted>() {
    let db = B::make().await;
    let (store, unused) = with_scopes(&db).await;
    let mut connection = db.connect().await.unwrap();
    store.keys().retire_kek(db.connection(&mut connection), unused).await.unwrap();
    for sql in [
        "UPDATE key_encryption_keys SET state = 'decrypt_only' WHERE state = 'retired'",
        "UPDATE key_encryption_keys SET state = 'active', \"partition\" = 'other' WHERE state = 'retired'",
        "UPDATE key_encryption_keys SET state = 'active' WHERE state = 'decrypt_only'",
        "UPDATE key_encryption_keys SET \"partition\" = 'other' WHERE state = 'decrypt_only'",
        "UPDATE key_encryption_keys SET kek_id = (SELECT key_id FROM data_keys LIMIT 1) WHERE state = 'retired'",
    ] {
        let before = store.keys().kek_usage(db.connection(&mut connection)).await.unwrap();
        let refused = db.raw(sql).await.expect_err(sql);
        assert!(refused.to_string().contains("never"), "{sql}: {refused}");
        assert_eq!(store.keys().kek_usage(db.connection(&mut connection)).await.unwrap(), before, "{sql}");
    }
    // The library's own changes pass these guards.
    store.keys().rotate_kek(db.connection(&mut connection), "default").await.unwrap();
}

async fn an_older_active_key_seals_nothing_and_a_rotation_puts_it_right<B: Scripted>() {
    let db = B::make().await;
    let (store, _) = with_scopes(&db).await;
    let mut transaction = db.begin().await.unwrap();
    store.append(db.tx(&mut transaction), &aggregate("Order", "3"), Any, &[placed("live")]).await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &scope("live")).await.unwrap();
    db.commit(transaction).await.unwrap();
    let older = "SELECT key_id FROM data_keys WHERE scope_id = 'live' AND version = 1";
    db.execute(format!("UPDATE key_scopes SET active_key_id = ({older}) WHERE scope_id = 'live'")).await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let refused = store.append(tx, &aggregate("Order", "2"), Any, &[placed("live")]).await.map(drop).unwrap_err();
    assert!(
        matches!(refused, Error::Storage(StorageFault::InvalidRow { .. })) && refused.to_string().contains("newest"),
        "{refused:?}"
    );
    assert_eq!(store.keys().rotate_data_key(tx, &scope("live")).await.unwrap().version, 3);
    store.append(tx, &aggregate("Order", "2"), Any, &[placed("live")]).await.unwrap();
    let read = store.read_stream(tx, &aggregate("Order", "3")).await.unwrap();
    assert_eq!(read.events[0].payload, placed("live").payload(), "older keys go on opening");
}

async fn a_key_is_retired_in_its_own_database_only<B: Scripted>() {
    let (db, other) = (B::make().await, B::make().await);
    let (_, unused) = with_scopes(&db).await;
    let keys = KeyManager::builder(B::Keys::default(), Keyring::parse(OLD).unwrap());
    let elsewhere = other.process_over(keys.for_namespace(Namespace::new("elsewhere").unwrap()), schemas());
    let mut connection = db.connect().await.unwrap();
    let refused = elsewhere.keys().retire_kek(db.connection(&mut connection), unused).await;
    assert!(matches!(refused, Err(Error::SetUp(SetUpFault::NamespaceMismatch { .. }))), "{refused:?}");
}

/// A policy that lets rows be seen but not changed filters the change away, and the lock as well.
#[tokio::test]
async fn i5_a_row_level_policy_is_not_taken_for_an_erasure() {
    for (table, expected) in [("data_keys", "data_keys"), ("key_scopes", "key_scopes")] {
        let db = Postgres::new().await;
        let (store, _) = with_scopes(&db).await;
        let role = format!("r{}", uuid::Uuid::now_v7().simple());
        for sql in [
            format!("CREATE ROLE {role}"),
            format!("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}"),
            format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"),
            format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
            format!("CREATE POLICY s ON {table} FOR SELECT USING (true)"),
            format!("CREATE POLICY i ON {table} FOR INSERT WITH CHECK (true)"),
        ] {
            db.execute(sql).await;
        }
        let mut tx = db.pool.begin().await.unwrap();
        tx.execute(AssertSqlSafe(format!("SET LOCAL ROLE {role}"))).await.unwrap();
        let refused = store.keys().shred(&mut tx, &scope("live"), "r").await;
        assert!(
            matches!(&refused, Err(Error::Storage(StorageFault::NoEffect { table, .. })) if table.contains(expected)),
            "{table}: {refused:?}"
        );
        drop(tx);
        db.execute(format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    }
}

/// A restore of a part of the tables, in each of the ways in which it can go wrong.
async fn restored<B: Scripted>(db: &B) {
    let (store, _) = with_scopes(db).await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.keys().shred(tx, &scope("disabled"), "r").await.unwrap();
    store.keys().reopen(tx, &scope("shredded"), "r").await.unwrap();
    db.commit(transaction).await.unwrap();
    for sql in [
        // The scopes were restored, and the keys; what was done to them was not.
        "UPDATE key_scopes SET state = 'disabled' WHERE scope_id = 'disabled'",
        // The keys alone.
        "UPDATE key_scopes SET state = 'shredded' WHERE scope_id = 'live'",
    ] {
        db.execute(sql.to_owned()).await;
    }
}

#[tokio::test]
async fn i5_keys_that_a_restore_brought_back_are_found() {
    let expected = ["disabled", "live"].map(scope).to_vec();
    let db = Sqlite::new().await;
    let mut connection = db.pool.acquire().await.unwrap();
    assert_eq!(SqliteKeys::new().restored_scopes(&mut connection, 5).await.unwrap().count, 0);
    restored(&db).await;
    let bring_back =
        "UPDATE data_keys SET wrapped_key = x'00', state = 'live', shredded_at = NULL WHERE scope_id = 'disabled'";
    db.execute(format!("DROP TRIGGER data_keys_stay_shredded; {bring_back}")).await;
    let found = SqliteKeys::new().restored_scopes(&mut connection, 5).await.unwrap();
    assert_eq!((found.count, found.first), (2, expected.clone()));
    let found = SqliteKeys::new().restored_scopes(&mut connection, 1).await.unwrap();
    assert_eq!((found.count, found.first), (2, expected[..1].to_vec()));

    let db = Postgres::new().await;
    let mut connection = db.pool.acquire().await.unwrap();
    assert_eq!(PostgresKeys::new().restored_scopes(&mut connection, 5).await.unwrap().count, 0);
    restored(&db).await;
    let bring_back = bring_back.replace("x'00'", "'\\x00'");
    db.execute("DROP TRIGGER stays_shredded ON data_keys".to_owned()).await;
    db.execute(bring_back).await;
    let found = PostgresKeys::new().restored_scopes(&mut connection, 5).await.unwrap();
    assert_eq!((found.count, found.first), (2, expected));
}
