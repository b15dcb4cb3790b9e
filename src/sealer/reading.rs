//! Reads stored events, as far as that is pure: nothing here looks up a key or waits for anything. So the events of a
//! page can be read on any threads, and in any order.
//!
//! An event is inspected first, which tells the keys that it needs. Then it is opened at its stored type and version,
//! and then upcast.

use crate::error::{Error, EventFault, Result};
use crate::event::{EventRef, GlobalPosition, PersistedEvent, Sealed, Unreadable};
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::{Pinned, ReadKeys};
use crate::schema::{Journey, Owners, ReadAs, Readable, Schemas};
use crate::seal::detect::{is_sealed, may_hold_header};
use crate::seal::normalize::Normalizers;
use crate::seal::opening::{Closed, KeyStatus, Keys, Opened, inspect};
use crate::seal::plan::Plan;
use crate::telemetry::{self, EventsRead, Tally};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

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

/// How events are read, for the reader that reads them.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    accepts: Accepts,
    /// Events of unknown types and versions are opened too, as they are stored.
    opens_unknown: bool,
    /// The tags of all headers are checked.
    checks_tags: bool,
    notes_coverage: bool,
}

/// What was found out about a stored event. It borrows nothing of the event and of the schemas.
pub(super) struct Read {
    /// False if readers get the event as it is stored, once it is opened.
    is_upcast: bool,
    /// Must be opened.
    payload: Option<Closed>,
    /// Must be opened.
    metadata: Option<Closed>,
}

/// A stored event that was opened and not yet upcast.
#[derive(Default)]
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

impl Manner {
    pub(super) fn of(accepts: Accepts, reader: Reader<'_>) -> Self {
        Self {
            accepts,
            opens_unknown: matches!(reader, Reader::Owner(_) | Reader::Verifier),
            checks_tags: matches!(reader, Reader::Verifier),
            notes_coverage: !matches!(reader, Reader::User(_)),
        }
    }

    /// Inspects each event. The result has one entry for each event: what must be done to read it, or why it can't be
    /// read.
    pub(super) fn inspect_all<E: Borrow<PersistedEvent>>(self, schemas: &Schemas, events: &[E]) -> Vec<Result<Read>> {
        events.iter().map(|event| self.inspect(schemas, event.borrow())).collect()
    }

    /// Opens each event that was inspected. `keys` are the states of all keys that they name; `None` if they name none.
    pub(super) fn open_all<'s, E: Borrow<PersistedEvent>>(
        self,
        schemas: &'s Schemas,
        events: &[E],
        reads: Vec<Result<Read>>,
        keys: Option<&(Namespace, Keys)>,
    ) -> Vec<Result<OpenedRow<'s>>> {
        let open = |(event, read): (&E, Result<Read>)| self.open(schemas, event.borrow(), &read?, keys);
        events.iter().zip(reads).map(open).collect()
    }

    pub(super) fn inspect(self, schemas: &Schemas, event: &PersistedEvent) -> Result<Read> {
        let Some(read_as) = self.read_as(schemas, event)? else { return self.not_registered(schemas, event) };
        let ReadAs { schema, .. } = read_as;
        let accepts = self.accepts;
        let accept_plaintext = match accepts {
            Accepts::AsDeclared => schemas.accepts_plaintext(&event.stored_type),
            Accepts::SealedOnly => false,
            Accepts::Plaintext => true,
        };
        // A header is opened even if the schema protects nothing now: an earlier schema may have protected it.
        let read = |plan: &Plan, document: EventRef<'_>| {
            let is_sealed = accepts != Accepts::AsDeclared || plan.protects() || may_hold_header(document.text);
            let accept_plaintext = accept_plaintext || accepts == Accepts::AsDeclared && !plan.protects();
            if is_sealed { inspect(plan, document, accept_plaintext) } else { Ok(None) }
        };
        let payload = read(&schema.plan, event.as_stored())?;
        let metadata = event.stored_metadata().map(|stored| read(&schema.metadata_plan, stored));
        let metadata = metadata.transpose().map_err(Error::in_metadata)?.flatten();
        Ok(Read { is_upcast: payload.is_some() || !read_as.is_current(event), payload, metadata })
    }

    /// The schema by which an event is read; `None` if its type is not registered and may pass unchanged.
    fn read_as<'s>(self, schemas: &'s Schemas, event: &PersistedEvent) -> Result<Option<ReadAs<'s>>> {
        match schemas.for_read(event.event_id, &event.stored_type, event.stored_version) {
            Ok(None) | Err(_) if self.opens_unknown => Ok(Some(schemas.unregistered(event.stored_version))),
            known => known,
        }
    }

    /// Handles an event whose type is not registered and may pass unchanged. Refuses ciphertext, which a reader could
    /// take for values. What is protected in the metadata of all events is opened.
    fn not_registered(self, schemas: &Schemas, event: &PersistedEvent) -> Result<Read> {
        if schemas.passes_sealed() {
            return Ok(Read { is_upcast: false, payload: None, metadata: None });
        }
        let event_id = event.event_id;
        if is_sealed(&event.payload).map_err(|error| error.in_event(event_id))? {
            let event_type = event.stored_type.clone();
            return Err(Error::Event { event_id, fault: EventFault::StillSealed { event_type } });
        }
        let plan = &schemas.unregistered(event.stored_version).schema.metadata_plan;
        let accept_plaintext = match self.accepts {
            Accepts::AsDeclared => schemas.accepts_plaintext(&event.stored_type) || !plan.protects(),
            Accepts::SealedOnly => !plan.protects(),
            Accepts::Plaintext => true,
        };
        let metadata = event.stored_metadata().filter(|stored| plan.protects() || may_hold_header(stored.text));
        let closed = metadata.map(|stored| inspect(plan, stored, accept_plaintext));
        let closed = closed.transpose().map_err(Error::in_metadata)?.flatten();
        Ok(Read { is_upcast: false, payload: None, metadata: closed })
    }

    fn open<'s>(
        self,
        schemas: &'s Schemas,
        event: &PersistedEvent,
        read: &Read,
        keys: Option<&(Namespace, Keys)>,
    ) -> Result<OpenedRow<'s>> {
        let Read { is_upcast, payload, metadata } = read;
        if !is_upcast && payload.is_none() && metadata.is_none() {
            return Ok(OpenedRow::default());
        }
        // Looked up again: a reference to the schema could not go from one thread to another.
        let read_as = self.schema_of(schemas, event)?;
        let open = |closed: Option<&Closed>, plan: &Plan, stored: Option<EventRef<'_>>| {
            let (Some(closed), Some(stored), Some((namespace, keys))) = (closed, stored, keys) else {
                return Ok((None, Coverage::default()));
            };
            if self.checks_tags {
                closed.check_tag(stored, namespace, keys)?;
            }
            let opened = closed.open(stored, plan, namespace, keys)?;
            let coverage = match self.notes_coverage {
                true => Coverage::of(closed, keys, schemas.normalizers()),
                false => Coverage::default(),
            };
            Ok((Some(opened), coverage))
        };
        let ReadAs { schema, .. } = read_as;
        let (opened, coverage) = open(payload.as_ref(), &schema.plan, Some(event.as_stored()))?;
        let (metadata, metadata_coverage) =
            open(metadata.as_ref(), &schema.metadata_plan, event.stored_metadata()).map_err(Error::in_metadata)?;
        let read_as = is_upcast.then_some(read_as);
        Ok(OpenedRow { read_as, opened, coverage, metadata, metadata_coverage })
    }
}

impl Manner {
    /// The schema by which an event is read. For an event whose type is not registered, it is that of all such events.
    fn schema_of<'s>(self, schemas: &'s Schemas, event: &PersistedEvent) -> Result<ReadAs<'s>> {
        Ok(self.read_as(schemas, event)?.unwrap_or_else(|| schemas.unregistered(event.stored_version)))
    }

    /// Undoes [`OpenedRow::without_schema`].
    pub(super) fn with_schema<'s>(
        self,
        schemas: &'s Schemas,
        event: &PersistedEvent,
        row: OpenedRow<'static>,
        is_upcast: bool,
    ) -> Result<OpenedRow<'s>> {
        let read_as = if is_upcast { Some(self.schema_of(schemas, event)?) } else { None };
        Ok(OpenedRow { read_as, ..row })
    }
}

impl Read {
    pub(super) fn closed(&self) -> impl Iterator<Item = &Closed> {
        self.payload.iter().chain(&self.metadata)
    }
}

impl OpenedRow<'_> {
    /// The row without its reference to the schema, which can't go to another thread. Returns also whether the event is
    /// upcast, so that [`Manner::with_schema`] can undo it.
    pub(super) fn without_schema(self) -> (OpenedRow<'static>, bool) {
        let Self { read_as, opened, coverage, metadata, metadata_coverage } = self;
        (OpenedRow { read_as: None, opened, coverage, metadata, metadata_coverage }, read_as.is_some())
    }

    /// Do readers get the stored bytes, neither opened nor upcast?
    pub(super) fn is_as_stored(&self) -> bool {
        self.read_as.is_none() && !self.is_sealed()
    }

    /// Was anything of the event sealed?
    fn is_sealed(&self) -> bool {
        self.opened.is_some() || self.metadata.is_some()
    }

    /// Is anything of the event redacted?
    fn is_redacted(&self) -> bool {
        self.opened.iter().chain(&self.metadata).any(|opened| !opened.redacted.is_empty())
    }

    /// Is the stored version a current one, so that the opened event is not upcast?
    pub(crate) fn is_current(&self, event: &PersistedEvent) -> bool {
        self.read_as.is_none_or(|read_as| read_as.is_current(event))
    }
}

impl Coverage {
    fn of(closed: &Closed, keys: &Keys, normalizers: &Normalizers) -> Self {
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

/// What became of stored events that were opened.
pub(super) fn counted(rows: &[Result<OpenedRow<'_>>]) -> EventsRead {
    let mut read = EventsRead::default();
    for row in rows {
        let count = match row {
            Err(error) => {
                read.errors.push(error.kind());
                &mut read.unreadable
            }
            Ok(row) if !row.is_sealed() => &mut read.plain,
            Ok(row) if row.is_redacted() => &mut read.redacted,
            Ok(_) => &mut read.opened,
        };
        *count += 1;
    }
    read
}

/// An event that can't be read, and that fails its page.
pub(super) struct Unread {
    event_id: Uuid,
    position: GlobalPosition,
    /// Did a step of it fail? If not, it could not be opened.
    was_opened: bool,
    error: Error,
}

impl Unread {
    /// Makes it of the event's error. `row` is the event as it was opened.
    pub(super) fn of(event: &PersistedEvent, row: &Result<OpenedRow<'_>>) -> impl FnOnce(Error) -> Box<Self> + use<> {
        let (event_id, position, was_opened) = (event.event_id, event.global_position, row.is_ok());
        move |error| Box::new(Self { event_id, position, was_opened, error })
    }

    /// The error that fails the page. Some errors do not name the event, and a follower of the log can't get past it.
    /// So the log says where it is.
    pub(super) fn into_error(self) -> Error {
        let Self { event_id, position, was_opened, error } = self;
        // The events that could not be opened were counted with all others. Of those whose steps fail, only the first
        // of the page counts: those after it may have been upcast on other threads, or not at all.
        if was_opened {
            telemetry::step_failed(&error);
        }
        tracing::warn!(%event_id, %position, error_kind = %error.kind(), "a stored event can't be read");
        error
    }
}

/// Upcasts opened events. The first one that can't be read fails.
pub(super) fn upcast_all(
    schemas: &Schemas,
    events: Vec<PersistedEvent>,
    rows: Vec<Result<OpenedRow<'_>>>,
    _: &Tally,
) -> Result<Vec<PersistedEvent>, Box<Unread>> {
    if rows.iter().all(|row| row.as_ref().is_ok_and(OpenedRow::is_as_stored)) {
        return Ok(events);
    }
    let mut out = Vec::with_capacity(events.len());
    for (event, row) in events.into_iter().zip(rows) {
        let unread = Unread::of(&event, &row);
        row.and_then(|row| upcast(schemas, event, row, &mut out)).map_err(unread)?;
    }
    Ok(out)
}

/// Upcasts opened events. Each result belongs to one of them.
pub(super) fn upcast_each(
    schemas: &Schemas,
    events: Vec<PersistedEvent>,
    rows: Vec<Result<OpenedRow<'_>>>,
    tally: &Tally,
) -> Vec<Result<Vec<PersistedEvent>, Box<Unreadable>>> {
    let each = events.into_iter().zip(rows).map(|(event, row)| {
        let (aggregate, aggregate_version) = (event.aggregate.clone(), event.aggregate_version);
        let (global_position, event_id) = (event.global_position, event.event_id);
        let mut out = Vec::with_capacity(1);
        let failed = |error: &Error| tally.step_failed(error);
        match row.and_then(|row| upcast(schemas, event, row, &mut out).inspect_err(failed)) {
            Ok(_) => Ok(out),
            Err(error) => Err(Box::new(Unreadable { aggregate, aggregate_version, global_position, event_id, error })),
        }
    });
    each.collect()
}

/// Upcasts an opened event and appends the results to `out`. Returns what became of the event's redactions.
pub(crate) fn upcast(
    schemas: &Schemas,
    event: PersistedEvent,
    row: OpenedRow<'_>,
    out: &mut Vec<PersistedEvent>,
) -> Result<Journey> {
    let read_as = row.read_as;
    let readable = readable(event, row, schemas.normalizers());
    match read_as {
        None => {
            out.push(readable.event);
            Ok(Journey::UNCHANGED)
        }
        Some(read_as) => schemas.upcast(read_as, readable, out),
    }
}
