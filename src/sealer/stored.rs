//! Reads stored events. This is the only way in which they are read: they are opened at their stored type and version,
//! then upcast.
//!
//! User reads and maintenance share this code. They differ in which payloads they accept ([`Accepts`]), and in how the
//! rows of keys are looked up ([`Reader`]).

use crate::error::{Error, EventFault, Result};
use crate::event::{EventRef, PersistedEvent, Sealed};
use crate::keys::KeyStore;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{Pinned, ReadKeys, UsableKeys};
use crate::schema::{Journey, Owners, ReadAs, Readable};
use crate::seal::detect::{is_sealed, may_hold_header};
use crate::seal::normalize::Normalizers;
use crate::seal::opening::{Closed, KeyStatus, Keys, Opened, inspect};
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, SealingKey};
use crate::sealer::Sealer;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Which stored payloads are accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Those that a user's read accepts: the schemas say whether protected values may be in the clear.
    AsDeclared,
    /// Only those whose protected values are all sealed.
    SealedOnly,
    /// Those with protected values in the clear too.
    Plaintext,
}

/// Who reads. This decides how the rows of keys are looked up.
#[derive(Clone, Copy)]
pub(crate) enum Reader<'p> {
    /// A user. Rows that were looked up recently may be used again, within the lag that the user allows. So may rows
    /// that were read with the events.
    User(Option<&'p ReadKeys>),
    /// Maintenance. Rows are looked up now, and the [`Coverage`] of seals is noted.
    Maintenance,
    /// Maintenance that holds locks. It must not wait for the KMS, so only key-encryption keys that were opened before
    /// are used.
    Locked(&'p Pinned),
    /// Somebody who may see the values of this owner only. The keys of all others count as shredded, and are not
    /// opened. Events of unknown types and versions are opened too, as they are stored.
    Owner(&'p KeyScope),
    /// A verification. The tags of all headers are checked. Events of unknown types and versions are opened too.
    Verifier,
}

/// A stored event that was opened and not yet upcast.
pub(crate) struct OpenedRow<'s> {
    /// The schema from which the event is upcast. `None` if readers get it as it is stored.
    pub(super) read_as: Option<ReadAs<'s>>,
    /// `None` if the payload is not sealed.
    pub(crate) opened: Option<Opened>,
    /// Empty if the payload is not sealed, and for users, who do not need it.
    pub(crate) coverage: Coverage,
    /// `None` if the metadata is not sealed.
    pub(crate) metadata: Option<Opened>,
    /// As `coverage`, of the metadata.
    pub(crate) metadata_coverage: Coverage,
}

/// What a seal covers, and whose keys were used.
#[derive(Default)]
pub(crate) struct Coverage {
    /// The places that have an entry in the header.
    pub(crate) places: Vec<String>,
    /// The live data keys of the header, each with its scope.
    pub(crate) live: HashMap<KeyId, KeyScope>,
    /// The owner of each place with a live key. It is read from the key table and so is authentic. The owner that the
    /// payload names is not. Its id is normalized, as that of a payload is when it is sealed.
    pub(crate) owners: HashMap<String, KeyScope>,
}

/// What must be done to read a stored event.
pub(super) struct Read<'s, 'e> {
    /// The schema from which the event is upcast. `None` if readers get the stored payload.
    read_as: Option<ReadAs<'s>>,
    /// Must be opened.
    payload: Option<(Closed<'e>, &'s Plan)>,
    /// Must be opened.
    metadata: Option<(Closed<'e>, &'s Plan)>,
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
        Ok(self.open_rows_with(tx, events, accepts, reader).await?.0)
    }

    /// As [`open_rows`](Self::open_rows). Returns also the keys that the events are sealed under.
    pub(super) async fn open_rows_with<'s, E: Borrow<PersistedEvent> + Sync>(
        &'s self,
        tx: &mut Tx,
        events: &[E],
        accepts: Accepts,
        reader: Reader<'_>,
    ) -> Result<(Vec<Result<OpenedRow<'s>>>, HashSet<KeyId>)> {
        let reads: Vec<Result<Read<'s, '_>>> =
            events.iter().map(|event| self.how_to_read(event.borrow(), accepts, reader)).collect();
        let closed = || reads.iter().flatten().flat_map(Read::closed);
        let key_ids: HashSet<KeyId> = closed().flat_map(Closed::key_ids).collect();
        let keys = match reader {
            _ if key_ids.is_empty() => None,
            Reader::User(read) => Some(self.keys.opening_keys(tx, &key_ids, read).await?),
            Reader::Maintenance | Reader::Verifier => Some(self.keys.opening_keys_now(tx, &key_ids, None).await?),
            Reader::Locked(pinned) => Some(self.keys.opening_keys_now(tx, &key_ids, Some(pinned)).await?),
            Reader::Owner(owner) => {
                let integrity: HashSet<KeyId> = closed().map(Closed::integrity_key).collect();
                Some(self.keys.opening_keys_of(tx, &key_ids, owner, &integrity).await?)
            }
        };
        let open = |closed: &Closed<'_>, plan: &Plan| {
            let Some((namespace, keys)) = &keys else { return Ok((None, Coverage::default())) };
            if matches!(reader, Reader::Verifier) {
                closed.check_tag(namespace, keys)?;
            }
            let opened = closed.open(plan, namespace, keys)?;
            let coverage = match reader {
                Reader::User(_) => Coverage::default(),
                Reader::Maintenance | Reader::Locked(_) | Reader::Owner(_) | Reader::Verifier => {
                    Coverage::of(closed, keys, self.schemas.normalizers())
                }
            };
            Ok((Some(opened), coverage))
        };
        let open = |part: &Option<(Closed<'_>, &Plan)>| match part {
            Some((closed, plan)) => open(closed, plan),
            None => Ok((None, Coverage::default())),
        };
        let rows = reads.iter().map(|read| {
            let Read { read_as, payload, metadata } = read.as_ref().map_err(Error::clone)?;
            let (opened, coverage) = open(payload)?;
            let (metadata, metadata_coverage) = open(metadata).map_err(Error::in_metadata)?;
            Ok(OpenedRow { read_as: *read_as, opened, coverage, metadata, metadata_coverage })
        });
        let rows = rows.collect();
        Ok((rows, key_ids))
    }

    pub(super) fn how_to_read<'s, 'e>(
        &'s self,
        event: &'e PersistedEvent,
        accepts: Accepts,
        reader: Reader<'_>,
    ) -> Result<Read<'s, 'e>> {
        let known = self.schemas.for_read(event.event_id, &event.stored_type, event.stored_version);
        let read_as = match (known, reader) {
            (Ok(Some(read_as)), _) => read_as,
            (_, Reader::Owner(_) | Reader::Verifier) => self.schemas.unregistered(event.stored_version),
            (Ok(None), _) => return self.not_registered(event, accepts),
            (Err(error), _) => return Err(error),
        };
        let ReadAs { schema, .. } = read_as;
        let accept_plaintext = match accepts {
            Accepts::AsDeclared => self.schemas.accepts_plaintext(&event.stored_type),
            Accepts::SealedOnly => false,
            Accepts::Plaintext => true,
        };
        // A header is opened even if the schema protects nothing now: an earlier schema may have protected it.
        let read = |plan: &'s Plan, document: EventRef<'e>| {
            let is_sealed = accepts != Accepts::AsDeclared || plan.protects() || may_hold_header(document.text);
            let accept_plaintext = accept_plaintext || accepts == Accepts::AsDeclared && !plan.protects();
            let closed = if is_sealed { inspect(plan, document, accept_plaintext)? } else { None };
            Ok(closed.map(|closed| (closed, plan)))
        };
        let payload = read(&schema.plan, event.as_stored())?;
        let metadata = event.stored_metadata().map(|stored| read(&schema.metadata_plan, stored));
        let metadata = metadata.transpose().map_err(Error::in_metadata)?.flatten();
        let read_as = (payload.is_some() || !read_as.is_current(event)).then_some(read_as);
        Ok(Read { read_as, payload, metadata })
    }

    /// Handles an event whose type is not registered and may pass unchanged. Refuses ciphertext, which a reader could
    /// take for values. What is protected in the metadata of all events is opened.
    fn not_registered<'s, 'e>(&'s self, event: &'e PersistedEvent, accepts: Accepts) -> Result<Read<'s, 'e>> {
        if self.schemas.passes_sealed() {
            return Ok(Read { read_as: None, payload: None, metadata: None });
        }
        let event_id = event.event_id;
        if is_sealed(&event.payload).map_err(|error| error.in_event(event_id))? {
            let event_type = event.stored_type.clone();
            return Err(Error::Event { event_id, fault: EventFault::StillSealed { event_type } });
        }
        let plan = &self.schemas.unregistered(event.stored_version).schema.metadata_plan;
        let accept_plaintext = match accepts {
            Accepts::AsDeclared => self.schemas.accepts_plaintext(&event.stored_type) || !plan.protects(),
            Accepts::SealedOnly => !plan.protects(),
            Accepts::Plaintext => true,
        };
        let metadata = event.stored_metadata().filter(|stored| plan.protects() || may_hold_header(stored.text));
        let closed = metadata.map(|stored| inspect(plan, stored, accept_plaintext));
        let closed = closed.transpose().map_err(Error::in_metadata)?.flatten();
        Ok(Read { read_as: None, payload: None, metadata: closed.map(|closed| (closed, plan)) })
    }

    /// Upcasts an opened event and appends the results to `out`. Returns what became of the event's redactions.
    pub(crate) fn upcast(
        &self,
        event: PersistedEvent,
        row: OpenedRow<'_>,
        out: &mut Vec<PersistedEvent>,
    ) -> Result<Journey> {
        let read_as = row.read_as;
        let readable = readable(event, row, self.schemas.normalizers());
        match read_as {
            None => {
                out.push(readable.event);
                Ok(Journey::UNCHANGED)
            }
            Some(read_as) => self.schemas.upcast(read_as, readable, out),
        }
    }
}

impl<'e> Read<'_, 'e> {
    fn closed(&self) -> impl Iterator<Item = &Closed<'e>> {
        self.payload.iter().chain(&self.metadata).map(|(closed, _)| closed)
    }
}

impl OpenedRow<'_> {
    /// Do readers get the stored bytes, neither opened nor upcast?
    pub(super) fn is_as_stored(&self) -> bool {
        self.read_as.is_none() && self.opened.is_none() && self.metadata.is_none()
    }

    /// Was anything of the event sealed?
    pub(super) fn is_sealed(&self) -> bool {
        self.opened.is_some() || self.metadata.is_some()
    }

    /// Is anything of the event redacted?
    pub(super) fn is_redacted(&self) -> bool {
        self.opened.iter().chain(&self.metadata).any(|opened| !opened.redacted.is_empty())
    }

    /// Is the stored version a current one, so that the opened event is not upcast?
    pub(crate) fn is_current(&self, event: &PersistedEvent) -> bool {
        self.read_as.is_none_or(|read_as| read_as.is_current(event))
    }
}

impl Coverage {
    fn of(closed: &Closed<'_>, keys: &Keys, normalizers: &Normalizers) -> Self {
        let live = closed.key_ids().filter_map(|key_id| match keys.get(&key_id) {
            Some(KeyStatus::Live { scope, .. }) if !scope.is_reserved() => Some((key_id, scope.clone())),
            _ => None,
        });
        let live: HashMap<KeyId, KeyScope> = live.collect();
        let owners = closed
            .entries()
            .filter_map(|(place, key_id)| Some((place.to_owned(), normalizers.same(live.get(&key_id)?.clone()))));
        Self { owners: owners.collect(), places: closed.covered().into_iter().map(str::to_owned).collect(), live }
    }
}

/// The event with what was opened of it, and its redactions.
pub(super) fn readable(mut event: PersistedEvent, row: OpenedRow<'_>, normalizers: &Normalizers) -> Readable {
    if let Some(Opened { text, redacted, places }) = row.metadata {
        event.metadata = Some(text);
        event.redacted_metadata.extend(redacted.into_iter().map(|redacted| redacted.place));
        event.sealed_metadata = Sealed::by(Arc::new(places));
    }
    let Some(Opened { text, redacted, places }) = row.opened else {
        return Readable { event, owners: Owners::default() };
    };
    let places = Arc::new(places);
    event.payload = text;
    event.redacted.extend(redacted.into_iter().map(|redacted| redacted.place));
    event.sealed = Sealed::by(Arc::clone(&places));
    Readable { event, owners: Owners::new(places, normalizers) }
}

/// Seals a draft of a stored event. `keys` must have a usable key for each of its scopes.
pub(crate) fn seal_draft(draft: &Draft<'_>, keys: &UsableKeys, salt: &[u8; 16]) -> Result<Vec<u8>> {
    let of_scope = |scope: &KeyScope| keys.key(scope).map(|(id, key)| SealingKey { id: *id, key });
    let sealing: Vec<SealingKey<'_>> = draft.scopes.iter().map(of_scope).collect::<Result<_>>()?;
    let integrity = SealingKey { id: keys.integrity.0, key: &keys.integrity.1 };
    draft.seal(&keys.namespace, &sealing, &integrity, salt)
}
