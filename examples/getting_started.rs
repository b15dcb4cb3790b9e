//! A tour of eventseal: a customer places an order, the code of the shop changes, keys are rotated, and the customer
//! asks to be forgotten. `cargo run --example getting_started` runs it on a temporary SQLite file.
//!
//! Everything that it prints is asserted too.

use async_trait::async_trait;
use eventseal::ExpectedVersion::{Exact, NoStream};
use eventseal::consumer::{Consumer, run_consumers};
use eventseal::error::BoxError;
use eventseal::keys::ScopeState;
use eventseal::schema::SchemaErrors;
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{
    Event, EventPart, EventStore, EventStoreExt, Events, Keyring, Namespace, NewEvent, PersistedEvent, Result, Schemas,
    Scope, SealedStore, Sensitive, Stream, aggregate,
};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{Row, SqliteConnection};
use time::format_description::well_known::Rfc3339;

type BoxResult<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

// ---- the events of the shop. What is Sensitive is protected; the attributes say whose it is.

/// The kind of key scope is the customer everywhere: an `Order` names the customer in its payload, and a `Customer`
/// aggregate is the customer.
#[derive(Scope)]
#[scope("Customer")]
struct Customer;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "OrderPlaced", version = 2, owner = Customer(customer_id), previous = OrderPlacedV1)]
struct OrderPlaced {
    customer_id: String,
    customer: Person,
    shipping_address: Sensitive<String>,
}

#[derive(Serialize, Deserialize, EventPart)]
struct Person {
    name: Sensitive<String>,
    email: Sensitive<String>,
}

/// Version 1 of `OrderPlaced`, as last year's code wrote it.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "OrderPlaced", version = 1, owner = Customer(customer_id))]
struct OrderPlacedV1 {
    customer_id: String,
    name: Sensitive<String>,
    email: Sensitive<String>,
    address: Sensitive<String>,
}

impl From<OrderPlacedV1> for OrderPlaced {
    fn from(old: OrderPlacedV1) -> Self {
        Self {
            customer_id: old.customer_id,
            customer: Person { name: old.name, email: old.email },
            shipping_address: old.address,
        }
    }
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "OrderLineAdded", version = 1)]
struct OrderLineAdded {
    title: String,
    quantity: u32,
    cents_each: u32,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "OrderConfirmed", version = 1)]
struct OrderConfirmed {
    total_cents: u32,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "CustomerRegistered", version = 1, owner = aggregate(Customer))]
struct CustomerRegistered {
    name: Sensitive<String>,
    email: Sensitive<String>,
}

#[derive(Events)]
enum OrderEvent {
    Placed(OrderPlaced),
    LineAdded(OrderLineAdded),
    Confirmed(OrderConfirmed),
}

fn schemas() -> std::result::Result<Schemas, SchemaErrors> {
    Schemas::of::<OrderEvent>().and_of::<CustomerRegistered>().build()
}

/// The schemas of last year's code.
fn last_years_schemas() -> std::result::Result<Schemas, SchemaErrors> {
    Schemas::of::<OrderPlacedV1>().and_of::<OrderLineAdded>().build()
}

// ---- a read model, which is updated in the same transaction

struct OrderOverview;

#[async_trait]
impl Consumer<SqliteConnection> for OrderOverview {
    fn name(&self) -> &str {
        "order_overview_v1"
    }

    fn aggregate_types(&self) -> Option<&[&str]> {
        Some(&["Order"])
    }

    async fn handle(&self, tx: &mut SqliteConnection, event: &PersistedEvent) -> std::result::Result<(), BoxError> {
        let (customer, lines, cents, status) = match OrderEvent::decode(event)? {
            OrderEvent::Placed(placed) => (Some(placed.customer_id), 0, 0, "placed"),
            OrderEvent::LineAdded(line) => (None, 1, line.quantity * line.cents_each, "placed"),
            OrderEvent::Confirmed(_) => (None, 0, 0, "confirmed"),
        };
        // The column `version` makes this idempotent: an event is not counted twice.
        sqlx::query(
            "INSERT INTO order_overview_v1 (order_id, customer_id, lines, cents, status, version)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (order_id) DO UPDATE SET lines = lines + excluded.lines, cents = cents + excluded.cents,
                 status = excluded.status, version = excluded.version
             WHERE excluded.version > version",
        )
        .bind(event.aggregate.aggregate_id())
        .bind(customer)
        .bind(lines)
        .bind(cents)
        .bind(status)
        .bind(event.aggregate_version.get())
        .execute(tx)
        .await?;
        Ok(())
    }
}

// ---- an aggregate, rebuilt from its events

#[derive(Default)]
struct Order {
    customer: Option<Person>,
    address: Option<Sensitive<String>>,
    lines: usize,
    total_cents: u32,
    confirmed: bool,
}

impl Order {
    fn rebuild(stream: &Stream) -> Result<Self> {
        let mut order = Self::default();
        for event in stream.decode::<OrderEvent>()? {
            match event {
                OrderEvent::Placed(placed) => {
                    order.customer = Some(placed.customer);
                    order.address = Some(placed.shipping_address);
                }
                OrderEvent::LineAdded(line) => {
                    order.lines += 1;
                    order.total_cents += line.quantity * line.cents_each;
                }
                OrderEvent::Confirmed(_) => order.confirmed = true,
            }
        }
        Ok(order)
    }

    fn tell(&self) -> String {
        let show = |value: Option<&Sensitive<String>>| {
            value.and_then(Sensitive::expose).cloned().unwrap_or_else(|| "[erased]".to_owned())
        };
        let customer = self.customer.as_ref();
        format!(
            "{} line{}, {}, {} | {} <{}>, {}",
            self.lines,
            if self.lines == 1 { "" } else { "s" },
            euros(self.total_cents),
            if self.confirmed { "confirmed" } else { "open" },
            show(customer.map(|customer| &customer.name)),
            show(customer.map(|customer| &customer.email)),
            show(self.address.as_ref()),
        )
    }
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::too_many_lines, reason = "a story, told from its beginning to its end")]
async fn main() -> BoxResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("shop.db");
    let pool = SqlitePoolOptions::new()
        .connect_with(SqliteConnectOptions::new().filename(&file).create_if_missing(true))
        .await?;

    chapter("A shop opens");
    // Run the migrations once: for the event log, the key tables with their namespace, and the shop's own read model.
    let keys = SqliteKeys::new();
    let mut connection = pool.acquire().await?;
    SqliteStore::new().migrate(&mut connection).await?;
    keys.migrate(&mut connection, &Namespace::new("getting-started")?).await?;
    sqlx::query(
        "CREATE TABLE order_overview_v1 (order_id TEXT PRIMARY KEY, customer_id TEXT, lines INTEGER, cents INTEGER, \
         status TEXT, version INTEGER)",
    )
    .execute(&mut *connection)
    .await?;
    // The master key stays outside the database. A real service would use a KMS, or a keyring on another disk.
    let keyring = || Keyring::from_file(folder.path().join("keyring"));
    Keyring::create_file(folder.path().join("keyring"), "main")?;
    let store = SealedStore::new(SqliteStore::new(), keys.clone(), keyring()?, schemas()?);
    store.keys().prepare(&mut connection).await?;
    drop(connection);
    say("One SQLite file holds events and wrapped keys. The key that wraps them is in a keyring beside it.");

    let customer = aggregate("Customer", "cust_42");
    let order = aggregate("Order", "ord_123");
    let old_order = aggregate("Order", "ord_7");

    // Last year, other code ran on the same tables.
    let last_years_store = SealedStore::new(SqliteStore::new(), keys, keyring()?, last_years_schemas()?);
    let placed = OrderPlacedV1 {
        customer_id: "cust_42".into(),
        name: "Ada Lovelace".into(),
        email: "ada@example.org".into(),
        address: "12 St James's Square, London".into(),
    };
    let mut tx = pool.begin().await?;
    let events = [NewEvent::of(&placed)?, NewEvent::of(&line("Punched cards", 500, 4))?];
    last_years_store.append(&mut tx, &old_order, NoStream, &events).await?;
    tx.commit().await?;
    say("Last year it sold 500 punched cards. Its code wrote OrderPlaced version 1.");

    chapter("An order, all in one transaction");
    let registered = CustomerRegistered { name: "Ada Lovelace".into(), email: "ada@example.org".into() };
    let placed = OrderPlaced {
        customer_id: "cust_42".into(),
        customer: Person { name: "Ada Lovelace".into(), email: "ada@example.org".into() },
        shipping_address: "12 St James's Square, London".into(),
    };
    let events = [
        NewEvent::of(&placed)?,
        NewEvent::of(&line("Analytical engine, used", 1, 1_725_000))?,
        NewEvent::of(&line("Machine oil", 3, 250))?,
        NewEvent::of(&OrderConfirmed { total_cents: 1_725_750 })?,
    ];
    let mut tx = pool.begin().await?;
    store.append(&mut tx, &customer, NoStream, &[NewEvent::of(&registered)?]).await?;
    let appended = store.append_and_consume(&mut tx, &order, NoStream, &events, &[&OrderOverview]).await?;
    // The read model is idempotent, so handling the events again changes nothing.
    run_consumers(&mut *tx, &appended.events, &[&OrderOverview]).await?;
    tx.commit().await?;
    let overview = overview(&pool).await?;
    assert_eq!(overview, "ord_123 of cust_42: 2 lines, 17257.50 €, confirmed, version 4");
    say(&format!("Appended versions 1 to {}; the inline projection says: {overview}.", appended.last_version()));

    let mut connection = pool.acquire().await?;
    let mut tx = pool.begin().await?;
    let error = store.append(&mut tx, &order, NoStream, &events).await.expect_err("the order exists");
    assert!(error.is_conflict());
    tx.rollback().await?;
    say(&format!("Appending it again is refused: {error}."));

    chapter("What lies in the database, and what a reader sees");
    let stored = stored_payload(&mut connection, "ord_123").await?;
    assert!(!stored.contains("Ada") && !stored.contains("ada@example.org") && !stored.contains("St James"));
    let whole = store.read_stream(&mut connection, &order).await?;
    assert_eq!(whole.events[0].payload, events[0].payload(), "byte for byte what was appended");
    let read = String::from_utf8(whole.events[0].payload.clone())?;
    println!("  in the database   {}\n", shortened(&stored));
    println!("  to the reader     {read}\n");
    say("Still JSON, still the same shape: only the protected values are replaced, where they stand.");

    let part = store.read_aggregate_stream(&mut connection, &order, (2..=4).into()).await?;
    let types: Vec<&str> = part.events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["OrderLineAdded", "OrderLineAdded", "OrderConfirmed"]);
    say(&format!("The whole stream has {} events; versions 2 to 4 are {}.", whole.events.len(), types.join(", ")));
    let rebuilt = Order::rebuild(&whole)?.tell();
    assert_eq!(
        rebuilt,
        "2 lines, 17257.50 €, confirmed | Ada Lovelace <ada@example.org>, 12 St James's Square, London"
    );
    say(&format!("The aggregate, rebuilt: {rebuilt}."));

    chapter("Last year's event, read by this year's code");
    let old = store.read_stream(&mut connection, &old_order).await?;
    let first = &old.events[0];
    assert_eq!((first.stored_version.get(), first.event_version.get()), (1, 2));
    assert_eq!(first.decode::<OrderPlaced>()?.customer.name.expose().map(String::as_str), Some("Ada Lovelace"));
    say(&format!(
        "Stored as {} version {}, read as version {}: {}.",
        first.stored_type,
        first.stored_version,
        first.event_version,
        Order::rebuild(&old)?.tell()
    ));

    chapter("A data key is rotated");
    let scope = Customer::scope("cust_42");
    let mut tx = pool.begin().await?;
    let rotated = store.keys().rotate_data_key(&mut tx, &scope).await?;
    let address = OrderPlaced { shipping_address: "Ockham Park, Surrey".into(), ..placed };
    let third_order = aggregate("Order", "ord_124");
    store.append(&mut tx, &third_order, NoStream, &[NewEvent::of(&address)?]).await?;
    tx.commit().await?;
    assert_eq!(rotated.version, 2);
    assert_eq!(Order::rebuild(&store.read_stream(&mut connection, &order).await?)?.tell(), rebuilt);
    say("New events are sealed under key version 2. Old ones still open under version 1; none was touched.");

    chapter("The customer asks to be forgotten");
    let mut tx = pool.begin().await?;
    let shredding = store.keys().shred(&mut tx, &scope, "erasure request 118").await?;
    tx.commit().await?;
    assert_eq!(shredding.destroyed.len(), 2);
    say(&format!(
        "Shredded {scope}: {} keys destroyed (one was rotated), not one event rewritten.",
        shredding.destroyed.len()
    ));
    for (aggregate, expected) in [
        (&order, "2 lines, 17257.50 €, confirmed | [erased] <[erased]>, [erased]"),
        (&old_order, "1 line, 20.00 €, open | [erased] <[erased]>, [erased]"),
        (&third_order, "0 lines, 0.00 €, open | [erased] <[erased]>, [erased]"),
    ] {
        let told = Order::rebuild(&store.read_stream(&mut connection, aggregate).await?)?.tell();
        assert_eq!(told, expected);
        println!("  {:<18} {told}", aggregate.to_string());
    }
    let event = store.read_stream(&mut connection, &customer).await?.events.remove(0);
    assert_eq!(event.payload, br#"{"name":null,"email":null}"#);
    assert!(event.decode::<CustomerRegistered>()?.name.is_redacted());
    println!("  {:<18} {}\n", customer.to_string(), String::from_utf8_lossy(&event.payload));
    say("The orders still add up; the person is gone from every aggregate.");

    let mut tx = pool.begin().await?;
    let more = NewEvent::of(&address)?;
    let error =
        store.append(&mut tx, &aggregate("Order", "ord_125"), NoStream, &[more]).await.expect_err("the keys are gone");
    assert!(error.is_shredded());
    say(&format!("A new order for the same customer is refused: {error}."));
    // Events without personal data can still be appended.
    let late = NewEvent::of(&line("Spare gear", 1, 900))?;
    store.append(&mut tx, &old_order, Exact(old.events[1].aggregate_version), &[late]).await?;
    tx.commit().await?;

    let history = store.keys().key_history(&mut connection, &scope).await?.expect("the scope is known");
    assert_eq!(history.state, ScopeState::Shredded);
    assert!(history.keys.iter().all(|key| key.shredded_at == Some(shredding.at)));
    let at = shredding.at.format(&Rfc3339)?;
    assert!(at.contains('T') && at.ends_with('Z'), "{at}");
    say(&format!(
        "The proof, kept for good: {} keys destroyed at {}, for {:?}.",
        history.keys.len(),
        at,
        history.entries[0].reason
    ));
    println!("\nThat was all of it. The code is in examples/getting_started.rs.");
    Ok(())
}

// ---- helpers for printing

fn chapter(title: &str) {
    println!("\n── {title} {}\n", "─".repeat(70_usize.saturating_sub(title.chars().count())));
}

fn say(text: &str) {
    println!("  {text}");
}

fn line(title: &str, quantity: u32, cents_each: u32) -> OrderLineAdded {
    OrderLineAdded { title: title.to_owned(), quantity, cents_each }
}

fn euros(cents: u32) -> String {
    format!("{}.{:02} €", cents / 100, cents % 100)
}

async fn overview(pool: &SqlitePool) -> BoxResult<String> {
    let row = sqlx::query("SELECT order_id, customer_id, lines, cents, status, version FROM order_overview_v1")
        .fetch_one(pool)
        .await?;
    let (id, customer, lines): (String, String, u32) = (row.get(0), row.get(1), row.get(2));
    let (cents, status, version): (u32, String, i64) = (row.get(3), row.get(4), row.get(5));
    Ok(format!("{id} of {customer}: {lines} lines, {}, {status}, version {version}", euros(cents)))
}

async fn stored_payload(connection: &mut SqliteConnection, order: &str) -> BoxResult<String> {
    let payload: Vec<u8> =
        sqlx::query_scalar("SELECT payload FROM events WHERE aggregate_id = ?1 AND aggregate_version = 1")
            .bind(order)
            .fetch_one(connection)
            .await?;
    Ok(String::from_utf8(payload)?)
}

/// Shortens long tokens to their first and last characters.
fn shortened(payload: &str) -> String {
    let shorten = |token: &str| {
        if token.len() > 40 { format!("{}…{}", &token[..12], &token[token.len() - 6..]) } else { token.to_owned() }
    };
    payload.split('"').map(shorten).collect::<Vec<_>>().join("\"")
}
