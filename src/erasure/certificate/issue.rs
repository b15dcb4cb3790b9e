//! Issues a certificate: looks at the keys, at the log, at the stored events, and at the keys and the log again.

use super::found::Found;
use super::{
    Authenticity, Certificate, CertificateOptions, CertificateScan, CertifiedEntry, CertifiedHold, CertifiedKey,
    CertifiedSchedule, Finding, FindingKind, KeyStanding, LogStanding,
};
use crate::erasure::horizon::Horizon;
use crate::erasure::json::in_rfc3339;
use crate::error::{Error, KeyFault, Result};
use crate::event::{GlobalPosition, now};
use crate::keys::log::{Fold, digest};
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::{DataKeyRecord, KeyHistory, KeyManager, KeyStore, LogEntry, ScopeAction, ScopeState};
use crate::maintenance::{EventsOf, EventsOfOptions, EventsOfProgress};
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
    K: KeyStore<Tx = <S as EventStore>::Tx> + ?Sized,
{
    /// Looks at everything that is stored of a scope, and certifies what is there: see [`Certificate`].
    ///
    /// It reads the header of every stored event, and opens none. It changes and locks nothing, so it can be called
    /// while the application runs. It needs the integrity key, which checks the entries of the scope in the shred log:
    /// so the KMS is asked if that key is not cached. `connection` need not be in a transaction.
    ///
    /// A scope that was never shredded, or has live keys, gets a certificate that says so.
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
    /// # let new = NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#);
    /// # store.append(&mut tx, &aggregate("Customer", "42"), ExpectedVersion::NoStream, &[new]).await?;
    /// # let scope = KeyScope::new("Customer", "42");
    /// store.keys().shred(&mut tx, &scope, "request 118").await?;
    /// # tx.commit()?;
    /// let options = CertificateOptions::default();
    /// let certificate = store.certificate(&mut db.begin(), &scope, &options, &mut |_| {}).await?;
    /// assert!(certificate.erased);
    /// assert_eq!(certificate.events.unreadable_fields, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`KeyFault::ScopeState`] if the key table does not know the scope, or if it is one of this crate's own;
    /// - [`Error::Collision`] (retryable) if the keys or the entries of the scope changed meanwhile;
    /// - errors of the KMS, of the key table and of the [table of events](EventTable).
    pub async fn certificate(
        &self,
        connection: &mut <S as EventStore>::Tx,
        scope: &KeyScope,
        options: &CertificateOptions,
        progress: &mut (dyn FnMut(EventsOfProgress) + Send),
    ) -> Result<Certificate> {
        scope.check()?;
        let refused = |problem| Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem });
        if scope.is_reserved() {
            return Err(refused("belongs to eventseal itself: it authenticates every seal, and seals no value"));
        }
        let unknown = || refused("has no keys: nothing was ever sealed for it");
        let facts = Facts::read(self.keys(), connection, scope).await?.ok_or_else(unknown)?;
        let mut found = Found::default();
        let mut search_options = EventsOfOptions::default();
        (search_options.batch, search_options.use_index) = (options.batch, options.use_index);
        let ids = facts.keys.iter().filter_map(|key| key.0.key_id);
        let mut search = EventsOf::of_keys(self.inner(), connection, ids, &search_options).await?.noting_others();
        while let Some(page) = search.next(connection).await? {
            page.events.iter().for_each(|event| found.add(&facts.keys, event));
            for event in &page.unreadable {
                found.malformed.add(event.global_position, event.event_id);
            }
            found.look_for_unknown(self.keys(), connection, search.take_others()).await?;
            progress(page.progress);
        }
        if Facts::read(self.keys(), connection, scope).await?.as_ref() != Some(&facts) {
            return Err(Error::Collision { source: None });
        }
        let EventsOfProgress { last, looked_at, .. } = search.progress();
        let index_used = search.uses_index();
        let scan = CertificateScan { after: GlobalPosition::START, up_to: last, looked_at, index_used };
        Ok(facts.certify(found, scan, options))
    }
}

/// What the key table says about the scope.
#[derive(PartialEq)]
struct Facts {
    namespace: Namespace,
    history: KeyHistory,
    /// Every key, and whether there is a wrapped key in its row.
    keys: Vec<(CertifiedKey, bool)>,
    /// The state and generation that the entries come to; or the number of the first entry that is not authentic, and
    /// what is wrong with it.
    fold: Result<(ScopeState, u32), (u32, &'static str)>,
}

impl Facts {
    async fn read<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized>(
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
    fn known_keys(&self) -> impl Iterator<Item = (KeyId, u32, OffsetDateTime)> {
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

    fn certify(self, found: Found, scan: CertificateScan, options: &CertificateOptions) -> Certificate {
        let issued_at = now();
        let entries = self.entries();
        let last_shred = entries.iter().rev().find(|entry| entry.action == ScopeAction::Shred);
        let horizon = last_shred.map(|shred| Horizon::of(&options.retention, shred.at));
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
            horizon,
            scan,
            not_looked_at: not_looked_at(scan),
            namespace: self.namespace.clone(),
            issued_at,
            library: concat!("eventseal ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        certificate.why_not = self.why_not(&certificate);
        certificate.keys = self.keys.into_iter().map(|(key, _)| key).collect();
        certificate.erased = certificate.why_not.is_empty();
        let in_copy = certificate.last_shred().is_some_and(|shred| matches!(shred.log, LogStanding::InCopy { .. }));
        certificate.proved = certificate.erased && in_copy;
        certificate.remarks = remarks(&certificate);
        certificate
    }

    fn entries(&self) -> Vec<CertifiedEntry> {
        let mut last = None;
        let entries = self.history.entries.iter().map(|entry| {
            let digest = digest(&self.namespace, entry, last.as_ref());
            last = Some(digest);
            CertifiedEntry {
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
                log: LogStanding::NotLookedAt,
            }
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
        (last.action == ScopeAction::Schedule).then(|| CertifiedSchedule {
            schedule: last.entry_id,
            due: last.until.unwrap_or(last.at),
            reason: last.reason.clone(),
            actor: last.actor.clone(),
            since: last.at,
        })
    }

    fn why_not(&self, certificate: &Certificate) -> Vec<Finding> {
        let mut found = Vec::new();
        match self.fold {
            Err((entry, problem)) => {
                let text = format!("Entry {entry} of the scope in the shred log {problem}.");
                found.push(Finding::new(FindingKind::LogAltered, text));
            }
            Ok(fold) if fold != (self.history.state, self.history.generation) => {
                let text = format!(
                    "The row of the scope says {}, generation {}. Its entries in the shred log say {}, generation {}.",
                    self.history.state.as_str(),
                    self.history.generation,
                    fold.0.as_str(),
                    fold.1
                );
                found.push(Finding::new(FindingKind::StateDisagrees, text));
            }
            Ok(_) => {}
        }
        let is_shredded = self.history.state == ScopeState::Shredded;
        if !is_shredded {
            let reopened = certificate.entries.iter().rev().find(|entry| entry.action == ScopeAction::Reopen);
            found.push(match reopened.filter(|_| certificate.last_shred().is_some()) {
                Some(entry) => {
                    let at = in_rfc3339(entry.at);
                    let text = format!("The scope was reopened at {at}, for this reason: {}", entry.reason);
                    Finding::new(FindingKind::Reopened, text)
                }
                None => Finding::new(FindingKind::NeverShredded, "The scope is not shredded."),
            });
        }
        match (certificate.live_keys, is_shredded) {
            (0, _) => {}
            (live, true) => {
                let text = format!("The scope is shredded, and has {} again.", count(live, "key"));
                found.push(Finding::new(FindingKind::KeysCameBack, text));
            }
            (live, false) => {
                let text = format!("{} can still be used.", count(live, "key"));
                found.push(Finding::new(FindingKind::LiveKeys, text));
            }
        }
        for (key, _) in &self.keys {
            let version = key.version;
            match key.standing {
                KeyStanding::Missing if key.entry.is_none() => {
                    let text = format!("Key {version} has no row: it was lost, and no shred destroyed it.");
                    found.push(Finding::new(FindingKind::KeyLost, text));
                }
                KeyStanding::Altered => {
                    let text = format!("The row of key {version} was altered: it is neither a key nor a tombstone.");
                    found.push(Finding::new(FindingKind::KeyAltered, text));
                }
                _ => {}
            }
        }
        found
    }
}

fn not_looked_at(scan: CertificateScan) -> Vec<String> {
    let with_index = "Events to which the index of seals does not lead: somebody wrote them past it, or their key has \
        no row.";
    let by_index = scan.index_used.then_some(with_index);
    by_index.into_iter().chain(NOT_LOOKED_AT).map(str::to_owned).collect()
}

/// What every certificate leaves out.
const NOT_LOOKED_AT: [&str; 6] = [
    "Values that were stored in the clear: no seal says whose they are. A census counts such events.",
    "Whether each seal is authentic: its header was read, and not verified.",
    "Other scopes of the same person, under another kind or another spelling of the id.",
    "Other systems: projections, search indexes, logs, exports, mails.",
    "Backups, archives and replicas of the database. The horizon rests on what was said about them.",
    "The chain of the shred log, and copies of it: eventseal shred-log verify checks both.",
];

/// What the reader should know beside the counts.
fn remarks(certificate: &Certificate) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |kind, text: String| found.push(Finding::new(kind, text));
    if certificate.erased && !certificate.proved {
        let text = "No copy of the shred log was looked at. Until a copy has the entry of the shred, somebody who can \
            write to the database, or a restore, could undo the shred without a trace.";
        say(FindingKind::NotProved, text.to_owned());
    }
    if certificate.last_shred().is_some_and(|shred| shred.authenticity == Authenticity::BeforeTheLog) {
        let text = "The shred is older than the shred log, so nothing vouches for its entry.";
        say(FindingKind::NotAuthenticated, text.to_owned());
    }
    for key in &certificate.keys {
        let version = key.version;
        match (key.standing, key.entry) {
            (KeyStanding::Missing, Some(_)) => {
                let text = format!("Key {version} was destroyed by a shred, and its tombstone is gone since.");
                say(FindingKind::NoTombstone, text);
            }
            (KeyStanding::Destroyed, None) => {
                let text = format!("Key {version} is destroyed, and no authentic entry of the shred log names it.");
                say(FindingKind::NotNamed, text);
            }
            _ => {}
        }
    }
    let doubts = [
        (&certificate.malformed_seals, FindingKind::MalformedSeals, "a header that can't be read"),
        (&certificate.unknown_keys, FindingKind::UnknownKeys, "a key that has no row"),
    ];
    for (doubtful, kind, what) in doubts {
        if doubtful.events > 0 {
            let (events, verb) = match doubtful.events {
                1 => ("1 event".to_owned(), "has"),
                many => (count(many, "event"), "have"),
            };
            say(kind, format!("{events} {verb} {what}. Nobody knows whose values these are, so they are not counted."));
        }
    }
    let held = certificate.holds.iter().filter(|hold| hold.in_force).count() as u64;
    if held > 0 {
        say(FindingKind::Held, format!("The scope can't be shredded now: {} in force.", are(held, "hold")));
    }
    if let Some(schedule) = &certificate.schedule {
        say(FindingKind::Scheduled, format!("A shred is scheduled for {}.", in_rfc3339(schedule.due)));
    }
    found
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

fn count(many: u64, what: &str) -> String {
    format!("{many} {what}{}", if many == 1 { "" } else { "s" })
}

fn are(many: u64, what: &str) -> String {
    format!("{} {}", count(many, what), if many == 1 { "is" } else { "are" })
}
