//! Shreds of many scopes: those of a list, or those of a partition. Each scope is shredded in a transaction of its own.

use crate::error::{Error, KeyFault, Result, no_effect};
use crate::keys::ahead::Pinned;
use crate::keys::manager::{KeyManager, check_change, no_active_kek};
use crate::keys::names::KeyScope;
use crate::keys::operator::{Cause, KeyOperator};
use crate::keys::{KeyTable, ScopeQuery, ScopeState, Shredding};
use crate::store::TableWork;
use crate::telemetry;
use async_trait::async_trait;
use std::collections::HashSet;

/// How often a shred that collides with others is tried before its scope is skipped.
const ATTEMPTS: u32 = 3;
/// How often the scopes of a partition are gone through, to find those that were added meanwhile.
const PASSES: u32 = 10;

/// A scope that is to be shredded: see [`KeyManager::shred_many`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShredRequest {
    /// The owner of the keys.
    pub scope: KeyScope,
    /// The reason, which stays in the scope's history for good: name the request, not the person.
    pub reason: String,
}

/// The progress of a shred of many scopes, after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShredProgress {
    /// How many scopes were gone through so far.
    pub scopes: u64,
    /// How many of them this call has shredded.
    pub shredded: u64,
}

/// The report of a shred of many scopes.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ShreddedMany {
    /// How many scopes this call shredded.
    pub shredded: u64,
    /// How many data keys it destroyed.
    pub destroyed: u64,
    /// How many scopes were shredded before, so that nothing was left to do.
    pub already: u64,
    /// The scopes that were not shredded.
    pub skipped: Vec<SkippedScope>,
    /// Is nothing left, but for what was skipped? `false` if scopes of the partition were added all the time.
    pub is_complete: bool,
}

/// A scope that was not shredded, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct SkippedScope {
    /// The owner of the keys.
    pub scope: KeyScope,
    /// [`KeyFault::Held`] if it is on hold, and other errors about one scope. [`Error::Collision`] if others held its
    /// row all the time.
    pub error: Error,
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Shreds many scopes, each as [`shred`](Self::shred) does, and in a short transaction of its own. Pass a
    /// connection that is not in a transaction. `progress` is called after each scope.
    ///
    /// A scope that can't be shredded is skipped and reported: one on hold, or one whose entries in the log were
    /// altered. A call that ended early for any reason has left nothing half done: call it again. A scope that was
    /// shredded before is left as it is, and gets no second entry in the log.
    ///
    /// ```
    /// # use eventseal::{KeyScope, Result};
    /// # use eventseal::keys::{KeyManager, ShredRequest};
    /// # async fn erase<C: Send + 'static>(keys: &KeyManager<C>, connection: &mut C) -> Result<()> {
    /// let requests = ["cust_42", "cust_43"].map(|id| ShredRequest {
    ///     scope: KeyScope::new("Customer", id),
    ///     reason: "request 118".to_owned(),
    /// });
    /// let done = keys.acting_as("clerk 7").shred_many(connection, &requests, &mut |_| {}).await?;
    /// for skipped in &done.skipped {
    ///     eprintln!("{} is not erased: {}", skipped.scope, skipped.error);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`shred`](Self::shred) that are not about one scope, and
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction). All scopes and reasons are
    /// checked first: if one of them is refused, nothing was shredded. What was shredded before any other error stays
    /// shredded. [`KeyFault::NotCopied`] if a copy is
    /// [kept at once](crate::keys::KeyManagerBuilder::copy_shred_log), and can't be written: what was shredded so far
    /// stays shredded. Those of [`export_log`](Self::export_log) if it can't be written before the first shred.
    pub async fn shred_many(
        &self,
        connection: &mut Tx,
        requests: &[ShredRequest],
        progress: &mut (dyn FnMut(ShredProgress) + Send),
    ) -> Result<ShreddedMany> {
        self.shred_many_because(connection, requests, None, progress).await
    }

    /// Shreds every scope of a partition that is not shredded: for a tenant that leaves. A scope belongs to the
    /// partition of its newest data key. Otherwise it does what [`shred_many`](Self::shred_many) does.
    ///
    /// **Stop the tenant's appends first.** The scopes are gone through until none is left, ten times at most. A scope
    /// that an append makes after the last time remains, and is shredded by the next call. If new ones are found each
    /// time, [`ShreddedMany::is_complete`] is false. Each pass reads all scopes of the key table: see
    /// [`scopes`](Self::scopes).
    ///
    /// The partition's key-encryption key remains, and wraps nothing any more.
    ///
    /// # Errors
    /// [`KeyFault::NoActiveKek`] if there is no such partition, and those of [`shred_many`](Self::shred_many).
    pub async fn shred_partition(
        &self,
        connection: &mut Tx,
        partition: &str,
        reason: &str,
        progress: &mut (dyn FnMut(ShredProgress) + Send),
    ) -> Result<ShreddedMany> {
        self.shred_partition_because(connection, partition, Cause::of(reason), progress).await
    }

    async fn shred_many_because(
        &self,
        connection: &mut Tx,
        requests: &[ShredRequest],
        actor: Option<&str>,
        progress: &mut (dyn FnMut(ShredProgress) + Send),
    ) -> Result<ShreddedMany> {
        let call = telemetry::shred_many(self.known_namespace(), requests.len());
        call.run(|| self.shred_each(connection, requests, actor, progress)).await
    }

    async fn shred_each(
        &self,
        connection: &mut Tx,
        requests: &[ShredRequest],
        actor: Option<&str>,
        progress: &mut (dyn FnMut(ShredProgress) + Send),
    ) -> Result<ShreddedMany> {
        for ShredRequest { scope, reason } in requests {
            check_change(scope, Cause { reason, actor })?;
        }
        let mut done = ShreddedMany { is_complete: true, ..ShreddedMany::default() };
        self.copy_ahead(connection).await?;
        for ShredRequest { scope, reason } in requests {
            if done.add(scope, self.shred_alone(connection, scope, Cause { reason, actor }).await)? {
                self.copy_at_once(connection).await?;
            }
            progress(done.progress());
        }
        if done.shredded > 0 {
            self.seal_log_afterwards(connection).await;
        }
        done.log();
        Ok(done)
    }

    async fn shred_partition_because(
        &self,
        connection: &mut Tx,
        partition: &str,
        cause: Cause<'_>,
        progress: &mut (dyn FnMut(ShredProgress) + Send),
    ) -> Result<ShreddedMany> {
        let call = telemetry::shred_partition(self.known_namespace(), partition);
        call.run(|| self.shred_all_of(connection, partition, cause, progress)).await
    }

    async fn shred_all_of(
        &self,
        connection: &mut Tx,
        partition: &str,
        cause: Cause<'_>,
        progress: &mut (dyn FnMut(ShredProgress) + Send),
    ) -> Result<ShreddedMany> {
        if self.store.active_kek(connection, partition).await?.is_none() {
            return Err(no_active_kek(partition));
        }
        self.copy_ahead(connection).await?;
        let (mut done, mut skipped) = (ShreddedMany::default(), HashSet::new());
        for _ in 0..PASSES {
            let mut query = ScopeQuery { partition: Some(partition.to_owned()), limit: 1_000, ..ScopeQuery::default() };
            let mut found = false;
            loop {
                let page = self.scopes(connection, &query).await?;
                for info in page.scopes {
                    if info.state == ScopeState::Shredded || skipped.contains(&info.scope) {
                        continue;
                    }
                    check_change(&info.scope, cause)?;
                    found = true;
                    let outcome = self.shred_alone(connection, &info.scope, cause).await;
                    if outcome.is_err() {
                        skipped.insert(info.scope.clone());
                    }
                    if done.add(&info.scope, outcome)? {
                        self.copy_at_once(connection).await?;
                    }
                    progress(done.progress());
                }
                query.after = page.next;
                if query.after.is_none() {
                    break;
                }
            }
            if !found {
                done.is_complete = true;
                break;
            }
        }
        if done.shredded > 0 {
            self.seal_log_afterwards(connection).await;
        }
        done.log();
        Ok(done)
    }

    /// Shreds a scope in a transaction of its own. The KMS is asked before that begins.
    async fn shred_alone(&self, connection: &mut Tx, scope: &KeyScope, cause: Cause<'_>) -> Result<Shredding> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let pinned = self.open_log_ahead(connection).await?;
            let mut alone = Alone { keys: self, scope, cause, pinned, done: None };
            match self.store.transact(connection, "shredding", &mut alone).await {
                Ok(()) => return alone.done.ok_or_else(|| no_effect("shredding", "key_scopes")),
                Err(Error::Collision { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The shred of one scope as work in a transaction.
struct Alone<'a, Tx, K: ?Sized> {
    keys: &'a KeyManager<Tx, K>,
    scope: &'a KeyScope,
    cause: Cause<'a>,
    pinned: Pinned,
    done: Option<Shredding>,
}

#[async_trait]
impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> TableWork<Tx> for Alone<'_, Tx, K> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        let changing = self.keys.begin_change(tx, self.scope, true, &self.pinned).await?;
        self.done = Some(self.keys.shred_locked(tx, &changing, self.cause, None).await?);
        Ok(())
    }
}

impl ShreddedMany {
    /// Returns whether something was shredded.
    fn add(&mut self, scope: &KeyScope, outcome: Result<Shredding>) -> Result<bool> {
        let before = self.shredded;
        match outcome {
            // An entry without a key is a decision too, which is sealed and copied as any other.
            Ok(shredding) if shredding.entry.is_none() => self.already += 1,
            Ok(shredding) => {
                self.shredded += 1;
                self.destroyed += shredding.destroyed.len() as u64;
            }
            Err(error) if is_about_one_scope(&error) => {
                let (scope_kind, scope_id) = (scope.kind(), scope.id());
                tracing::warn!(scope_kind, scope_id, %error, "a scope was not shredded");
                self.skipped.push(SkippedScope { scope: scope.clone(), error });
            }
            Err(error) => return Err(error),
        }
        Ok(self.shredded > before)
    }

    fn progress(&self) -> ShredProgress {
        let scopes = self.shredded + self.already + self.skipped.len() as u64;
        ShredProgress { scopes, shredded: self.shredded }
    }

    fn log(&self) {
        tracing::info!(
            shredded = self.shredded,
            already = self.already,
            skipped = self.skipped.len(),
            "scopes were shredded"
        );
    }
}

/// May other scopes be shredded nevertheless?
fn is_about_one_scope(error: &Error) -> bool {
    matches!(
        error,
        Error::Collision { .. }
            | Error::Keys(
                KeyFault::Held { .. }
                    | KeyFault::LogAltered { .. }
                    | KeyFault::ScopeState { .. }
                    | KeyFault::Consumer { .. }
            )
    )
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyOperator<'_, Tx, K> {
    /// [`KeyManager::shred_many`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::shred_many`].
    pub async fn shred_many(
        &self,
        connection: &mut Tx,
        requests: &[ShredRequest],
        progress: &mut (dyn FnMut(ShredProgress) + Send),
    ) -> Result<ShreddedMany> {
        self.keys.shred_many_because(connection, requests, Some(&self.actor), progress).await
    }

    /// [`KeyManager::shred_partition`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::shred_partition`].
    pub async fn shred_partition(
        &self,
        connection: &mut Tx,
        partition: &str,
        reason: &str,
        progress: &mut (dyn FnMut(ShredProgress) + Send),
    ) -> Result<ShreddedMany> {
        let cause = Cause { reason, actor: Some(&self.actor) };
        self.keys.shred_partition_because(connection, partition, cause, progress).await
    }
}
