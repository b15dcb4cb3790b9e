//! The contract of a KMS.

use crate::conformance::must;
use crate::error::{Error, KmsFault};
use crate::keys::names::{KekId, Namespace};
use crate::kms::{KekContext, Kms, WrappedKek};
use uuid::Uuid;

/// Runs the whole suite.
pub async fn kms<K: Kms>(kms: &K) {
    let context =
        |name: &str| KekContext { namespace: must(Namespace::new(name), "a namespace"), kek_id: KekId(Uuid::now_v7()) };
    let here = context("here");
    assert!(!kms.provider().is_empty(), "a provider has a name");
    let wrapped = must(kms.generate_kek(&here).await, "generate_kek");
    let active = must(kms.master_key_id().await, "master_key_id");
    assert_eq!(wrapped.master_key_id, active, "a move would not know what it has moved");
    let other_wrapped = must(kms.generate_kek(&here).await, "generate_kek");
    let key = must(kms.unwrap_kek(&wrapped, &here).await, "unwrap_kek");
    let other_key = must(kms.unwrap_kek(&other_wrapped, &here).await, "unwrap_kek");
    assert_ne!(key.expose(), other_key.expose(), "every key is new");
    assert_ne!(wrapped, other_wrapped);
    assert!(!wrapped.ciphertext.windows(32).any(|window| window == key.expose()), "the key is in its own ciphertext");
    assert!(kms.makes_keys_under(&wrapped.master_key_id), "the active master key makes data keys");
    let again = must(kms.wrap_kek(&key, &here).await, "wrap_kek");
    let moved = must(kms.rewrap_kek(&wrapped, &here).await, "rewrap_kek");
    for wrapped in [&wrapped, &again, &moved] {
        assert_eq!(
            wrapped.master_key_id, active,
            "a key-encryption key is wrapped by, and moved to the active master key"
        );
        let opened = must(kms.unwrap_kek(wrapped, &here).await, "unwrap_kek");
        assert_eq!(opened.expose(), key.expose(), "a key-encryption key stays what it is");
    }
    assert_ne!(again, wrapped, "no two wrappings are alike");

    let elsewhere = KekContext { namespace: must(Namespace::new("elsewhere"), "a namespace"), ..here.clone() };
    refuses(kms, &wrapped, &elsewhere, "another namespace").await;
    refuses(kms, &wrapped, &context("here"), "another key id").await;
    let mut altered = wrapped.clone();
    if let Some(last) = altered.ciphertext.last_mut() {
        *last ^= 1;
    }
    refuses(kms, &altered, &here, "an altered ciphertext").await;
    refuses(kms, &WrappedKek { ciphertext: Vec::new(), ..wrapped.clone() }, &here, "an empty ciphertext").await;
    refuses(kms, &WrappedKek { master_key_id: "no-such-key".to_owned(), ..wrapped }, &here, "another master key").await;
}

async fn refuses<K: Kms>(kms: &K, wrapped: &WrappedKek, context: &KekContext, what: &str) {
    let answers = [kms.unwrap_kek(wrapped, context).await.map(drop), kms.rewrap_kek(wrapped, context).await.map(drop)];
    for answer in answers {
        match answer {
            Err(error @ Error::Kms(KmsFault::Refused { .. })) => assert!(!error.is_retryable()),
            Err(error) => panic!("{what} must be refused with KmsRefused, not {error:?}"),
            Ok(()) => panic!("{what} was accepted"),
        }
    }
}
