//! Issues a certificate of what the keys, the log and its copies, and the stored events say.

use super::found::Found;
use super::log::{self, Log};
use super::sentences::{not_looked_at, remarks, why_not};
use super::{
    Authenticity, Certificate, CertificateOptions, CertificateProgress, CertificateScan, CertifiedEntry, CertifiedHold,
    CertifiedKey, CertifiedLog, CertifiedSchedule, KeyStanding, LogStanding,
};
use crate::erasure::horizon::Horizon;
use crate::error::{Error, KeyFault, Result};
use crate::event::now;
use crate::keys::log::Fold;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::shred_log::ShredLogCopy;
use crate::keys::{DataKeyRecord, KeyHistory, KeyManager, KeyStore, KeyTable, LogEntry, ScopeAction, ScopeState};
use crate::sealed_store::SealedStore;
use crate::store::{EventStore, EventTable};
use std::collections::{BTreeMap, HashMap, HashSet};
use time::OffsetDateTime;
use uuid::Uuid;

/// How many versions without a row are named.
const VERSIONS: usize = 100;

impl<S, K> SealedStore<S, K>
where
    S: EventStore + EventTable<Tx = <S as EventStore>::Tx>,
    K: KeyTable<Tx = <S as EventStore>::Tx> + ?Sized,
{
    /// Looks at everything that is stored of a scope, and certifies what is there: see [`Certificate`].
    ///
    /// It reads the header of every stored event, and opens none. It reads the whole shred log and checks it, and all
    /// of the `copies` that are given. Of the tables it changes nothing but that it gives entries of the shred log
    /// their numbers, as [`seal_log`](KeyManager::seal_log) does. In a transaction, or without the right to write, it
    /// leaves them without, and says so. It can be called while the application runs. It needs the integrity keys,
    /// which check the log: so the KMS is asked if they are not cached.
    ///
    /// What is erased is [proved](Certificate::proved) once a copy has the entry of the shred:
    /// [export](KeyManager::export_log) the log first, and pass the copy. Of several, each must be the beginning of the
    /// longest.
    ///
    /// A scope that was never shredded, or has live keys, gets a certificate that says so.
    ///
    /// ```
    /// # use eventseal::{EventStore, ExpectedVersion, KeyScope, Keyring, Namespace, NewEvent, Owner, Schemas};
    /// # use eventseal::{SealedStore, aggregate, event};
    /// # use eventseal::erasure::{CertificateOptions, FileCopy};
    /// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let db = MemoryDb::new(Namespace::new("demo")?);
    /// # let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
    /// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("demo")?, schemas);
    /// # store.keys().prepare(&mut db.begin()).await?;
    /// # let mut tx = db.begin();
    /// # let new = NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#);
    /// # store.append(&mut tx, &aggregate("Customer", "42"), ExpectedVersion::NoStream, &[new]).await?;
    /// # let scope = KeyScope::new("Customer", "42");
    /// store.keys().shred(&mut tx, &scope, "request 118").await?;
    /// # tx.commit()?;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("shop.shredlog");
    /// # let mut connection = db.begin();
    /// let copy = FileCopy::new(path);
    /// store.keys().export_log(&mut connection, &copy, &mut |_| {}).await?;
    /// let options = CertificateOptions::default();
    /// let certificate = store.certificate(&mut connection, &scope, &[&copy], &options, &mut |_| {}).await?;
    /// assert!(certificate.erased && certificate.proved);
    /// assert_eq!(certificate.events.unreadable_fields, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`KeyFault::ScopeState`] if the key table does not know the scope, or if it is one of this crate's own;
    /// - [`Error::Collision`] (retryable) if the keys or the entries of the scope changed meanwhile;
    /// - [`KeyFault::LogCopy`] if the copy can't be read; what is wrong with its content is in the certificate;
    /// - errors of the KMS, of the key table and of the [table of events](EventTable).
    pub async fn certificate(
        &self,
        connection: &mut <S as EventStore>::Tx,
        scope: &KeyScope,
        copies: &[&dyn ShredLogCopy],
        options: &CertificateOptions,
        progress: &mut (dyn FnMut(CertificateProgress) + Send),
    ) -> Result<Certificate> {
        let mut done = self.certificates(connection, std::slice::from_ref(scope), copies, options, progress).await?;
        match (done.certificates.pop(), done.failed.pop()) {
            (Some(certificate), _) => Ok(certificate),
            (None, failed) => Err(failed.map_or(Error::Collision { source: None }, |failed| failed.error)),
        }
    }
}

/// What the key table says about the scope.
#[derive(PartialEq)]
pub(super) struct Facts {
    namespace: Namespace,
    pub(super) history: KeyHistory,
    /// Every key, and whether there is a wrapped key in its row.
    pub(super) keys: Vec<(CertifiedKey, bool)>,
    /// The state and generation that the entries come to; or the number of the first entry that is not authentic, and
    /// what is wrong with it.
    pub(super) fold: Result<(ScopeState, u32), (u32, &'static str)>,
}

impl Facts {
    pub(super) async fn read<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized>(
        manager: &KeyManager<Tx, K>,
        connection: &mut Tx,
        scope: &KeyScope,
    ) -> Result<Option<Self>> {
        let namespace = manager.check_namespace(connection).await?;
        let Some(history) = manager.key_history(connection, scope).await? else { return Ok(None) };
        let (keys, _) = manager.log_keys(connection, &namespace, &history.entries, None).await?;
        let fold = match Fold::of(&namespace, &keys, scope, &history.entries) {
            Ok(fold) => Ok((fold.state, fold.generation)),
            Err(Error::Keys(KeyFault::LogAltered { entry, problem, .. })) => Err((entry, problem)),
            Err(error) => return Err(error),
        };
        let mut facts = Self { namespace, history, keys: Vec::new(), fold };
        let ids: HashSet<KeyId> = facts.known_keys().map(|(key_id, ..)| key_id).collect();
        let ids: Vec<KeyId> = ids.into_iter().collect();
        let rows = manager.store.data_keys(connection, &ids).await?;
        let rows = rows.into_iter().map(|row| (row.key_id, row)).collect();
        facts.keys = facts.certified_keys(&rows);
        Ok(Some(facts))
    }

    /// The keys that the rows and the entries name.
    pub(super) fn known_keys(&self) -> impl Iterator<Item = (KeyId, u32, OffsetDateTime)> {
        let of_rows = self.history.keys.iter().map(|key| (key.key_id, key.version, key.created_at));
        let named = self.history.entries.iter().flat_map(|entry| &entry.keys);
        of_rows.chain(named.map(|key| (key.key_id, key.version, key.created_at)))
    }

    fn certified_keys(&self, rows: &HashMap<KeyId, DataKeyRecord>) -> Vec<(CertifiedKey, bool)> {
        let named: HashMap<KeyId, Uuid> = self
            .history
            .entries
            .iter()
            .filter(|entry| self.authenticity(entry) == Authenticity::Verified)
            .flat_map(|entry| entry.keys.iter().map(|key| (key.key_id, entry.entry_id)))
            .collect();
        let known: BTreeMap<(u32, KeyId), OffsetDateTime> =
            self.known_keys().map(|(key_id, version, created_at)| ((version, key_id), created_at)).collect();
        let mut keys = Vec::with_capacity(known.len());
        let mut next = 1;
        for ((version, key_id), created_at) in known {
            keys.extend((next..version).take(VERSIONS).map(|version| (lost(version), false)));
            next = version.saturating_add(1);
            let row = rows.get(&key_id);
            let key = CertifiedKey {
                key_id: Some(key_id),
                version,
                standing: standing(row, &self.history.scope),
                created_at: Some(created_at),
                destroyed_at: row.and_then(|row| row.shredded_at),
                entry: named.get(&key_id).copied(),
            };
            keys.push((key, row.is_some_and(|row| row.wrapped_key.is_some())));
        }
        keys
    }

    fn authenticity(&self, entry: &LogEntry) -> Authenticity {
        match (self.fold, entry.mac) {
            (Err((first, _)), _) if entry.scope_seq >= first => Authenticity::NotVerified,
            (_, None) => Authenticity::BeforeTheLog,
            (_, Some(_)) => Authenticity::Verified,
        }
    }

    pub(super) fn certify(
        self,
        found: Found,
        log: &Log,
        scan: CertificateScan,
        options: &CertificateOptions,
    ) -> Certificate {
        let issued_at = now();
        let entries = self.entries(log);
        let last_shred = entries.iter().rev().find(|entry| entry.action == ScopeAction::Shred);
        // Keys that came back, and were destroyed again later, may be in copies from in between.
        let last_key = self.keys.iter().filter_map(|(key, _)| key.destroyed_at).max();
        let horizon = last_shred.map(|shred| Horizon::of_keys(&options.retention, shred.at, last_key));
        let mut certificate = Certificate {
            scope: self.history.scope.clone(),
            erased: false,
            proved: false,
            why_not: Vec::new(),
            remarks: Vec::new(),
            state: self.history.state,
            generation: self.history.generation,
            live_keys: self.keys.iter().filter(|(_, has_key)| *has_key).count() as u64,
            keys: Vec::new(),
            events: found.sum(),
            event_types: found.types(),
            malformed_seals: found.malformed,
            unknown_keys: found.unknown,
            holds: self.holds(issued_at),
            schedule: self.schedule(),
            entries,
            log: CertifiedLog { seq: log.end.0, hash: log.end.1, sound: log.wrong == 0, copies: log.copies.clone() },
            horizon,
            scan,
            not_looked_at: not_looked_at(scan, log),
            namespace: self.namespace.clone(),
            issued_at,
            library: concat!("eventseal ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        certificate.why_not = why_not(&self, &certificate, log);
        certificate.keys = self.keys.into_iter().map(|(key, _)| key).collect();
        certificate.erased = certificate.why_not.is_empty();
        let in_copy = certificate.last_shred().is_some_and(|shred| {
            shred.authenticity == Authenticity::Verified && matches!(shred.log, LogStanding::InCopy { .. })
        });
        certificate.proved = certificate.erased && log.is_sound() && in_copy;
        certificate.remarks = remarks(&certificate, log);
        certificate
    }

    fn entries(&self, log: &Log) -> Vec<CertifiedEntry> {
        let digests = log::digests(&self.namespace, &self.history.entries);
        let entries = self.history.entries.iter().zip(digests).map(|(entry, digest)| CertifiedEntry {
            entry: entry.entry_id,
            number: entry.scope_seq,
            at: entry.at,
            action: entry.action,
            generation: entry.generation,
            reason: entry.reason.clone(),
            actor: entry.actor.clone(),
            keys: entry.keys.iter().map(|key| key.key_id).collect(),
            authenticity: self.authenticity(entry),
            digest,
            log: log.standing(entry.entry_id),
        });
        entries.collect()
    }

    fn holds(&self, at: OffsetDateTime) -> Vec<CertifiedHold> {
        let entries = &self.history.entries;
        let holds = entries.iter().filter(|entry| entry.action == ScopeAction::Hold).map(|entry| {
            let released = entries
                .iter()
                .find(|other| other.action == ScopeAction::Release && other.about == Some(entry.entry_id));
            CertifiedHold {
                hold: entry.entry_id,
                reason: entry.reason.clone(),
                actor: entry.actor.clone(),
                since: entry.at,
                until: entry.until,
                released_at: released.map(|released| released.at),
                in_force: released.is_none() && entry.until.is_none_or(|until| at < until),
            }
        });
        holds.collect()
    }

    fn schedule(&self) -> Option<CertifiedSchedule> {
        let about = |entry: &&LogEntry| {
            matches!(entry.action, ScopeAction::Schedule | ScopeAction::Cancel | ScopeAction::Shred)
        };
        let last = self.history.entries.iter().rev().find(about)?;
        // A replay may put one behind a shred: it schedules nothing.
        let is_outstanding = last.action == ScopeAction::Schedule && last.state != ScopeState::Shredded;
        is_outstanding.then(|| CertifiedSchedule {
            schedule: last.entry_id,
            due: last.until.unwrap_or(last.at),
            reason: last.reason.clone(),
            actor: last.actor.clone(),
            since: last.at,
        })
    }
}

/// A key of which only the version is known.
fn lost(version: u32) -> CertifiedKey {
    let standing = KeyStanding::Missing;
    CertifiedKey { key_id: None, version, standing, created_at: None, destroyed_at: None, entry: None }
}

fn standing(row: Option<&DataKeyRecord>, scope: &KeyScope) -> KeyStanding {
    match row.map(|row| (row.scope == *scope, row.wrapped_key.is_some(), row.shredded_at.is_some())) {
        None => KeyStanding::Missing,
        Some((true, false, true)) => KeyStanding::Destroyed,
        Some((true, true, false)) => KeyStanding::Live,
        Some(_) => KeyStanding::Altered,
    }
}
