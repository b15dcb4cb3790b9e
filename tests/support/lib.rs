//! The parts that tests share: a database for each test, a PostgreSQL server, a pooler and a KMS that end with the
//! process, and worlds with a sealed store.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::must_use_candidate,
    clippy::new_without_default,
    reason = "for tests alone"
)]

#[cfg(feature = "databases")]
pub mod backend;
#[cfg(feature = "databases")]
pub mod cluster;
pub mod databases;
pub mod deadline;
pub mod faults;
#[cfg(feature = "databases")]
pub mod meddler;
#[cfg(feature = "databases")]
pub mod moto;
#[cfg(feature = "databases")]
pub mod pgbouncer;
pub mod rows;
pub mod sealing;
pub mod sources;
pub mod two_steps;
#[cfg(feature = "databases")]
pub mod wire;
pub mod world;

pub use databases::Memory;
#[cfg(feature = "databases")]
pub use databases::{Postgres, Sqlite};
pub use deadline::{Deadline, in_time};
use eventseal::{Error, KeyScope, Keyring, Owner, subject};
use std::sync::{Arc, LazyLock};

/// The keyring of tests that need one and don't say which. Databases have no keys in common, so tests can share it.
pub static KEYRING: LazyLock<Arc<Keyring>> = LazyLock::new(|| Arc::new(Keyring::generate("main").unwrap()));

/// The customer whose id the payload names.
pub fn customer() -> Owner {
    subject("Customer", "/customer")
}

/// The keys of one customer.
pub fn customer_scope(id: &str) -> KeyScope {
    KeyScope::new("Customer", id)
}

pub fn contains(payload: &[u8], text: &str) -> bool {
    payload.windows(text.len()).any(|window| window == text.as_bytes())
}

/// An error with everything that it was caused by, in every form in which a log can show it.
pub fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source} {source:?} {source:#?}");
        next = source.source();
    }
    text
}

/// The innermost variant of an error and its fields, as `Debug` shows them: it begins with the variant's name.
pub fn fault(error: &Error) -> String {
    match error {
        Error::Event { fault, .. } => format!("{fault:?}"),
        Error::Value { fault, .. } => format!("{fault:?}"),
        Error::BlindIndex { fault, .. } => format!("{fault:?}"),
        Error::Input(fault) => format!("{fault:?}"),
        Error::Keys(fault) => format!("{fault:?}"),
        Error::Kms(fault) => format!("{fault:?}"),
        Error::SetUp(fault) => format!("{fault:?}"),
        Error::Transaction(fault) => format!("{fault:?}"),
        Error::Storage(fault) => format!("{fault:?}"),
        Error::Maintenance(fault) => format!("{fault:?}"),
        other => format!("{other:?}"),
    }
}

/// Runs a suite, which must fail and say this.
pub async fn caught(name: &str, rule: &str, suite: impl Future<Output = ()> + Send + 'static) {
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), tokio::spawn(suite))
        .await
        .expect("the suite does not end");
    let panic = match ended {
        Ok(()) => panic!("{name}: nobody noticed that it breaks the rule: {rule}"),
        Err(error) => error.into_panic(),
    };
    let message = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap();
    assert!(message.contains(rule), "{name} was found, but the message does not name the rule {rule:?}: {message}");
}

/// Does serde_json keep numbers as they are spelled in this build? A crate of the build may have turned that on.
pub fn keeps_spellings() -> bool {
    serde_json::from_str::<serde_json::Value>("1e400").is_ok()
}
