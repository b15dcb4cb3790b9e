//! AWS KMS: against moto's server with real keys, against answers that are made up, and against sockets that misbehave.

mod answers;
mod real_keys;
mod store;
mod unreachable;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_smithy_http_client::test_util::{ReplayEvent, StaticReplayClient};
use aws_smithy_types::body::SdkBody;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::ExpectedVersion::Any;
use eventseal::error::KmsFault;
use eventseal::keys::KekId;
use eventseal::kms::Kms;
use eventseal::kms::{AwsKms, KekContext, KmsFailure, SecretKey, WrappedKek};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{
    Error, EventStore, EventStoreExt, Namespace, NewEvent, PersistedEvent, Result, Schemas, SealedStore, aggregate,
    event, subject,
};
use std::time::Duration;
use support::Sqlite;
use support::moto::config;
use uuid::Uuid;

const KEY: [u8; 32] = *b"0123456789012345678901234567890A";
const ARN: &str = "arn:aws:kms:eu-central-1:123456789012:key/d1b41a7e-0000-4000-8000-000000000001";

fn context() -> KekContext {
    KekContext { namespace: Namespace::new("shop").unwrap(), kek_id: KekId(Uuid::now_v7()) }
}

fn wrapped() -> WrappedKek {
    WrappedKek { master_key_id: ARN.to_owned(), ciphertext: b"ciphertext".to_vec() }
}

fn failure_of(error: &Error) -> KmsFailure {
    match error {
        Error::Kms(KmsFault::Refused { failure, .. }) => {
            assert!(!error.is_retryable());
            *failure
        }
        Error::Kms(KmsFault::Unavailable { failure, .. }) => {
            assert!(error.is_retryable());
            *failure
        }
        other => panic!("not an error of the KMS: {other:?}"),
    }
}

/// Is the beginning of this key in the text: as it is, in hexadecimal, in base64, or as `Debug` lists the bytes of
/// these?
fn holds(text: &str, key: &[u8; 32]) -> bool {
    let listed = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    let base64 = STANDARD.encode(&key[..9]);
    let hex: String = key[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let forms =
        [listed(&key[..8]), listed(base64.as_bytes()), base64, hex, String::from_utf8_lossy(&key[..8]).into_owned()];
    forms.iter().any(|form| text.contains(form))
}

#[track_caller]
fn assert_without_key(text: &str, key: &[u8; 32]) {
    assert!(!holds(text, key), "the key is in: {text}");
}

/// The results of the four operations.
async fn all(kms: &AwsKms, wrapped: &WrappedKek, context: &KekContext) -> [(&'static str, Result<()>); 4] {
    [
        ("generate_kek", kms.generate_kek(context).await.map(drop)),
        ("unwrap_kek", kms.unwrap_kek(wrapped, context).await.map(drop)),
        ("wrap_kek", kms.wrap_kek(&SecretKey::new(KEY), context).await.map(drop)),
        ("rewrap_kek", kms.rewrap_kek(wrapped, context).await.map(drop)),
    ]
}

/// Moto does not know keys by their ARN where it changes their state.
fn id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap()
}

/// Runs a test of this file in a process of its own, with this environment and no other. What it said, if it failed.
fn again(module: &str, test: &str, environment: &[(&str, &str)]) -> Result<(), String> {
    let mut process = std::process::Command::new(std::env::current_exe().unwrap());
    let output = process
        .args(["--exact", &format!("{module}::{test}")])
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.contains("1 passed") { Ok(()) } else { Err(said.into_owned()) }
}

fn answers(answers: &[(u16, &str)]) -> StaticReplayClient {
    let event = |(status, body): &(u16, &str)| {
        let answer = http::Response::builder().status(*status).body(SdkBody::from(*body)).unwrap();
        ReplayEvent::new(http::Request::builder().uri("http://localhost").body(SdkBody::empty()).unwrap(), answer)
    };
    StaticReplayClient::new(answers.iter().map(event).collect())
}

/// A client without retries, but those that a test adds.
fn answered_by(replay: &StaticReplayClient, tries: u32) -> AwsKms {
    let retries = RetryConfig::standard().with_max_attempts(tries).with_initial_backoff(Duration::from_millis(1));
    AwsKms::new(
        Client::from_conf(config(1).http_client(replay.clone()).retry_config(retries).build()),
        "alias/eventseal",
    )
}

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

type Store = SealedStore<SqliteStore>;

/// A process, with caches of its own.
fn process(kms: AwsKms) -> Store {
    SealedStore::new(SqliteStore::new(), SqliteKeys::new(), kms, schemas())
}

async fn append(db: &Sqlite, store: &Store, customer: &str) -> Result<()> {
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed(customer)]).await?;
    tx.commit().await.unwrap();
    Ok(())
}

/// For each event, whether it is redacted; a value that is not redacted is there.
async fn read(db: &Sqlite, store: &Store) -> Result<Vec<bool>> {
    let mut connection = db.pool.acquire().await.unwrap();
    let stream = store.read_stream(&mut connection, &aggregate("Order", "1")).await?;
    let redacted = |event: &PersistedEvent| {
        assert_eq!(event.is_redacted(), !String::from_utf8_lossy(&event.payload).contains("Ada"));
        event.is_redacted()
    };
    Ok(stream.events.iter().map(redacted).collect())
}
