//! Schema evolution: four releases of a shop, each with other events for an order, use one log that is never rewritten.
//! Between the second and the third release, a customer asks to be forgotten. `cargo run --example schema_evolution`
//! runs it on a temporary SQLite file.
//!
//! Everything that it prints is asserted too.

use eventseal::ExpectedVersion::NoStream;
use eventseal::maintenance::{Answer, CensusOptions};
use eventseal::schema::{SchemaErrors, SplitPart};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{
    Changes, Event, EventFilter, EventStore, GlobalPosition, KeyScope, Keyring, Namespace, NewEvent, Schemas,
    SealedStore, Sensitive, aggregate, event, subject,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::convert::Infallible;
use std::sync::Arc;

type BoxResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

// ---- the events of release 4

#[derive(Debug, Serialize, Deserialize)]
struct OrderSubmitted {
    customer_id: String,
    contact: Contact,
    total_cents: u64,
    currency: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Contact {
    name: Sensitive<String>,
    email: Sensitive<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct InvoiceRequested {
    customer_id: String,
    send_to: Sensitive<String>,
    total_cents: u64,
}

impl Event for OrderSubmitted {
    const TYPE: &'static str = "OrderSubmitted";
    const VERSION: u32 = 4;
}

impl Event for InvoiceRequested {
    const TYPE: &'static str = "InvoiceRequested";
    const VERSION: u32 = 1;
}

/// What happens to an order.
#[derive(Debug, eventseal::Events)]
enum OrderEvent {
    Submitted(OrderSubmitted),
    InvoiceRequested(InvoiceRequested),
}

// ---- older payloads that a step reads as a Rust type

#[derive(Serialize, Deserialize)]
struct OrderPlacedV2 {
    customer_id: String,
    name: Sensitive<String>,
    contact: ContactV2,
    total_cents: u64,
    currency: String,
}

#[derive(Serialize, Deserialize)]
struct ContactV2 {
    email: Sensitive<String>,
}

impl From<OrderPlacedV2> for OrderSubmitted {
    fn from(old: OrderPlacedV2) -> Self {
        let contact = Contact { name: old.name.map(|name| name.trim().to_owned()), email: old.contact.email };
        Self { customer_id: old.customer_id, contact, total_cents: old.total_cents, currency: old.currency }
    }
}

/// The schemas of a release. Each release knows all versions before it.
fn schemas(release: u32) -> Result<Schemas, SchemaErrors> {
    let customer = || subject("Customer", "/customer_id");
    let mut placed = event("OrderPlaced").version(1).protect(&["/name", "/email"], customer());
    if release >= 2 {
        // A declarative step. Building the schemas checks that the protected value at /email moves to a protected
        // place.
        placed = placed.version(2).protect(&["/name", "/contact/email"], customer()).change(
            1,
            Changes::new()
                .move_value("/email", "/contact/email")
                .map_value("/total", |euros: f64| (euros * 100.0).round() as u64)
                .move_value("/total", "/total_cents")
                .set_default("/currency", "EUR"),
        );
    }
    if release >= 3 {
        // A function between Rust types, for a change that can't be declared. Its Sensitive fields keep redactions.
        placed = placed
            .version(3)
            .protect(&["/contact/name", "/contact/email"], customer())
            .upcast(2, |old: OrderPlacedV2| Ok::<_, Infallible>(OrderSubmitted::from(old)));
    }
    if release < 4 {
        return Schemas::new([placed]);
    }
    // The type gets another name, and an event of the old type becomes two events.
    let submitted = event("OrderSubmitted")
        .version(3)
        .protect(&["/contact/name", "/contact/email"], customer())
        .version(4)
        .protect_same_as(3)
        .split(3, &[("OrderSubmitted", 4), ("InvoiceRequested", 1)], |order, _| {
            let invoice = json!({
                "customer_id": order["customer_id"],
                "send_to": order["contact"]["email"],
                "total_cents": order["total_cents"],
            });
            Ok::<_, Infallible>(vec![
                SplitPart::new("OrderSubmitted", 4, order),
                SplitPart::new("InvoiceRequested", 1, invoice),
            ])
        });
    Schemas::builder([
        placed.change(3, Changes::new().rename_type("OrderSubmitted", 3)),
        submitted,
        event("InvoiceRequested").version(1).protect(&["/send_to"], customer()),
    ])
    .decodes::<OrderEvent>() // an error if an arm does not have the current version
    .build()
}

/// The events that a release appends for an order.
fn order(release: u32, customer: &str, name: &str, email: &str) -> BoxResult<Vec<NewEvent>> {
    let contact = |name: &str| Contact { name: name.into(), email: email.into() };
    let submitted = |name: &str| OrderSubmitted {
        customer_id: customer.into(),
        contact: contact(name),
        total_cents: 990,
        currency: "EUR".into(),
    };
    Ok(match release {
        1 => vec![NewEvent::json(
            "OrderPlaced",
            1,
            &json!({"customer_id": customer, "name": name, "email": email, "total": 9.9}),
        )?],
        2 => {
            let placed = OrderPlacedV2 {
                customer_id: customer.into(),
                name: name.into(),
                contact: ContactV2 { email: email.into() },
                total_cents: 990,
                currency: "EUR".into(),
            };
            vec![NewEvent::json("OrderPlaced", 2, &placed)?]
        }
        3 => vec![NewEvent::json("OrderPlaced", 3, &submitted(name.trim()))?],
        _ => {
            let invoice = InvoiceRequested { customer_id: customer.into(), send_to: email.into(), total_cents: 990 };
            vec![NewEvent::of(&OrderEvent::from(submitted(name.trim())))?, NewEvent::of(&OrderEvent::from(invoice))?]
        }
    })
}

fn shown(field: &Sensitive<String>) -> &str {
    field.expose().map_or("(erased)", String::as_str)
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::too_many_lines, reason = "a story, told from its beginning to its end")]
async fn main() -> BoxResult {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new().filename(folder.path().join("shop.db")).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    let mut connection = pool.acquire().await?;
    SqliteStore::new().migrate(&mut connection).await?;
    SqliteKeys::new().migrate(&mut connection, &Namespace::new("shop")?).await?;
    let keyring = Arc::new(Keyring::generate("main")?);
    let open = |schemas| SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Arc::clone(&keyring), schemas);

    println!("Four releases, one log");
    for release in 1..=4 {
        println!("release {release}: Ada orders{}", if release < 3 { ", and Bob" } else { "" });
        let store = open(schemas(release)?);
        store.keys().prepare(&mut connection).await?;
        for (customer, name, email) in [("ada", " Ada", "ada@example.org"), ("bob", "Bob ", "bob@example.org")] {
            let mut tx = pool.begin().await?;
            let aggregate = aggregate("Order", format!("{customer}-{release}"));
            match store.append(&mut tx, &aggregate, NoStream, &order(release, customer, name, email)?).await {
                Ok(_) => tx.commit().await?,
                Err(error) if error.is_shredded() && customer == "bob" => {
                    println!("release {release}: Bob's order is refused, his keys are gone");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if release == 2 {
            let mut tx = pool.begin().await?;
            store.keys().shred(&mut tx, &KeyScope::new("Customer", "bob"), "erasure request 118").await?;
            tx.commit().await?;
            println!("release 2: Bob asked to be forgotten");
        }
    }

    let store = open(schemas(4)?);
    let all = EventFilter::default();
    let page = store.read_events(&mut connection, GlobalPosition::START, 100, &all).await?;
    println!("\nWhat release 4 reads");
    println!("{:<21}{:<21}{:<10}{:<17}TOTAL", "STORED AS", "READ AS", "NAME", "E-MAIL");
    for (stored, event) in page.events.iter().zip(page.decode::<OrderEvent>()?) {
        let (name, email, total) = match &event {
            OrderEvent::Submitted(order) => {
                (shown(&order.contact.name), shown(&order.contact.email), order.total_cents)
            }
            OrderEvent::InvoiceRequested(invoice) => ("", shown(&invoice.send_to), invoice.total_cents),
        };
        let stored_as = format!("{} v{}", stored.stored_type, stored.stored_version);
        let read_as = format!("{} v{}", stored.event_type, stored.event_version);
        println!("{stored_as:<21}{read_as:<21}{name:<10}{email:<17}{total}");
        let is_bob = stored.aggregate.aggregate_id().starts_with("bob");
        assert_eq!(email, if is_bob { "(erased)" } else { "ada@example.org" });
        assert_eq!((total, stored.is_redacted()), (990, is_bob));
        assert!(name.is_empty() || name == if is_bob { "(erased)" } else { "Ada" });
    }
    // Six orders and one invoice were stored. Each of the five orders from before the split is read as two events.
    assert_eq!((page.scanned, page.events.len()), (7, 12));

    // A filter by type also finds events that were stored under an older type.
    let invoices = EventFilter { event_types: vec!["InvoiceRequested".into()], ..EventFilter::default() };
    let invoices = store.read_events(&mut connection, GlobalPosition::START, 100, &invoices).await?;
    assert_eq!(invoices.events.len(), 6);
    println!(
        "\n{} invoices, {} of them out of events that were stored as orders",
        invoices.events.len(),
        invoices.events.len() - 1
    );

    // The stored payloads did not change.
    let stored = store.inner().read_events(&mut connection, GlobalPosition::START, 1, &all).await?.events.remove(0);
    let stored: Value = serde_json::from_slice(&stored.payload)?;
    assert!(stored["email"].is_string() && stored.get("contact").is_none() && stored["total"] == 9.9);

    // Which steps are still needed?
    let census = store.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await?;
    println!("\nWhat is stored, and which steps it needs");
    println!("{:<21}{:>6}{:>8}  NEEDS THE STEPS FROM", "STORED", "EVENTS", "SEALED");
    for row in &census.rows {
        let steps: Vec<String> = row.steps.iter().map(|(name, version)| format!("{name} v{version}")).collect();
        let stored = format!("{} v{}", row.event_type, row.event_version);
        println!("{stored:<21}{:>6}{:>8}  {}", row.events, row.with_header, steps.join(", "));
    }
    assert!(census.may_delete_step("OrderPlaced", 1) != Answer::Yes, "two events are still of version 1");
    Ok(())
}
