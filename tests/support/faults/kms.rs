//! A KMS with faults.

use super::*;

/// What a faulty KMS does. Each call goes to the inner KMS, unless a test writes its own.
#[async_trait]
pub trait KmsFaults: Send + Sync {
    fn inner(&self) -> &dyn Kms;

    fn provider(&self) -> &str {
        self.inner().provider()
    }

    fn makes_keys_under(&self, master_key_id: &str) -> bool {
        self.inner().makes_keys_under(master_key_id)
    }

    async fn master_key_id(&self) -> Result<String> {
        self.inner().master_key_id().await
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        self.inner().generate_kek(context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.inner().unwrap_kek(wrapped, context).await
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        self.inner().wrap_kek(kek, context).await
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        self.inner().rewrap_kek(wrapped, context).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: KmsFaults> Kms for Faulty<T> {
    fn provider(&self) -> &str {
        self.0.provider()
    }

    fn makes_keys_under(&self, master_key_id: &str) -> bool {
        self.0.makes_keys_under(master_key_id)
    }

    async fn master_key_id(&self) -> Result<String> {
        self.0.master_key_id().await
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        self.0.generate_kek(context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.0.unwrap_kek(wrapped, context).await
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        self.0.wrap_kek(kek, context).await
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        self.0.rewrap_kek(wrapped, context).await
    }
}
