//! The sweep: shreds the scopes whose scheduled shred has come due.

use crate::error::{Error, KeyFault, Result};
use crate::event::now;
use crate::keys::hold::{FailedScope, HeldScope};
use crate::keys::manager::KeyManager;
use crate::keys::names::KeyScope;
use crate::keys::operator::Cause;
use crate::keys::{Hold, KeyTable, Pinned};
use crate::store::TableWork;
use crate::telemetry;
use async_trait::async_trait;
use time::OffsetDateTime;

/// The options of [`KeyManager::sweep`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SweepOptions {
    /// How many scopes are looked up at a time. 100 by default. Each is shredded in a transaction of its own.
    pub batch: u32,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self { batch: 100 }
    }
}

/// The progress of a sweep, after each scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepProgress {
    /// How many scopes that are due were found so far.
    pub found: u64,
    /// How many of them are done with: shredded, held, or left for another reason.
    pub done: u64,
    /// How many of them this sweep has shredded.
    pub shredded: u64,
}

/// The report of a sweep.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Swept {
    /// How many scopes this sweep has shredded.
    pub shredded: u64,
    /// How many data keys it has destroyed.
    pub keys: u64,
    /// The scopes that are due and held. They stay scheduled: the first sweep after the last hold shreds them.
    pub held: Vec<HeldScope>,
    /// The scopes at which something failed. They are as they were before.
    pub failed: Vec<FailedScope>,
    /// The scopes that other transactions had locked for too long. They are as they were before.
    pub busy: Vec<KeyScope>,
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Shreds the scopes whose scheduled shred has come due. The connection must *not* be in a transaction.
    ///
    /// Each scope is shredded in a short transaction of its own, and consumers of erasures run in it. Any number of
    /// processes may sweep at once: each scope is shredded once. A sweep that ended early for any reason, for instance
    /// because its future was dropped, has left nothing half done: call it again. What comes due meanwhile is left for
    /// the next sweep. The reason of each shred in the history is that of its schedule.
    ///
    /// A scope that is held stays scheduled, and is reported. A scope at which something fails, such as a consumer or
    /// an entry that was altered, does not stop the others.
    ///
    /// Where the keys are in another database than the events, the transactions are those of the keys. What consumers
    /// write in the events' database is in the caller's transaction.
    ///
    /// `progress` is called after each scope.
    ///
    /// # Errors
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch),
    /// [`SetUpFault::PermissionDenied`](crate::error::SetUpFault::PermissionDenied),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Database`](crate::Error::Database) in an outage; errors of the KMS if the integrity key is not cached.
    /// [`KeyFault::NotCopied`] if a copy that is [written at once](crate::keys::KeyManagerBuilder::copy_shred_log)
    /// can't be written, and those of [`export_log`](Self::export_log) if it can't be before the first shred. Scopes
    /// that were shredded before an error remain so.
    pub async fn sweep(
        &self,
        connection: &mut Tx,
        options: &SweepOptions,
        progress: &mut (dyn FnMut(SweepProgress) + Send),
    ) -> Result<Swept> {
        self.sweep_as(connection, None, options, progress).await
    }

    pub(crate) async fn sweep_as(
        &self,
        connection: &mut Tx,
        actor: Option<&str>,
        options: &SweepOptions,
        progress: &mut (dyn FnMut(SweepProgress) + Send),
    ) -> Result<Swept> {
        let call = telemetry::sweep(self.known_namespace());
        call.run(|| self.sweep_what_is_due(connection, actor, options, progress)).await
    }

    async fn sweep_what_is_due(
        &self,
        connection: &mut Tx,
        actor: Option<&str>,
        options: &SweepOptions,
        progress: &mut (dyn FnMut(SweepProgress) + Send),
    ) -> Result<Swept> {
        self.check_namespace(connection).await?;
        self.copy_ahead(connection).await?;
        let (by, limit) = (now(), options.batch.max(1));
        let (mut swept, mut at, mut after) = (Swept::default(), SweepProgress::default(), None);
        loop {
            let page = self.store.due_scopes(connection, Some(by), after.as_ref(), limit).await?;
            at.found += page.len() as u64;
            for due in &page {
                let scope = due.scope.clone();
                match self.sweep_scope(connection, &scope, by, actor).await {
                    Ok(Fate::Shredded(keys)) => {
                        swept.shredded += 1;
                        swept.keys += keys;
                        self.copy_at_once(connection).await?;
                    }
                    Ok(Fate::NotDue) => {}
                    Ok(Fate::Busy) => swept.busy.push(scope),
                    Ok(Fate::Held(holds)) => swept.held.push(HeldScope { scope, holds }),
                    Err(error) if concerns_all(&error) => return Err(error),
                    Err(error) => {
                        let (scope_kind, scope_id) = (scope.kind(), scope.id());
                        tracing::warn!(scope_kind, scope_id, %error, "a shred that is due failed");
                        swept.failed.push(FailedScope { scope, error });
                    }
                }
                (at.done, at.shredded) = (at.done + 1, swept.shredded);
                progress(at);
            }
            if (page.len() as u64) < u64::from(limit) {
                break;
            }
            after = page.into_iter().next_back();
        }
        if swept.shredded > 0 {
            self.seal_log_afterwards(connection).await;
        }
        tracing::info!(shredded = swept.shredded, held = swept.held.len(), "swept what was due");
        Ok(swept)
    }

    async fn sweep_scope(
        &self,
        connection: &mut Tx,
        scope: &KeyScope,
        by: OffsetDateTime,
        actor: Option<&str>,
    ) -> Result<Fate> {
        for _ in 0..TRIES {
            let pinned = self.open_log_ahead(connection).await?;
            let mut work = Sweep { keys: self, scope, by, actor, pinned: &pinned, fate: Fate::NotDue };
            match self.store.transact(connection, "sweeping", &mut work).await {
                Ok(()) => return Ok(work.fate),
                Err(Error::Keys(KeyFault::Held { holds, .. })) => return Ok(Fate::Held(holds)),
                Err(Error::Collision { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Fate::Busy)
    }
}

/// How often a scope is tried that another transaction has locked.
const TRIES: u32 = 3;

/// What became of a scope.
enum Fate {
    Shredded(u64),
    /// Another sweep shredded it meanwhile, or its shred was cancelled or put off.
    NotDue,
    Held(Vec<Hold>),
    Busy,
}

/// Would the next scope fail in the same way?
fn concerns_all(error: &Error) -> bool {
    let of_the_log = matches!(error, Error::Keys(KeyFault::ShredLogBehind { .. } | KeyFault::LogCopy { .. }));
    of_the_log || error.is_outage() || matches!(error, Error::Kms(_) | Error::SetUp(_) | Error::Transaction(_))
}

/// Shreds one scope if it is due, in a transaction of its own.
struct Sweep<'a, Tx, K: ?Sized> {
    keys: &'a KeyManager<Tx, K>,
    scope: &'a KeyScope,
    by: OffsetDateTime,
    actor: Option<&'a str>,
    pinned: &'a Pinned,
    fate: Fate,
}

#[async_trait]
impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> TableWork<Tx> for Sweep<'_, Tx, K> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        self.fate = Fate::NotDue;
        let changing = self.keys.begin_change(tx, self.scope, false, self.pinned).await?;
        // The row was only a hint. The entries say what is due, now that the scope is locked.
        let Some(schedule) = changing.fold.schedule.as_ref().filter(|schedule| schedule.due <= self.by) else {
            return changing.check_agreement();
        };
        let cause = Cause { reason: &schedule.reason, actor: self.actor };
        let done = self.keys.shred_locked(tx, &changing, cause, Some(schedule.id)).await?;
        self.fate = Fate::Shredded(done.destroyed.len() as u64);
        Ok(())
    }
}
