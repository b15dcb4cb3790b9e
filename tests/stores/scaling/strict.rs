//! A shred that no standby outlives: its commit waits until the standby shows it (invariant I5).

use super::page;
use super::servers::{Pair, connect};
use super::{Store, append, process, shows};
use eventseal::keys::ShredRequest;
use eventseal::postgres::PostgresStore;
use eventseal::{KeyScope, SealedStore};
use sqlx::{AssertSqlSafe, Executor, PgPool, Row};
use support::{Deadline, customer_scope, in_time};

async fn shred_on_standbys_too(
    store: &SealedStore<PostgresStore>,
    pool: &PgPool,
    customer: &KeyScope,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut tx = pool.begin().await?;
    sqlx::query("SET LOCAL synchronous_commit = remote_apply").execute(&mut *tx).await?;
    store.keys().shred(&mut tx, customer, "request 118").await?;
    tx.commit().await?;
    Ok(())
}

/// As the page says: the standby counts.
async fn wait_for_standbys(pair: &Pair) {
    let mut admin = pair.primary().await;
    for statement in page::statements("ALTER SYSTEM SET synchronous_standby_names") {
        admin.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    let sql = "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'sync'";
    let deadline = Deadline::of("for a synchronous standby");
    while !sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut admin).await.unwrap() {
        deadline.look_again().await;
    }
    // Sessions that begin now have the new setting.
    while pair.primary().await.fetch_one("SHOW synchronous_standby_names").await.unwrap().get::<&str, _>(0).is_empty() {
        deadline.look_again().await;
    }
}

#[tokio::test]
async fn i5_a_shred_that_waits_for_the_standby_is_seen_there_when_its_commit_returns() {
    let (pair, store) = Pair::prepared().await;
    page::has("async fn shred_on_standbys_too", include_str!("strict.rs"));
    let (mut primary, mut standby) = (pair.primary().await, pair.standby().await);
    let ids: Vec<String> = (0..12).map(|id| id.to_string()).collect();
    for id in &ids {
        append(&mut primary, &store, id).await.unwrap();
    }
    wait_for_standbys(&pair).await;
    pair.replayed().await;
    let pool = PgPool::connect_lazy_with(pair.options());

    // While the standby shows the old state, the commit does not return. Nobody sees the shred on the primary either.
    pair.pause().await;
    let scope = customer_scope("0");
    let shredding = shred_on_standbys_too(&store, &pool, &scope);
    let meanwhile = async {
        pair.commit_waits().await;
        let reader = process();
        assert!(shows(&mut standby, &reader, "0").await.unwrap() && shows(&mut primary, &reader, "0").await.unwrap());
        pair.replay().await;
    };
    let (shredded, ()) = in_time("for the commit", async { tokio::join!(shredding, meanwhile) }).await;
    shredded.unwrap();
    assert!(!shows(&mut standby, &process(), "0").await.unwrap(), "the commit has returned");

    // Without any pause, many times: whoever was told that it is done finds it done.
    let reader: Store = process();
    for id in &ids[1..11] {
        assert!(shows(&mut standby, &reader, id).await.unwrap());
        shred_on_standbys_too(&store, &pool, &customer_scope(id)).await.unwrap();
        assert!(!shows(&mut standby, &reader, id).await.unwrap(), "customer {id}");
    }

    // Whoever cancels the wait gets a commit that did not wait.
    pair.pause().await;
    let scope = customer_scope("11");
    let shredding = shred_on_standbys_too(&store, &pool, &scope);
    let meanwhile = async {
        let pid = pair.commit_waits().await;
        sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut pair.primary().await).await.unwrap();
    };
    let (shredded, ()) = in_time("for the commit", async { tokio::join!(shredding, meanwhile) }).await;
    shredded.expect("PostgreSQL answers with a warning, and no error");
    assert!(!shows(&mut primary, &reader, "11").await.unwrap());
    assert!(shows(&mut standby, &reader, "11").await.unwrap(), "it was committed on the primary only");
    pair.replay().await;
    pair.replayed().await;
    assert!(!shows(&mut standby, &reader, "11").await.unwrap());
}

/// The command, and every call that commits by itself, take the setting of the session.
#[tokio::test]
async fn i5_the_setting_of_a_role_makes_all_its_shreds_wait_for_the_standby() {
    let (pair, store) = Pair::prepared().await;
    let (mut primary, mut standby) = (pair.primary().await, pair.standby().await);
    append(&mut primary, &store, "1").await.unwrap();
    primary.execute("DROP ROLE IF EXISTS shop_eraser; CREATE ROLE shop_eraser SUPERUSER LOGIN").await.unwrap();
    primary.execute(AssertSqlSafe(page::sql("ALTER ROLE shop_eraser"))).await.unwrap();
    wait_for_standbys(&pair).await;
    pair.replayed().await;
    let mut eraser = connect(&pair.options().username("shop_eraser")).await;
    pair.pause().await;
    let requests = [ShredRequest { scope: customer_scope("1"), reason: "request 118".to_owned() }];
    let shredding = async {
        store.keys().shred_many(&mut eraser, &requests, &mut |_| {}).await.unwrap();
        shows(&mut standby, &process(), "1").await.unwrap()
    };
    let meanwhile = async {
        pair.commit_waits().await;
        pair.replay().await;
    };
    let (shown, ()) = in_time("for the commit", async { tokio::join!(shredding, meanwhile) }).await;
    assert!(!shown);
}
