//! Copies of the shred log that have every decision before the call returns in which it was committed.

use crate::error::{Error, KeyFault, Result, StepError};
use crate::keys::KeyTable;
use crate::keys::manager::KeyManager;
use crate::telemetry;

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Seals the shred log, and adds what they lack to all copies that
    /// [`copy_shred_log`](crate::keys::KeyManagerBuilder::copy_shred_log) names. Call it after the commit of a
    /// transaction in which you shredded, reopened, held or changed a scope in another way, and before you report it.
    /// Calls that commit themselves do it.
    ///
    /// ```
    /// # use eventseal::{KeyScope, Keyring, Namespace};
    /// # use eventseal::erasure::FileCopy;
    /// # use eventseal::keys::KeyManager;
    /// # use eventseal::memory::{MemoryDb, MemoryKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("shop.shredlog");
    /// # let db = MemoryDb::new(Namespace::new("shop")?);
    /// let keys = KeyManager::builder(MemoryKeys::new(), Keyring::generate("main")?)
    ///     .copy_shred_log(FileCopy::new(&path))
    ///     .build();
    /// keys.prepare(&mut db.begin()).await?;
    /// // Once, when the service is set up.
    /// keys.export_log(&mut db.begin(), &FileCopy::new(&path), &mut |_| {}).await?;
    ///
    /// let mut tx = db.begin();
    /// keys.shred(&mut tx, &KeyScope::new("Customer", "cust_42"), "request 118").await?;
    /// tx.commit()?;
    /// keys.copy_log(&mut db.begin()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A process that ends between the commit and this call leaves a decision that no copy has. The next call of any
    /// process adds it, and so do [`prepare`](Self::prepare) and [`export_log`](Self::export_log). If the key database
    /// is restored before that, the decision is lost.
    ///
    /// An empty copy is refused, because it may be the wrong one. `export_log` begins it. If one copy fails, the others
    /// are written all the same.
    ///
    /// # Errors
    /// [`KeyFault::NotCopied`] if a copy does not have everything: what was decided is committed. If entries of other
    /// scopes were altered, [`KeyFault::LogAltered`]; the copies have all others then. Without a copy, those of
    /// [`seal_log`](Self::seal_log).
    pub async fn copy_log(&self, connection: &mut Tx) -> Result<()> {
        telemetry::copy_log(self.known_namespace()).run(|| self.copy_to_all(connection)).await
    }

    async fn copy_to_all(&self, connection: &mut Tx) -> Result<()> {
        if self.copies.is_empty() {
            return self.seal_log(connection).await.map(drop);
        }
        let (mut not_copied, mut altered) = (None, None);
        for copy in &self.copies {
            match self.export(connection, &**copy, false, &mut |_| {}).await {
                Ok((_, found)) => altered = altered.or(found),
                Err(error) => {
                    let source = StepError::new(Box::new(error));
                    not_copied.get_or_insert(Error::Keys(KeyFault::NotCopied { copy: copy.name(), source }));
                }
            }
        }
        // A copy that lacks what was decided must not be hidden by an entry that was altered: many go on after that.
        not_copied.or(altered).map_or(Ok(()), Err)
    }

    /// Brings the copies up to date before something is decided that this crate commits. If one can't be, nothing is
    /// begun.
    pub(crate) async fn copy_ahead(&self, connection: &mut Tx) -> Result<()> {
        for copy in &self.copies {
            let (_, altered) = self.export(connection, &**copy, false, &mut |_| {}).await?;
            warn(altered);
        }
        Ok(())
    }

    /// Copies what this crate has just committed.
    pub(crate) async fn copy_at_once(&self, connection: &mut Tx) -> Result<()> {
        if self.copies.is_empty() {
            return Ok(());
        }
        match self.copy_to_all(connection).await {
            Err(error @ Error::Keys(KeyFault::LogAltered { .. })) => warn(Some(error)),
            done => done?,
        }
        Ok(())
    }

    /// Adds at startup what a process that ended has left. A copy that can't be written is a warning: the next decision
    /// meets it.
    pub(crate) async fn copy_at_start(&self, connection: &mut Tx) {
        warn(self.copy_at_once(connection).await.err());
    }
}

fn warn(error: Option<Error>) {
    if let Some(error) = error {
        tracing::warn!(%error, "the shred log was not copied as a whole");
    }
}
