//! Changes of scopes that record the name of the actor.

use crate::error::Result;
use crate::keys::names::KeyScope;
use crate::keys::shred_log::AdoptedEntries;
use crate::keys::sweep::{SweepOptions, SweepProgress, Swept};
use crate::keys::{Hold, KeyInfo, KeyManager, KeyStore, KeyTable, Schedule, ScopeAction, ShredMode, Shredding};
use std::fmt;
use time::OffsetDateTime;

/// A [`KeyManager`] with the name of an actor. [`KeyManager::acting_as`] makes one.
///
/// The history records the actor's name beside the reason for every change that is made through it. The name is kept
/// for good, and is not checked. Use an account of an operator, such as `clerk 7`, and never the name of the person
/// whose data it is about.
///
/// Every method fails as the method of [`KeyManager`] does, and also with
/// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if the actor's name is empty, longer than 1,024
/// bytes or holds a NUL character.
pub struct KeyOperator<'a, Tx, K: ?Sized = dyn KeyTable<Tx = Tx>> {
    pub(crate) keys: &'a KeyManager<Tx, K>,
    pub(crate) actor: String,
}

/// The reason and the actor of a change, in the caller's words.
#[derive(Clone, Copy)]
pub(crate) struct Cause<'a> {
    pub(crate) reason: &'a str,
    pub(crate) actor: Option<&'a str>,
}

impl<'a> Cause<'a> {
    /// A reason without an actor.
    pub(crate) fn of(reason: &'a str) -> Self {
        Self { reason, actor: None }
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyOperator<'_, Tx, K> {
    /// [`KeyManager::shred`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::shred`].
    pub async fn shred(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<Shredding> {
        self.keys.shred_because(tx, scope, self.because(reason)).await
    }

    /// [`KeyManager::reopen`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::reopen`].
    pub async fn reopen(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<KeyInfo> {
        self.keys.reopen_because(tx, scope, self.because(reason)).await
    }

    /// [`KeyManager::disable`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::disable`].
    pub async fn disable(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.keys.switch(tx, scope, self.because(reason), ScopeAction::Disable).await
    }

    /// [`KeyManager::enable`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::enable`].
    pub async fn enable(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.keys.switch(tx, scope, self.because(reason), ScopeAction::Enable).await
    }

    /// [`KeyManager::hold`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::hold`].
    pub async fn hold(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        reason: &str,
        until: Option<OffsetDateTime>,
    ) -> Result<Hold> {
        self.keys.hold_because(tx, scope, self.because(reason), until).await
    }

    /// [`KeyManager::release`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::release`].
    pub async fn release(&self, tx: &mut Tx, hold: &Hold, reason: &str) -> Result<()> {
        self.keys.release_because(tx, hold, self.because(reason)).await
    }

    /// [`KeyManager::schedule_shred`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::schedule_shred`].
    pub async fn schedule_shred(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        due: OffsetDateTime,
        mode: ShredMode,
        reason: &str,
    ) -> Result<Schedule> {
        self.keys.schedule_because(tx, scope, due, mode, self.because(reason)).await
    }

    /// [`KeyManager::cancel`], with the actor in the history.
    ///
    /// # Errors
    /// Those of [`KeyManager::cancel`].
    pub async fn cancel(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.keys.cancel_because(tx, scope, self.because(reason)).await
    }

    fn because<'r>(&'r self, reason: &'r str) -> Cause<'r> {
        Cause { reason, actor: Some(&self.actor) }
    }
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyOperator<'_, Tx, K> {
    /// [`KeyManager::sweep`], with the actor in the histories.
    ///
    /// # Errors
    /// Those of [`KeyManager::sweep`].
    pub async fn sweep(
        &self,
        connection: &mut Tx,
        options: &SweepOptions,
        progress: &mut (dyn FnMut(SweepProgress) + Send),
    ) -> Result<Swept> {
        self.keys.sweep_as(connection, Some(&self.actor), options, progress).await
    }

    /// [`KeyManager::adopt_entries`], with the actor in the histories.
    ///
    /// # Errors
    /// Those of [`KeyManager::adopt_entries`].
    pub async fn adopt_entries(&self, connection: &mut Tx, reason: &str) -> Result<AdoptedEntries> {
        self.keys.adopt_because(connection, Cause { reason, actor: Some(&self.actor) }).await
    }
}

impl<Tx, K: ?Sized> fmt::Debug for KeyOperator<'_, Tx, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyOperator").field("keys", &self.keys).field("actor", &self.actor).finish()
    }
}
