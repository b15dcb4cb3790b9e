//! A key database for each tenant: tables, a namespace and a store of its own.

use super::page;
use super::{append, schemas, shows, shred};
use eventseal::error::{EventFault, SetUpFault};
use eventseal::keys::KeyManager;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{Error, EventStoreExt, Keyring, Namespace, Result, Schemas, SealedStore, aggregate};
use std::sync::Arc;
use support::{KEYRING, Postgres, customer_scope};

fn store_of(tenant: &str, keyring: &Arc<Keyring>, schemas: Schemas) -> Result<SealedStore<PostgresStore>> {
    let keys = PostgresKeys::new().in_schema(&format!("keys_of_{tenant}"))?;
    let keys = KeyManager::builder(keys, Arc::clone(keyring)).for_namespace(Namespace::new(tenant)?).build();
    Ok(SealedStore::with_keys(PostgresStore::new(), keys, schemas))
}

/// Two tenants, whose events are in one table.
#[tokio::test]
async fn i3_tenants_with_keys_of_their_own_read_and_shred_their_own_alone() {
    page::has("fn store_of", include_str!("tenants.rs"));
    let db = Postgres::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    PostgresStore::new().migrate(&mut connection).await.unwrap();
    let mut stores = Vec::new();
    for tenant in ["acme", "globex"] {
        let keys = PostgresKeys::new().in_schema(&format!("keys_of_{tenant}")).unwrap();
        keys.migrate(&mut connection, &Namespace::new(tenant).unwrap()).await.unwrap();
        let store = store_of(tenant, &KEYRING, schemas()).unwrap();
        store.keys().prepare(&mut connection).await.unwrap();
        stores.push(store);
    }
    let [acme, globex] = &stores[..] else { unreachable!() };
    // Both have a customer 1. Their scopes are two.
    append(&mut connection, acme, "1").await.unwrap();
    let mut tx = sqlx::Connection::begin(&mut *connection).await.unwrap();
    let order = aggregate("Order", "of globex");
    eventseal::EventStore::append(globex, &mut tx, &order, eventseal::ExpectedVersion::Any, &[super::placed("1")])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let strange = acme.read_stream(&mut connection, &order).await;
    assert!(
        matches!(&strange, Err(Error::Event { fault: EventFault::MissingKey { .. }, .. })),
        "another tenant's event is an error, and no redaction: {strange:?}"
    );
    shred(&mut connection, acme, "1").await.unwrap();
    assert!(!shows(&mut connection, acme, "1").await.unwrap());
    assert!(!globex.read_stream(&mut connection, &order).await.unwrap().events[0].is_redacted());
    assert!(globex.keys().key_history(&mut connection, &customer_scope("1")).await.unwrap().is_some());
    // A tenant whose keys are looked for in the wrong place is refused.
    let lost = PostgresKeys::new().in_schema("keys_of_globex").unwrap();
    let lost = KeyManager::builder(lost, Arc::clone(&KEYRING)).for_namespace(Namespace::new("acme").unwrap()).build();
    let refused = lost.prepare(&mut connection).await;
    assert!(matches!(refused, Err(Error::SetUp(SetUpFault::NamespaceMismatch { .. }))), "{refused:?}");
}
