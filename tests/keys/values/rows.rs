//! Values in rows and documents: columns of both databases, JSON, keys in another database.

use super::{EMAIL, schemas, seal};
use eventseal::split::{SplitKeys, SplitStore, SplitTx};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::values::SealedValue;
use eventseal::{SealedStore, Sensitive};
use std::sync::Arc;
use support::backend::Backend;
use support::{KEYRING, Postgres, Sqlite, customer_scope};

/// A row whose columns hold one value in both forms, written and read through sqlx's own types.
macro_rules! through_a_row {
    ($db:ty, $bytes:literal, $insert:literal) => {{
        let db = <$db>::make().await;
        let store = db.prepared(schemas()).await;
        sqlx::raw_sql(concat!("CREATE TABLE customers (bytes ", $bytes, " NOT NULL, none ", $bytes, ", text TEXT)"))
            .execute(&db.pool)
            .await
            .unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        let sealed = store.seal_value(&mut tx, &customer_scope("1"), EMAIL, "Ada").await.unwrap();
        let insert = sqlx::query($insert).bind(&sealed).bind(None::<SealedValue>).bind(sealed.to_string());
        insert.execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        let (bytes, none, text): (SealedValue, Option<SealedValue>, String) =
            sqlx::query_as("SELECT bytes, none, text FROM customers").fetch_one(&db.pool).await.unwrap();
        assert_eq!((&bytes, none, &text.parse::<SealedValue>().unwrap()), (&sealed, None, &sealed));
        let mut connection = db.pool.acquire().await.unwrap();
        let opened = store.open_value(&mut connection, &customer_scope("1"), EMAIL, &bytes).await.unwrap();
        assert_eq!(opened.into_exposed().unwrap(), b"Ada", "a connection without a transaction reads");
        let refused = store.seal_value(&mut connection, &customer_scope("1"), EMAIL, "b").await.unwrap_err();
        assert!(support::fault(&refused).starts_with("NotInTransaction"), "{refused:?}");
    }};
}

#[tokio::test]
async fn a_value_is_a_column_of_bytes_or_of_text() {
    through_a_row!(Postgres, "BYTEA", "INSERT INTO customers VALUES ($1, $2, $3)");
    through_a_row!(Sqlite, "BLOB", "INSERT INTO customers VALUES (?, ?, ?)");
}

#[tokio::test]
async fn a_value_is_a_member_of_a_document() {
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Row {
        id: u32,
        email: SealedValue,
        phone: Option<SealedValue>,
    }
    let db = support::Memory::make().await;
    let store = db.prepared(schemas()).await;
    let email = seal(&db, &store, "1", b"Ada").await.unwrap();
    let row = Row { id: 7, email, phone: None };
    let text = serde_json::to_string(&row).unwrap();
    assert!(text.contains(&format!(r#""email":"{}""#, row.email)), "{text}");
    assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    assert_eq!(serde_json::from_value::<Row>(serde_json::to_value(&row).unwrap()).unwrap(), row);
    for wrong in [r#""A""#, r#""AB""#, r#""AA==""#, "7", "null", r#"["a"]"#] {
        assert!(serde_json::from_str::<SealedValue>(wrong).is_err(), "{wrong}");
    }
}

/// I6: the key is committed before the row that needs it, and a shred waits until the row is there.
#[tokio::test]
async fn i6_values_with_their_keys_in_another_database() {
    let (rows, keys) = (Sqlite::new().await, Sqlite::new().await);
    let store = SealedStore::new(
        SplitStore::new(SqliteStore::new()),
        SplitKeys::new(SqliteKeys::new()),
        Arc::clone(&KEYRING),
        schemas(),
    );
    let begin = async || SplitTx::begin(&rows.pool, &keys.pool).await.unwrap();
    store.keys().prepare(&mut begin().await).await.unwrap();
    sqlx::raw_sql("CREATE TABLE customers (email BLOB)").execute(&rows.pool).await.unwrap();
    let mut tx = begin().await;
    let sealed = store.seal_value(&mut tx, &customer_scope("1"), EMAIL, "Ada").await.unwrap();
    let insert = sqlx::query("INSERT INTO customers VALUES (?)").bind(&sealed);
    insert.execute(&mut **tx.events()).await.unwrap();
    let live = "SELECT count(*) FROM data_keys WHERE wrapped_key IS NOT NULL AND scope_kind = 'Customer'";
    assert_eq!(sqlx::query_scalar::<_, i64>(live).fetch_one(&keys.pool).await.unwrap(), 1, "committed before the row");
    tx.commit().await.unwrap();
    let stored: SealedValue = sqlx::query_scalar("SELECT email FROM customers").fetch_one(&rows.pool).await.unwrap();
    let opened = store.open_value(&mut begin().await, &customer_scope("1"), EMAIL, &stored).await.unwrap();
    assert_eq!(opened, Sensitive::Present(b"Ada".to_vec()));
    let mut tx = begin().await;
    store.keys().shred(&mut tx, &customer_scope("1"), "request").await.unwrap();
    tx.commit().await.unwrap();
    assert!(store.open_value(&mut begin().await, &customer_scope("1"), EMAIL, &stored).await.unwrap().is_redacted());
}
