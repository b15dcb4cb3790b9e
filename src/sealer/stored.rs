//! Looks up the keys of stored events, and has the events opened. This is the only way in which they are read: they are
//! opened at their stored type and version, then upcast.
//!
//! User reads and maintenance share this code. They differ in which payloads they accept ([`Accepts`]), and in how the
//! rows of keys are looked up ([`Reader`]).

use crate::error::Result;
use crate::event::PersistedEvent;
use crate::keys::KeyStore;
use crate::keys::UsableKeys;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::schema::Schemas;
use crate::seal::opening::Keys;
use crate::seal::sealing::{Draft, SealingKey};
use crate::sealer::Sealer;
use crate::sealer::reading::{Accepts, Manner, OpenedRow, Read, Reader, counted};
use crate::sealer::threads::Threads;
use crate::telemetry::{Call, Reporting, Tally};
use std::borrow::Borrow;
use std::collections::HashSet;
use std::sync::Arc;

/// What is made of the events of a page, or of a part of it.
pub(super) trait Joins {
    /// What is made of no events.
    fn of_none() -> Self;

    /// Adds what was made of the next events.
    fn join(&mut self, next: Self);
}

impl<T> Joins for Vec<T> {
    fn of_none() -> Self {
        Self::new()
    }

    fn join(&mut self, mut next: Self) {
        self.append(&mut next);
    }
}

/// The first error counts.
impl<T: Joins, E> Joins for Result<T, E> {
    fn of_none() -> Self {
        Ok(T::of_none())
    }

    fn join(&mut self, next: Self) {
        if let Ok(done) = self {
            match next {
                Ok(next) => done.join(next),
                Err(error) => *self = Err(error),
            }
        }
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> Sealer<Tx, K> {
    /// Opens each event at its stored type and version. The result has one entry for each event: the opened event, or
    /// why it can't be read. Costs one query of the key table, or none if nothing is sealed.
    pub(crate) async fn open_rows<'s, E: Borrow<PersistedEvent> + Sync>(
        &'s self,
        tx: &mut Tx,
        events: &[E],
        accepts: Accepts,
        reader: Reader<'_>,
    ) -> Result<Vec<Result<OpenedRow<'s>>>> {
        let manner = Manner::of(accepts, reader);
        if self.threads.pay(&self.schemas, events) {
            let copies = events.iter().map(|event| event.borrow().clone()).collect();
            let opened = self.open_page(tx, copies, accepts, reader, None, without_schemas).await?.0;
            let with_schema = |(event, opened): (&E, Result<_>)| {
                let (row, is_upcast) = opened?;
                manner.with_schema(&self.schemas, event.borrow(), row, is_upcast)
            };
            return Ok(events.iter().zip(opened).map(with_schema).collect());
        }
        let reads = manner.inspect_all(&self.schemas, events);
        let keys = self.look_up(tx, &Needed::by(&reads, reader), reader).await?;
        Ok(manner.open_all(&self.schemas, events, reads, keys.as_ref()))
    }

    /// Opens the events of a page as [`open_rows`](Self::open_rows) does, and has `finish` make something of them.
    /// Returns that, and the keys that the events are sealed under.
    ///
    /// A large page is cut, and its parts are opened and finished on several [threads](Self::open_on_threads). What is
    /// made of the parts is joined in their order.
    ///
    /// What became of the events is counted for `call`, if there is one. The task that reads the page reports it once,
    /// whichever threads opened the events. So it does with the steps, with a call or without.
    pub(super) async fn open_page<R: Joins + Send + 'static>(
        &self,
        tx: &mut Tx,
        events: Vec<PersistedEvent>,
        accepts: Accepts,
        reader: Reader<'_>,
        call: Option<&Call>,
        finish: impl Fn(&Schemas, Vec<PersistedEvent>, Vec<Result<OpenedRow<'_>>>, &Tally) -> R + Send + Sync + 'static,
    ) -> Result<(R, HashSet<KeyId>)> {
        let manner = Manner::of(accepts, reader);
        if !self.threads.pay(&self.schemas, &events) {
            let reads = manner.inspect_all(&self.schemas, &events);
            let needed = Needed::by(&reads, reader);
            let keys = self.look_up(tx, &needed, reader).await?;
            let tally = Tally::default();
            let _reporting = (Reporting::new(call, &tally), self.schemas.reporting_steps());
            let rows = manner.open_all(&self.schemas, &events, reads, keys.as_ref());
            tally.add(counted(&rows));
            return Ok((finish(&self.schemas, events, rows, &tally), needed.key_ids));
        }
        let schemas = Arc::clone(&self.schemas);
        let inspect = move |events: Vec<PersistedEvent>| {
            let reads = manner.inspect_all(&schemas, &events);
            (events, reads)
        };
        let parts = self.threads.spread(Threads::cut(events), inspect).await;
        let needed = Needed::by(parts.iter().flat_map(|(_, reads)| reads), reader);
        let keys = self.look_up(tx, &needed, reader).await?;
        let (schemas, tally) = (Arc::clone(&self.schemas), Arc::new(Tally::default()));
        let _reporting = (Reporting::new(call, Arc::clone(&tally)), self.schemas.reporting_steps());
        let open = move |(events, reads): (Vec<PersistedEvent>, Vec<Result<Read>>)| {
            let rows = manner.open_all(&schemas, &events, reads, keys.as_ref());
            tally.add(counted(&rows));
            finish(&schemas, events, rows, &tally)
        };
        let mut all = R::of_none();
        for part in self.threads.spread(parts, open).await {
            all.join(part);
        }
        Ok((all, needed.key_ids))
    }

    /// The states of these keys, in one query. `None` if there are none.
    async fn look_up(&self, tx: &mut Tx, needed: &Needed, reader: Reader<'_>) -> Result<Option<(Namespace, Keys)>> {
        let Needed { key_ids, integrity } = needed;
        if key_ids.is_empty() {
            return Ok(None);
        }
        let keys = match reader {
            Reader::User(read) => self.keys.opening_keys(tx, key_ids, read).await?,
            Reader::Maintenance | Reader::Verifier => self.keys.opening_keys_now(tx, key_ids, None).await?,
            Reader::Locked(pinned) => self.keys.opening_keys_now(tx, key_ids, Some(pinned)).await?,
            Reader::Owner(owner) => self.keys.opening_keys_of(tx, key_ids, owner, integrity).await?,
        };
        Ok(Some(keys))
    }
}

/// The keys that events name.
struct Needed {
    /// All of them.
    key_ids: HashSet<KeyId>,
    /// The integrity keys among them, if the reader may see the values of one owner only.
    integrity: HashSet<KeyId>,
}

impl Needed {
    fn by<'r>(reads: impl IntoIterator<Item = &'r Result<Read>>, reader: Reader<'_>) -> Self {
        let (mut key_ids, mut integrity) = (HashSet::new(), HashSet::new());
        for closed in reads.into_iter().flatten().flat_map(Read::closed) {
            key_ids.extend(closed.key_ids());
            if matches!(reader, Reader::Owner(_)) {
                integrity.insert(closed.integrity_key());
            }
        }
        Self { key_ids, integrity }
    }
}

/// What can go from one thread to another of opened events.
fn without_schemas(
    _: &Schemas,
    _: Vec<PersistedEvent>,
    rows: Vec<Result<OpenedRow<'_>>>,
    _: &Tally,
) -> Vec<Result<(OpenedRow<'static>, bool)>> {
    rows.into_iter().map(|row| row.map(OpenedRow::without_schema)).collect()
}

/// Seals a draft of a stored event. `keys` must have a usable key for each of its scopes.
pub(crate) fn seal_draft(draft: &Draft<'_>, keys: &UsableKeys, salt: &[u8; 16]) -> Result<Vec<u8>> {
    let of_scope = |scope: &KeyScope| keys.key(scope).map(|(id, key)| SealingKey { id: *id, key });
    let sealing: Vec<SealingKey<'_>> = draft.scopes.iter().map(of_scope).collect::<Result<_>>()?;
    let integrity = SealingKey { id: keys.integrity.0, key: &keys.integrity.1 };
    draft.seal(&keys.namespace, &sealing, &integrity, salt)
}
