//! Requests to the KMS: their outcome, their time, and their spans.

use super::*;
use async_trait::async_trait;
use eventseal::error::KmsFault;
use eventseal::keys::KeyManager;
use eventseal::kms::{KekContext, Kms, KmsFailure, SecretKey, WrappedKek};
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryTx};
use eventseal::{Error, Keyring, Namespace, Result};
use futures::FutureExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use support::KEYRING;
use support::faults::{Faulty, KmsFaults};

/// A KMS that does not answer, or refuses.
#[derive(Default)]
struct Troubled(AtomicU8);

const WORKS: u8 = 0;
const TIMES_OUT: u8 = 1;
const REFUSES: u8 = 2;
const HANGS: u8 = 3;

impl Troubled {
    fn now(&self, trouble: u8) {
        self.0.store(trouble, Ordering::SeqCst);
    }
}

#[async_trait]
impl KmsFaults for Troubled {
    fn inner(&self) -> &dyn Kms {
        &*KEYRING
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        match self.0.load(Ordering::SeqCst) {
            TIMES_OUT => {
                let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
                let source: Box<dyn std::error::Error + Send + Sync> = Box::new(source);
                Err(Error::Kms(KmsFault::Unavailable { failure: KmsFailure::TimedOut, source: source.into() }))
            }
            REFUSES => {
                let (kek_id, problem) = (context.kek_id, "no".to_owned());
                Err(Error::Kms(KmsFault::Refused { kek_id, failure: KmsFailure::KeyDisabled, problem }))
            }
            HANGS => std::future::pending().await,
            _ => self.inner().unwrap_kek(wrapped, context).await,
        }
    }
}

type Asked = Arc<Faulty<Troubled>>;

fn process(kms: &Asked) -> KeyManager<MemoryTx> {
    KeyManager::new(MemoryKeys::new(), Arc::clone(kms))
}

#[tokio::test]
async fn requests_are_counted_by_operation_and_outcome() {
    let (recorded, seen) = (Recorded::default(), Seen::default());
    let (_recording, _listening) = (recorded.listen(), seen.listen());
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let kms = Asked::new(Faulty(Troubled::default()));
    let keys = process(&kms);
    keys.prepare(&mut db.begin()).await.unwrap();
    let kek_id = keys.kek_usage(&mut db.begin()).await.unwrap()[0].kek.kek_id.to_string();
    let count = |operation: &str, outcome: &str, failure: &str| {
        let labels = [("provider", "keyring"), ("operation", operation), ("outcome", outcome), ("failure", failure)];
        recorded.count("eventseal_kms_requests_total", &labels)
    };
    assert_eq!((count("generate_kek", "ok", "none"), count("unwrap_kek", "ok", "none")), (1, 1));
    seen.take();

    let outcomes = [(TIMES_OUT, "kms_unavailable", "timed out"), (REFUSES, "kms_refused", "master key disabled")];
    for (trouble, outcome, failure) in outcomes {
        kms.0.now(trouble);
        let error = process(&kms).prepare(&mut db.begin()).await.unwrap_err();
        assert_eq!(error.kind().as_str(), outcome);
        assert_eq!(count("unwrap_kek", outcome, failure), 1);
        assert_eq!(recorded.count("eventseal_errors_total", &[("error_kind", outcome)]), 1);
        let noted = seen.take();
        let span = noted.iter().find(|noted| noted.is_span && noted.name == "eventseal.kms").unwrap();
        let field = |name| span.field(name).unwrap();
        assert_eq!((field("provider"), field("operation"), field("kek_id")), ("keyring", "unwrap_kek", &*kek_id));
        assert_eq!((field("outcome"), field("failure"), field("error_kind")), (outcome, failure, outcome));
        assert_eq!((field("namespace"), span.inside), ("test", Some("eventseal.prepare")));
    }

    // Its caller does not wait for an answer.
    kms.0.now(HANGS);
    let polled_once = process(&kms).prepare(&mut db.begin()).now_or_never();
    assert!(polled_once.is_none(), "it waits for the KMS");
    assert_eq!(count("unwrap_kek", "dropped", "none"), 1);
    assert_eq!(seen.span("eventseal.kms").field("outcome"), Some("dropped"));
    let outcomes = recorded.samples("eventseal_kms_request_duration_seconds");
    let of = |operation: &str, outcome: &str| {
        let has = |labels: &std::collections::BTreeMap<String, String>| {
            labels["operation"] == operation && labels["outcome"] == outcome && labels["provider"] == "keyring"
        };
        outcomes.iter().filter(|(labels, _)| has(labels)).flat_map(|(_, samples)| samples.clone()).collect::<Vec<_>>()
    };
    for outcome in ["ok", "kms_unavailable", "kms_refused", "dropped"] {
        let samples = of("unwrap_kek", outcome);
        assert!(samples.len() == 1 && (0.0..60.0).contains(&samples[0]), "{outcome}: {samples:?}");
    }
    kms.0.now(WORKS);
}

/// A failure that is remembered for a second is no request.
#[tokio::test]
async fn who_is_told_of_an_earlier_failure_asks_nothing() {
    let recorded = Recorded::default();
    let _recording = recorded.listen();
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let kms = Asked::new(Faulty(Troubled::default()));
    process(&kms).prepare(&mut db.begin()).await.unwrap();
    kms.0.now(TIMES_OUT);
    let keys = process(&kms);
    let failed = [("outcome", "kms_unavailable")];
    for _ in 0..3 {
        keys.prepare(&mut db.begin()).await.unwrap_err();
        if recorded.count("eventseal_kms_requests_total", &failed) != 1 {
            // The machine was so slow that a second went by.
            return;
        }
    }
    assert_eq!(recorded.count("eventseal_errors_total", &[("error_kind", "kms_unavailable")]), 3);
    assert_eq!(recorded.count("eventseal_kek_cache_misses_total", &[]), 1 + 3);
}

/// The provider from which keys are moved is asked too.
#[tokio::test]
async fn a_move_counts_the_requests_to_both() {
    struct Other(Keyring);

    #[async_trait]
    impl KmsFaults for Other {
        fn inner(&self) -> &dyn Kms {
            &self.0
        }

        fn provider(&self) -> &str {
            "other"
        }
    }

    let (recorded, seen) = (Recorded::default(), Seen::default());
    let (_recording, _listening) = (recorded.listen(), seen.listen());
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let other = Arc::new(Faulty(Other(Keyring::generate("old").unwrap())));
    KeyManager::new(MemoryKeys::new(), Arc::clone(&other)).prepare(&mut db.begin()).await.unwrap();
    let keys = KeyManager::new(MemoryKeys::new(), Arc::clone(&KEYRING));
    let count = |provider: &str, operation: &str| {
        let labels = [("provider", provider), ("operation", operation), ("outcome", "ok")];
        recorded.count("eventseal_kms_requests_total", &labels)
    };
    let opened = count("other", "unwrap_kek");
    let moves = keys.move_master_key(&mut db.begin(), Some(&*other), &mut |_| {}).await.unwrap();
    assert_eq!((moves.moved.len(), count("other", "unwrap_kek")), (1, opened + 1));
    assert_eq!((count("keyring", "master_key_id"), count("keyring", "wrap_kek")), (1, 1));
    assert_eq!(count("keyring", "unwrap_kek"), 1);
    assert_eq!(seen.span("eventseal.move_master_key").level, tracing::Level::INFO);
}
