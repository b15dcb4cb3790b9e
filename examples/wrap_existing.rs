//! A service has stored its events in PostgreSQL in the clear for years. Now it wraps its store, without changing it:
//! new events are sealed, in the same streams as the old ones.
//!
//! `cargo run --example wrap_existing --features postgres`
//!
//! It runs on `DATABASE_URL`, in a schema of its own that it drops again. Without that variable it runs on a temporary
//! cluster, if PostgreSQL is installed. Everything that it prints is asserted too.

// The temporary cluster of the tests. A service has a DATABASE_URL instead.
#[allow(dead_code, unreachable_pub, reason = "tests use the rest")]
#[path = "../tests/support/cluster.rs"]
mod cluster;

use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{
    EventStore, EventStoreExt, KeyScope, Keyring, Namespace, NewEvent, PersistedEvent, Result, Schemas, SealedStore,
    Sensitive, Stream, aggregate, event, subject,
};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};

type BoxResult<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Serialize, Deserialize)]
struct ContactChanged {
    customer_id: String,
    email: Sensitive<String>,
    newsletter: bool,
}

impl ContactChanged {
    fn new(email: &str, newsletter: bool) -> Self {
        Self { customer_id: "cust_42".into(), email: email.into(), newsletter }
    }
}

/// The tables of eventsalsa/store, with events of code that knows nothing of eventseal.
async fn years_before(connection: &mut PgConnection) -> BoxResult {
    connection
        .execute(
            r#"
            CREATE TABLE events (
                global_position BIGSERIAL PRIMARY KEY, aggregate_type TEXT NOT NULL, aggregate_id TEXT NOT NULL,
                aggregate_version BIGINT NOT NULL, event_id UUID NOT NULL UNIQUE, event_type TEXT NOT NULL,
                event_version INT NOT NULL DEFAULT 1, payload BYTEA NOT NULL, trace_id TEXT, correlation_id TEXT,
                causation_id TEXT, metadata JSONB, created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
                UNIQUE (aggregate_type, aggregate_id, aggregate_version));
            CREATE TABLE aggregate_heads (
                aggregate_type TEXT NOT NULL, aggregate_id TEXT NOT NULL, aggregate_version BIGINT NOT NULL,
                updated_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (aggregate_type, aggregate_id));
            INSERT INTO events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, payload) VALUES
                ('Customer', 'cust_42', 1, gen_random_uuid(), 'ContactChanged',
                    convert_to('{"customer_id":"cust_42","email":"ada@example.org","newsletter":false}', 'UTF8')),
                ('Customer', 'cust_42', 2, gen_random_uuid(), 'ContactChanged',
                    convert_to('{"customer_id":"cust_42","email":"ada@example.net","newsletter":true}', 'UTF8'));
            INSERT INTO aggregate_heads (aggregate_type, aggregate_id, aggregate_version)
                VALUES ('Customer', 'cust_42', 2);
            "#,
        )
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> BoxResult {
    let schema = format!("wrap_existing_{}", std::process::id());
    let options = cluster::server().options([("search_path", schema.as_str())]);
    let pool = PgPoolOptions::new().max_connections(4).connect_with(options).await?;
    pool.execute(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await?;
    let told = tell(&pool).await;
    pool.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await?;
    told
}

async fn tell(pool: &PgPool) -> BoxResult {
    let customer = aggregate("Customer", "cust_42");

    chapter("A store as it was for years");
    years_before(&mut *pool.acquire().await?).await?;
    for row in rows(pool).await? {
        println!("  {row}");
    }
    println!();
    say("Two events in the tables of eventsalsa/store, in the clear.");

    chapter("It is wrapped");
    // Three things are new: key tables beside the events, a master key elsewhere, and a schema for each protected
    // type. Events that were stored before are accepted in plaintext.
    let keys = PostgresKeys::new();
    keys.migrate(&mut *pool.acquire().await?, &Namespace::new("wrap-existing")?).await?;
    let schemas = Schemas::builder([event("ContactChanged")
        .version(1)
        .protect(&["/email"], subject("Customer", "/customer_id"))])
    .accept_plaintext("ContactChanged")
    .build()?;
    let store = SealedStore::new(PostgresStore::new(), keys, Keyring::generate("main")?, schemas);
    store.keys().prepare(&mut *pool.acquire().await?).await?;
    say("Only the key tables were added. No event was touched.");

    chapter("New events join the old stream");
    let mut tx = pool.begin().await?;
    let stream = store.read_stream(&mut tx, &customer).await?;
    let changed = NewEvent::json("ContactChanged", 1, &ContactChanged::new("ada@example.com", true))?;
    store.append(&mut tx, &customer, stream.expected_version(), &[changed]).await?;
    tx.commit().await?;
    let stored = rows(pool).await?;
    for row in &stored {
        println!("  {}", shortened(row));
    }
    assert!(stored[1].contains("ada@example.net") && !stored[2].contains("ada@example.com"));
    println!();
    let stream = store.read_stream(&mut *pool.acquire().await?, &customer).await?;
    assert_eq!(emails(&stream)?, ["ada@example.org", "ada@example.net", "ada@example.com"]);
    say(&format!("A reader sees one stream: {}.", emails(&stream)?.join(", ")));

    chapter("The customer asks to be forgotten");
    let mut tx = pool.begin().await?;
    let shredding = store.keys().shred(&mut tx, &KeyScope::new("Customer", "cust_42"), "erasure request 118").await?;
    tx.commit().await?;
    assert_eq!(shredding.destroyed.len(), 1);
    let stream = store.read_stream(&mut *pool.acquire().await?, &customer).await?;
    assert_eq!(emails(&stream)?, ["ada@example.org", "ada@example.net", "[erased]"]);
    assert_eq!(rows(pool).await?, stored, "a shred rewrites no event");
    say(&format!("One key destroyed, no row rewritten. A reader sees: {}.", emails(&stream)?.join(", ")));
    say(
        "What was stored in the clear before the store was wrapped still is: it has to be sealed first, or removed by \
         hand.",
    );

    let mut tx = pool.begin().await?;
    let changed = NewEvent::json("ContactChanged", 1, &ContactChanged::new("ada@example.edu", false))?;
    let refused = store
        .append(&mut tx, &customer, stream.expected_version(), &[changed])
        .await
        .expect_err("the customer is gone");
    assert!(refused.is_shredded());
    say(&format!("A new event for the same customer is refused: {refused}."));

    println!("\nThat was all of it. The code is in examples/wrap_existing.rs.");
    Ok(())
}

fn emails(stream: &Stream) -> Result<Vec<String>> {
    let email = |event: &PersistedEvent| {
        let changed: ContactChanged = event.decode()?;
        Ok(changed.email.expose().cloned().unwrap_or_else(|| "[erased]".to_owned()))
    };
    stream.events.iter().map(email).collect()
}

/// The stored rows.
async fn rows(pool: &PgPool) -> BoxResult<Vec<String>> {
    let sql = "SELECT 'version ' || aggregate_version || '  ' || event_type || '  ' || convert_from(payload, 'UTF8') \
        FROM events ORDER BY 1";
    Ok(sqlx::query_scalar(sql).fetch_all(pool).await?)
}

/// The row, with long words shortened.
fn shortened(row: &str) -> String {
    let cut = |word: &str| {
        if word.len() > 40 && word.is_ascii() {
            format!("{}…{}", &word[..10], &word[word.len() - 6..])
        } else {
            word.to_owned()
        }
    };
    row.split('"').map(cut).collect::<Vec<_>>().join("\"")
}

fn chapter(title: &str) {
    println!("\n── {title} {}\n", "─".repeat(70_usize.saturating_sub(title.chars().count())));
}

fn say(text: &str) {
    println!("  {text}");
}
