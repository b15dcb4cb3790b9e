//! Lists of scopes: what is in which page.

use eventseal::error::StorageFault;
use eventseal::keys::{KeyManager, KeyStore, KeyTable, ListedScope, ScopeInfo, ScopePage, ScopeQuery, ScopeState};
use eventseal::memory::{MemoryKeys, MemoryTx};
use eventseal::{Error, KeyScope, Result};
use std::sync::Arc;
use support::backend::Backend;
use support::faults::{Faulty, KeyFaults};
use support::{KEYRING, Memory, on_every_database};

on_every_database! {
    every_page_has_what_its_query_asks_for,
}

/// The ids of so many scopes that a list with a filter needs several statements.
const MANY: usize = 1_100;

fn tenant(scope: &KeyScope) -> &'static str {
    if scope.id().ends_with('7') { "tenant_7" } else { "default" }
}

/// Makes scopes of several kinds, in each state, in two partitions, with and without keys.
async fn fill<B: Backend>(db: &B, keys: &KeyManager<B::Tx>) -> Vec<ScopeInfo> {
    let mut connection = db.connect().await.unwrap();
    keys.prepare(db.connection(&mut connection)).await.unwrap();
    keys.create_kek(db.connection(&mut connection), "tenant_7").await.unwrap();
    let info = |scope: KeyScope, state, generation, keys: u32| {
        let partition = (keys > 0).then(|| tenant(&scope).to_owned());
        ScopeInfo { scope, state, generation, last_version: (keys > 0).then_some(keys), partition }
    };
    let mut all: Vec<ScopeInfo> =
        (0..MANY).map(|number| info(KeyScope::new("Bare", format!("{number:04}")), ScopeState::Live, 1, 0)).collect();
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let bare: Vec<KeyScope> = all.iter().map(|info| info.scope.clone()).collect();
    B::Keys::default().create_scopes(tx, &bare).await.unwrap();
    for (number, kind) in ["Guest", "Customer", "customer", "\u{1f600}"].into_iter().cycle().take(40).enumerate() {
        let scope = KeyScope::new(kind, format!("id {number}"));
        keys.shred(tx, &scope, "made").await.unwrap();
        if number % 5 == 0 {
            all.push(info(scope, ScopeState::Shredded, 1, 0));
            continue;
        }
        keys.reopen(tx, &scope, "made").await.unwrap();
        if number % 3 == 0 {
            keys.rotate_data_key(tx, &scope).await.unwrap();
        }
        let versions = if number % 3 == 0 { 2 } else { 1 };
        let state = match number % 4 {
            1 => {
                keys.disable(tx, &scope, "stop").await.unwrap();
                ScopeState::Disabled
            }
            2 => {
                keys.shred(tx, &scope, "again").await.unwrap();
                ScopeState::Shredded
            }
            _ => ScopeState::Live,
        };
        all.push(info(scope, state, 2, versions));
    }
    db.commit(transaction).await.unwrap();
    all.sort_by(|a, b| a.scope.cmp(&b.scope));
    all
}

async fn every_page_has_what_its_query_asks_for<B: Backend>() {
    let db = B::make().await;
    let keys = db.keys().kek_partition(|scope| tenant(scope).to_owned()).build();
    let all = fill(&db, &keys).await;
    let mut connection = db.connect().await.unwrap();
    let states = [None, Some(ScopeState::Live), Some(ScopeState::Disabled), Some(ScopeState::Shredded)];
    for (kind, limit) in [
        (None, 70),
        (None, 5_000),
        (Some("Customer"), 3),
        (Some("Guest"), 10),
        (Some("customer"), 0),
        (Some("Gone"), 9),
    ] {
        for (state, partition) in states.into_iter().flat_map(|state| [None, Some("tenant_7")].map(|of| (state, of))) {
            let wanted = |info: &&ScopeInfo| {
                kind.is_none_or(|kind| info.scope.kind() == kind)
                    && state.is_none_or(|state| info.state == state)
                    && partition.is_none_or(|partition| info.partition.as_deref() == Some(partition))
            };
            let expected: Vec<&ScopeInfo> = all.iter().filter(wanted).collect();
            let mut query = ScopeQuery::default();
            (query.kind, query.partition) = (kind.map(str::to_owned), partition.map(str::to_owned));
            (query.state, query.limit) = (state, limit);
            let pages: Vec<&[&ScopeInfo]> = expected.chunks(limit.max(1) as usize).collect();
            for (number, page) in pages.iter().enumerate() {
                let found = keys.scopes(db.connection(&mut connection), &query).await.unwrap();
                assert_eq!(found.scopes.iter().collect::<Vec<_>>(), *page, "{query:?}");
                let next = page.last().map(|last| last.scope.clone()).filter(|_| number + 1 < pages.len());
                assert_eq!(found.next, next, "{query:?}: there is a next page, or there is none");
                query.after = found.next;
            }
            if pages.is_empty() {
                let found = keys.scopes(db.connection(&mut connection), &query).await.unwrap();
                assert_eq!(found, ScopePage::default(), "{query:?}");
            }
        }
    }
    let mut query = ScopeQuery::default();
    query.kind = Some("Customer".to_owned());
    for (after, count) in [("Bare", 10), ("Guest", 0)] {
        query.after = Some(KeyScope::new(after, "0500"));
        let found = keys.scopes(db.connection(&mut connection), &query).await.unwrap();
        assert_eq!(found.scopes.len(), count, "after a scope of another kind: {after}");
    }
}

/// A key table that never comes to the end of a list.
struct Standing(MemoryKeys);

#[async_trait::async_trait]
impl KeyFaults for Standing {
    type Inner = MemoryKeys;

    fn inner(&self) -> &MemoryKeys {
        &self.0
    }

    async fn scopes_from(&self, tx: &mut MemoryTx, _: &KeyScope, limit: u32) -> Result<Vec<ListedScope>> {
        self.0.scopes_from(tx, &KeyScope::new("", ""), limit).await
    }
}

#[tokio::test]
async fn a_list_that_does_not_come_to_its_end_is_an_error() {
    let db = Memory::make().await;
    fill(&db, &db.keys().kek_partition(|scope| tenant(scope).to_owned()).build()).await;
    let keys = KeyManager::new(Faulty(Standing(MemoryKeys::new())), Arc::clone(&KEYRING));
    let mut query = ScopeQuery::default();
    query.state = Some(ScopeState::Disabled);
    let refused = keys.scopes(&mut db.0.begin(), &query).await;
    assert!(matches!(refused, Err(Error::Storage(StorageFault::InvalidRow { .. }))), "{refused:?}");
}
