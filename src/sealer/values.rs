//! Seals and opens values outside of events, with the keys of their owners.

use crate::crypto::primitives::Salts;
use crate::error::{Error, InputFault, KeyFault, Result, ValueFault};
use crate::keys::KeyStore;
use crate::keys::names::{KeyId, KeyScope};
use crate::seal::sealing::SealingKey;
use crate::seal::value::{ClosedValue, check_new, seal};
use crate::sealer::{Sealer, key_of};
use crate::sensitive::Sensitive;
use crate::telemetry;
use crate::values::{NewValue, SealedValue, StoredValue, ValueContext};
use std::collections::{HashMap, HashSet};

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> Sealer<Tx, K> {
    /// Seals a value outside of events, such as a column of a read model. See [`values`](crate::values), and
    /// [`seal_values`](Self::seal_values), which does the same for several.
    ///
    /// # Errors
    /// Those of [`seal_values`](Self::seal_values).
    pub async fn seal_value(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        context: impl Into<ValueContext>,
        value: impl AsRef<[u8]>,
    ) -> Result<SealedValue> {
        let sealed = self.seal_values(tx, &[NewValue::new(scope, context, &value)]).await?;
        sealed.into_iter().next().ok_or(Error::Keys(KeyFault::Cryptography))
    }

    /// Seals values outside of events. The results are in the order of the values.
    ///
    /// Like an append, this locks the keys of their scopes against a shred until the transaction ends, and creates the
    /// data keys that are missing. Write the sealed values in the same transaction if you can. Then no value is
    /// committed without its key, or under a key that was shredded meanwhile. The ids of the scopes are
    /// [normalized](crate::Owner::normalize) as the schemas say.
    ///
    /// # Errors
    /// For what the caller passed: [`Error::Value`] ([`InvalidContext`](ValueFault::InvalidContext),
    /// [`SimilarKind`](ValueFault::SimilarKind), [`InvalidPadding`](ValueFault::InvalidPadding),
    /// [`LimitExceeded`](ValueFault::LimitExceeded)), [`InputFault::InvalidText`] for a scope or an item of a context.
    /// For the keys and the database: those of [`seal`](Self::seal), such as [`Error::Shredded`]. If one value can't be
    /// sealed, none is.
    pub async fn seal_values(&self, tx: &mut Tx, values: &[NewValue<'_>]) -> Result<Vec<SealedValue>> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let call = telemetry::seal_values(self.keys.known_namespace(), values.len());
        call.run(|| self.seal_new_values(tx, values)).await
    }

    async fn seal_new_values(&self, tx: &mut Tx, values: &[NewValue<'_>]) -> Result<Vec<SealedValue>> {
        let owners = values.iter().map(|value| {
            check_new(value)?;
            self.owner_to_seal(value)
        });
        let owners: Vec<KeyScope> = owners.collect::<Result<_>>()?;
        let scopes: Vec<KeyScope> = owners.iter().collect::<HashSet<_>>().into_iter().cloned().collect();
        let keys = self.keys.sealing_keys(tx, &scopes).await?;
        let by_scope: HashMap<_, _> = scopes.iter().zip(&keys.keys).collect();
        let integrity = SealingKey { id: keys.integrity.0, key: &keys.integrity.1 };
        let mut salts = Salts::draw(values.len())?;
        let sealed = values
            .iter()
            .zip(&owners)
            .map(|(value, owner)| seal(value, &keys.namespace, &key_of(&by_scope, owner)?, &integrity, &salts.next()?));
        let sealed = sealed.collect::<Result<Vec<_>>>()?;
        telemetry::values_sealed(sealed.len());
        Ok(sealed)
    }

    /// Opens a value that [`seal_value`](Self::seal_value) sealed for this scope and this context. It is
    /// [`Redacted`](Sensitive::Redacted) if its key was shredded. To open many, use
    /// [`open_values`](Self::open_values).
    ///
    /// # Errors
    /// Those of [`open_values`](Self::open_values), the errors of a single value included.
    pub async fn open_value(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        context: impl Into<ValueContext>,
        value: &SealedValue,
    ) -> Result<Sensitive<Vec<u8>>> {
        let opened = self.open_values(tx, &[StoredValue::new(scope, context, value)]).await?;
        opened.into_iter().next().unwrap_or(Err(Error::Keys(KeyFault::Cryptography)))
    }

    /// Opens values that were sealed outside of events, with one query of the key table for all of them. Returns one
    /// result for each value, in their order.
    ///
    /// A value whose key was shredded is no error: it is [`Redacted`](Sensitive::Redacted). So is one whose scope is
    /// withheld by a scheduled shred, as long as it is.
    ///
    /// The result of a value is [`Error::Value`] if it was altered, belongs elsewhere, or its key has no row;
    /// [`Error::Disabled`] if its scope is disabled; [`InputFault::InvalidText`] for a scope or an item of a context;
    /// or the error of a key that does not open, such as [`KeyFault::WrongKey`](crate::error::KeyFault::WrongKey). None
    /// of these is an erasure, so never show such a value as erased.
    ///
    /// # Errors
    /// Those that are not about one value: errors of the KMS and of the database, and
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated).
    pub async fn open_values(
        &self,
        tx: &mut Tx,
        values: &[StoredValue<'_>],
    ) -> Result<Vec<Result<Sensitive<Vec<u8>>>>> {
        let call = telemetry::open_values(self.keys.known_namespace(), values.len());
        let opened = call.run(|| self.open_stored_values(tx, values)).await?;
        call.values_read(&opened);
        Ok(opened)
    }

    async fn open_stored_values(
        &self,
        tx: &mut Tx,
        values: &[StoredValue<'_>],
    ) -> Result<Vec<Result<Sensitive<Vec<u8>>>>> {
        let read = |value| Ok((self.owner_to_open(value)?, ClosedValue::read(&value.context, value.value)?));
        let closed: Vec<Result<(KeyScope, ClosedValue<'_>)>> = values.iter().map(read).collect();
        let key_ids: HashSet<KeyId> = closed.iter().flatten().flat_map(|(_, closed)| closed.key_ids()).collect();
        if key_ids.is_empty() {
            return Ok(closed.into_iter().filter_map(|closed| closed.err().map(Err)).collect());
        }
        let (namespace, keys) = self.keys.opening_keys(tx, &key_ids, None).await?;
        let opened = closed.into_iter().map(|closed| {
            let (owner, closed) = closed?;
            closed.open(&owner, &namespace, &keys, self.schemas.normalizers())
        });
        Ok(opened.collect())
    }

    /// The scope under whose key a new value is sealed.
    fn owner_to_seal(&self, value: &NewValue<'_>) -> Result<KeyScope> {
        let kind = value.scope.kind();
        if let Some(declared) = self.schemas.similar_kind(kind) {
            let (kind, declared) = (kind.to_owned(), declared.to_owned());
            return Err(value.context.fault(ValueFault::SimilarKind { kind, declared }));
        }
        self.schemas.scope_for(kind, value.scope.id())
    }

    /// The scope to which a stored value must belong.
    fn owner_to_open(&self, value: &StoredValue<'_>) -> Result<KeyScope> {
        value.context.check()?;
        if value.scope.is_reserved() {
            let problem = "starts with '$', which is reserved: no value is sealed for it";
            return Err(Error::Input(InputFault::InvalidText { what: "the scope kind", problem }));
        }
        self.schemas.scope_for(value.scope.kind(), value.scope.id())
    }
}
