//! A decorator around a [`Kms`] that shows every request to it as a span, and counts it with its outcome and its time.
//!
//! The key manager puts it around the KMS that it is given. It changes nothing of what is asked or answered.

use crate::crypto::secret::SecretKey;
use crate::error::Result;
use crate::kms::{KekContext, Kms, WrappedKek};
use crate::telemetry::KmsRequest;
use async_trait::async_trait;
use std::ops::Deref;

/// A pointer to a KMS, whose requests are seen.
pub(crate) struct ObservedKms<P>(pub(crate) P);

impl<P: Deref<Target: Kms>> ObservedKms<P> {
    fn request(&self, operation: &'static str, context: &KekContext) -> KmsRequest<'_> {
        KmsRequest::new(Some(&context.namespace), self.0.provider(), operation, Some(context.kek_id))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<P: Deref<Target: Kms> + Send + Sync> Kms for ObservedKms<P> {
    fn provider(&self) -> &str {
        self.0.provider()
    }

    async fn master_key_id(&self) -> Result<String> {
        KmsRequest::new(None, self.0.provider(), "master_key_id", None).ask(self.0.master_key_id()).await
    }

    fn makes_keys_under(&self, master_key_id: &str) -> bool {
        self.0.makes_keys_under(master_key_id)
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        self.request("generate_kek", context).ask(self.0.generate_kek(context)).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.request("unwrap_kek", context).ask(self.0.unwrap_kek(wrapped, context)).await
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        self.request("wrap_kek", context).ask(self.0.wrap_kek(kek, context)).await
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        self.request("rewrap_kek", context).ask(self.0.rewrap_kek(wrapped, context)).await
    }
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use crate::kms::keyring::Keyring;

    #[test]
    fn an_observed_kms_keeps_the_contract() {
        let keyring = Keyring::generate("main").unwrap();
        futures::executor::block_on(crate::conformance::kms(&ObservedKms(&keyring)));
    }
}
