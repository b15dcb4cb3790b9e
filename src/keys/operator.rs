//! Changes of scopes with the name of whoever makes them.

use crate::error::Result;
use crate::keys::names::KeyScope;
use crate::keys::{KeyInfo, KeyManager, KeyStore, KeyTable, ScopeAction, Shredding};
use std::fmt;

/// A [`KeyManager`] in somebody's hands: [`KeyManager::acting_as`] makes one.
///
/// What is done through it has the actor's name in its history, beside the reason. The name is kept for good, and
/// nobody checks it: take an account of the operators, such as `clerk 7`, and never the person whose data it is about.
///
/// Every method fails as that of [`KeyManager`] does, and with
/// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if the actor's name is empty, longer than 1,024
/// bytes or holds a NUL character.
pub struct KeyOperator<'a, Tx, K: ?Sized = dyn KeyTable<Tx = Tx>> {
    pub(crate) keys: &'a KeyManager<Tx, K>,
    pub(crate) actor: String,
}

/// Why something is done and by whom, in the caller's words.
#[derive(Clone, Copy)]
pub(crate) struct Cause<'a> {
    pub(crate) reason: &'a str,
    pub(crate) actor: Option<&'a str>,
}

impl<'a> Cause<'a> {
    /// Nobody said who does it.
    pub(crate) fn of(reason: &'a str) -> Self {
        Self { reason, actor: None }
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyOperator<'_, Tx, K> {
    /// As [`KeyManager::shred`].
    ///
    /// # Errors
    /// As [`KeyManager::shred`].
    pub async fn shred(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<Shredding> {
        self.keys.shred_because(tx, scope, self.because(reason)).await
    }

    /// As [`KeyManager::reopen`].
    ///
    /// # Errors
    /// As [`KeyManager::reopen`].
    pub async fn reopen(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<KeyInfo> {
        self.keys.reopen_because(tx, scope, self.because(reason)).await
    }

    /// As [`KeyManager::disable`].
    ///
    /// # Errors
    /// As [`KeyManager::disable`].
    pub async fn disable(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.keys.switch(tx, scope, self.because(reason), ScopeAction::Disable).await
    }

    /// As [`KeyManager::enable`].
    ///
    /// # Errors
    /// As [`KeyManager::enable`].
    pub async fn enable(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.keys.switch(tx, scope, self.because(reason), ScopeAction::Enable).await
    }

    fn because<'r>(&'r self, reason: &'r str) -> Cause<'r> {
        Cause { reason, actor: Some(&self.actor) }
    }
}

impl<Tx, K: ?Sized> fmt::Debug for KeyOperator<'_, Tx, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyOperator").field("keys", &self.keys).field("actor", &self.actor).finish()
    }
}
