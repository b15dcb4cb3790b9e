//! Certificates of several scopes: one look at the log and its copies, and one at the stored events, serve them all.

use super::found::{Found, WithRows};
use super::issue::Facts;
use super::log::{self, Log, Look};
use super::{Certificate, CertificateOptions, CertificateScan, KeyStanding};
use crate::error::{Error, KeyFault, Result};
use crate::event::GlobalPosition;
use crate::keys::KeyTable;
use crate::keys::hold::FailedScope;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::shred_log::{LogProgress, ShredLogCopy};
use crate::maintenance::{EventsOf, EventsOfOptions, EventsOfPage, EventsOfProgress, OtherKeys};
use crate::sealed_store::SealedStore;
use crate::store::{EventStore, EventTable};
use crate::telemetry;
use std::collections::{BTreeSet, HashMap, HashSet};

/// How far the reading for certificates has come. It reads each copy, then the log, then the stored events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProgress {
    /// A copy of the shred log is read, in lines. There are about as many as there are entries.
    Copy(LogProgress),
    /// The shred log is read, in entries.
    Log(LogProgress),
    /// The stored events are read.
    Events(EventsOfProgress),
}

/// The certificates of several scopes.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Certified {
    /// The certificates, in the order of the scopes.
    pub certificates: Vec<Certificate>,
    /// The scopes without one: those that the key table does not know, and those whose keys or entries changed
    /// meanwhile ([`Error::Collision`]: ask for them again).
    pub failed: Vec<FailedScope>,
}

impl<S, K> SealedStore<S, K>
where
    S: EventStore + EventTable<Tx = <S as EventStore>::Tx>,
    K: KeyTable<Tx = <S as EventStore>::Tx> + ?Sized,
{
    /// Certifies what is stored of several scopes, as [`certificate`](Self::certificate) does of one. The shred log,
    /// the copies and the stored events are read once for all of them, so a hundred certificates take about as long as
    /// one. A scope that is named twice gets one certificate.
    ///
    /// ```
    /// # use eventseal::{EventStore, ExpectedVersion, KeyScope, Keyring, Namespace, NewEvent, Owner, Schemas};
    /// # use eventseal::{SealedStore, aggregate, event};
    /// # use eventseal::erasure::CertificateOptions;
    /// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let db = MemoryDb::new(Namespace::new("demo")?);
    /// # let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
    /// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("demo")?, schemas);
    /// # store.keys().prepare(&mut db.begin()).await?;
    /// # let mut tx = db.begin();
    /// # for id in ["42", "43"] {
    /// #     let new = NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#);
    /// #     store.append(&mut tx, &aggregate("Customer", id), ExpectedVersion::NoStream, &[new]).await?;
    /// # }
    /// # tx.commit()?;
    /// let scopes = ["42", "43", "unknown"].map(|id| KeyScope::new("Customer", id));
    /// let options = CertificateOptions::default();
    /// let certified = store.certificates(&mut db.begin(), &scopes, &[], &options, &mut |_| {}).await?;
    /// assert_eq!(certified.certificates[1].scope, scopes[1]);
    /// assert_eq!(certified.failed[0].scope, scopes[2]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`certificate`](Self::certificate) that are not about one scope.
    pub async fn certificates(
        &self,
        connection: &mut <S as EventStore>::Tx,
        scopes: &[KeyScope],
        copies: &[&dyn ShredLogCopy],
        options: &CertificateOptions,
        progress: &mut (dyn FnMut(CertificateProgress) + Send),
    ) -> Result<Certified> {
        let call = telemetry::certificates(self.keys().known_namespace(), scopes.len());
        call.run(|| self.certify_each(connection, scopes, copies, options, progress)).await
    }

    async fn certify_each(
        &self,
        connection: &mut <S as EventStore>::Tx,
        scopes: &[KeyScope],
        copies: &[&dyn ShredLogCopy],
        options: &CertificateOptions,
        progress: &mut (dyn FnMut(CertificateProgress) + Send),
    ) -> Result<Certified> {
        scopes.iter().try_for_each(KeyScope::check)?;
        let fault = log::seal(self.keys(), connection).await?;
        let (mut done, mut subjects) = (Certified::default(), Subjects::default());
        let mut seen = HashSet::new();
        for scope in scopes.iter().filter(|scope| seen.insert(*scope)) {
            match self.facts_of(connection, scope).await {
                Ok(facts) => subjects.add(facts),
                Err(error) => done.failed.push(of_scope(scope, error)?),
            }
        }
        if subjects.all.is_empty() {
            return Ok(done);
        }
        let look = Look::at(self.keys(), connection, &subjects.entries(), copies, fault, progress).await?;
        let logs: Vec<Log> = subjects.all.iter().map(|(facts, _)| look.of(&facts.history)).collect();
        // It holds a line for every entry of every copy.
        drop(look);
        let scan = self.look_at_events(connection, &mut subjects, options, progress).await?;
        for ((facts, found), log) in subjects.all.into_iter().zip(logs) {
            let scope = facts.history.scope.clone();
            match Facts::read(self.keys(), connection, &scope).await? {
                Some(now) if now == facts => done.certificates.push(facts.certify(found, &log, scan, options)),
                _ => done.failed.push(FailedScope { scope, error: Error::Collision { source: None } }),
            }
        }
        Ok(done)
    }

    async fn facts_of(&self, connection: &mut <S as EventStore>::Tx, scope: &KeyScope) -> Result<Facts> {
        let refused = |problem| Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem });
        if scope.is_reserved() {
            return Err(refused("belongs to eventseal itself: it authenticates every seal, and seals no value"));
        }
        let facts = Facts::read(self.keys(), connection, scope).await?;
        facts.ok_or_else(|| refused("has no keys: nothing was ever sealed for it"))
    }

    async fn look_at_events(
        &self,
        connection: &mut <S as EventStore>::Tx,
        subjects: &mut Subjects,
        options: &CertificateOptions,
        progress: &mut (dyn FnMut(CertificateProgress) + Send),
    ) -> Result<CertificateScan> {
        let mut search_options = EventsOfOptions::default();
        (search_options.batch, search_options.use_index) = (options.batch, options.use_index);
        let ids: Vec<KeyId> = subjects.of_key.keys().copied().collect();
        let mut search = EventsOf::of_keys(self.inner(), connection, ids, &search_options).await?.noting_others();
        let mut with_rows = WithRows::default();
        while let Some(page) = search.next(connection).await? {
            let others = with_rows.without(self.keys(), connection, search.take_others()).await?;
            subjects.add_page(&page, others, search.uses_index());
            progress(CertificateProgress::Events(page.progress));
        }
        let EventsOfProgress { last, looked_at, .. } = search.progress();
        let index_used = search.uses_index();
        Ok(CertificateScan { after: GlobalPosition::START, up_to: last, looked_at, index_used })
    }
}

/// An error that concerns one scope; others fail the call.
fn of_scope(scope: &KeyScope, error: Error) -> Result<FailedScope> {
    match error {
        Error::Keys(KeyFault::ScopeState { .. }) => Ok(FailedScope { scope: scope.clone(), error }),
        error => Err(error),
    }
}

/// The scopes that are certified.
#[derive(Default)]
struct Subjects {
    /// What the key table says of each, and what the look at the events has found so far.
    all: Vec<(Facts, Found)>,
    /// Whose each key is, as indices. A row may name another scope than an entry.
    of_key: HashMap<KeyId, Vec<usize>>,
    /// Those of these keys that have no row.
    without_row: HashSet<KeyId>,
}

impl Subjects {
    fn add(&mut self, facts: Facts) {
        for (key, _) in &facts.keys {
            let Some(key_id) = key.key_id else { continue };
            self.of_key.entry(key_id).or_default().push(self.all.len());
            if key.standing == KeyStanding::Missing {
                self.without_row.insert(key_id);
            }
        }
        self.all.push((facts, Found::default()));
    }

    /// The entries that are known of each scope.
    fn entries(&self) -> HashMap<KeyScope, HashSet<uuid::Uuid>> {
        let of_scope = |(facts, _): &(Facts, Found)| {
            let ids = facts.history.entries.iter().map(|entry| entry.entry_id);
            (facts.history.scope.clone(), ids.collect())
        };
        self.all.iter().map(of_scope).collect()
    }

    /// Counts the events of a page, each for the scopes whose keys seal places of it. `others` are other keys without a
    /// row that events of the page name.
    fn add_page(&mut self, page: &EventsOfPage, mut others: Vec<OtherKeys>, uses_index: bool) {
        for found in &page.events {
            let owners = found.places.iter().filter_map(|place| self.of_key.get(&place.key_id)).flatten();
            for owner in owners.copied().collect::<BTreeSet<usize>>() {
                let (facts, counts) = &mut self.all[owner];
                counts.add(&facts.keys, found);
            }
            // To the other scopes, a key of this one without a row is one of which nobody knows whose it was.
            let lost = found.places.iter().map(|place| place.key_id).filter(|key| self.without_row.contains(key));
            let keys: Vec<KeyId> = lost.collect();
            if self.all.len() > 1 && !uses_index && !keys.is_empty() {
                let (position, event_id) = (found.event.global_position, found.event.event_id);
                match others.iter_mut().find(|other| other.position == position) {
                    Some(other) => other.keys.extend(keys),
                    None => others.push(OtherKeys { position, event_id, keys }),
                }
            }
        }
        others.sort_by_key(|event| event.position);
        for (index, (_, found)) in self.all.iter_mut().enumerate() {
            let is_own = |key_id: &KeyId| self.of_key.get(key_id).is_some_and(|owners| owners.contains(&index));
            for event in others.iter().filter(|event| !event.keys.iter().all(is_own)) {
                found.unknown.add(event.position, event.event_id);
            }
            for event in &page.unreadable {
                found.malformed.add(event.global_position, event.event_id);
            }
        }
    }
}
