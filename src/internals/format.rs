//! The sealed format, below appends and reads, for tests that check its bytes and forge them.
//!
//! The tests make and read the frozen vectors through it. It is not for applications, because keys are passed as bytes
//! here.

use crate::blind_index::BlindIndex;
use crate::crypto::primitives::{self, DataKey, PAD};
use crate::crypto::secret::SecretKey;
use crate::crypto::wrap::{BoundKey, unwrap_key, wrap_with_salt};
use crate::error::{Error, InputFault, Result};
use crate::event::{AggregateRef, AggregateVersion, EventDocument, EventRef, NewEvent};
use crate::json::pointer::{JsonPointer, Pattern};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::schema::{EventSchema, Schemas};
use crate::seal::binding::Binding;
use crate::seal::format::{Document, EntryKind, Mode, write_core};
use crate::seal::normalize::Normalizers;
use crate::seal::opening::{KeyStatus, Keys, inspect};
use crate::seal::plan::{Field, FieldOwner, Plan};
use crate::seal::sealing::{Draft, SealingKey};
use crate::seal::snapshot::{self, ClosedSnapshot, SnapshotBinding};
use crate::seal::token;
use crate::seal::value::{self, ClosedValue};
use crate::sensitive::Sensitive;
use crate::snapshots::outcome::Discarded;
use crate::values::{NewValue, SealedValue, StoredValue, ValueContext};
use std::sync::Arc;
use uuid::Uuid;

/// The bytes of a key.
pub type Key = [u8; 32];

/// The state of a key that a reader finds in the key's row.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "holds keys")]
pub enum State {
    Live(Key),
    Disabled,
    Shredded,
}

/// The places that a reader or a sealer protects.
#[derive(Debug)]
pub struct Protection {
    plans: Plans,
    of: EventDocument,
}

#[derive(Debug)]
enum Plans {
    Registered(Box<Schemas>),
    Unchecked(Box<Plan>),
}

/// A place of the aggregate's owner, for [`Protection::unchecked`].
#[derive(Debug)]
pub struct Place<'a> {
    pub pattern: &'a str,
    pub scope_kind: &'a str,
    pub pad: usize,
    /// A JSON text.
    pub stand_in: &'a str,
}

impl Protection {
    /// # Errors
    /// The problems of the schema.
    pub fn of(schema: EventSchema) -> Result<Self> {
        let plans = Plans::Registered(Box::new(Schemas::new([schema])?));
        Ok(Self { plans, of: EventDocument::Payload })
    }

    /// A plan that schemas may refuse, such as one that can never seal.
    ///
    /// # Errors
    /// The problem of a pattern.
    pub fn unchecked(places: &[Place<'_>]) -> std::result::Result<Self, &'static str> {
        let mut plan = Plan::default();
        for of in places {
            let pattern = Pattern::parse(of.pattern)?;
            plan.fields.push(Field {
                place: (pattern.stars() == 0).then(|| JsonPointer::new_unchecked(pattern.at(&[]))),
                pattern: Some(pattern),
                owner: FieldOwner::Aggregate { kind: Some(of.scope_kind.into()) },
                pad: of.pad,
                stand_in: of.stand_in.into(),
                stand_in_by: None,
            });
        }
        Ok(Self { plans: Plans::Unchecked(Box::new(plan.compile())), of: EventDocument::Payload })
    }

    /// The places of the metadata instead of those of the payload. Everything is about the metadata then.
    #[must_use]
    pub fn of_metadata(self) -> Self {
        Self { of: EventDocument::Metadata, ..self }
    }

    fn document<'a>(&self, aggregate: &'a AggregateRef, event: &'a NewEvent) -> EventRef<'a> {
        let payload = event.to_store(aggregate);
        match self.of {
            EventDocument::Payload => payload,
            EventDocument::Metadata => event.metadata_to_store(aggregate).unwrap_or(payload),
        }
    }

    fn plan(&self, event: &NewEvent) -> Result<&Plan> {
        match &self.plans {
            Plans::Registered(schemas) => {
                let known = schemas.for_read(event.event_id, &event.event_type, event.event_version)?;
                let plan = known.map(|known| match self.of {
                    EventDocument::Payload => &known.schema.plan,
                    EventDocument::Metadata => &known.schema.metadata_plan,
                });
                plan.ok_or(Error::Input(InputFault::EmptyAppend))
            }
            Plans::Unchecked(plan) => Ok(plan),
        }
    }

    /// Opens a stored event as a reader does. Returns the payload, and the redacted places.
    ///
    /// # Errors
    /// Those of opening.
    pub fn open(
        &self,
        namespace: &Namespace,
        aggregate: &AggregateRef,
        stored: &NewEvent,
        keys: &[(KeyId, KeyScope, State)],
        accept_plaintext: bool,
    ) -> Result<(Vec<u8>, Vec<JsonPointer>)> {
        let rows = statuses(keys)?;
        let plan = self.plan(stored)?;
        let accept_plaintext = accept_plaintext || !plan.protects();
        let document = self.document(aggregate, stored);
        let Some(closed) = inspect(plan, document, accept_plaintext)? else {
            return Ok((document.text.to_vec(), Vec::new()));
        };
        let opened = closed.open(document, plan, namespace, &rows)?;
        Ok((opened.text, opened.redacted.into_iter().map(|redacted| redacted.place).collect()))
    }

    /// Seals an event as a sealer does that drew this salt. `active` returns the active key of a scope.
    ///
    /// # Errors
    /// Those of sealing.
    pub fn seal(
        &self,
        namespace: &Namespace,
        aggregate: &AggregateRef,
        event: &NewEvent,
        active: impl Fn(&KeyScope) -> (KeyId, Key),
        salt: &[u8; 16],
    ) -> Result<Vec<u8>> {
        let document = self.document(aggregate, event);
        let Some(draft) = Draft::new(self.plan(event)?, document)? else {
            return Ok(document.text.to_vec());
        };
        let active = |scope: &KeyScope| {
            let (id, key) = active(scope);
            Ok::<_, Error>((id, DataKey::new(&key)?))
        };
        let keys: Vec<_> = draft.scopes.iter().map(active).collect::<Result<_>>()?;
        let keys: Vec<_> = keys.iter().map(|(id, key)| SealingKey { id: *id, key }).collect();
        let (id, key) = active(&KeyScope::integrity())?;
        draft.seal(namespace, &keys, &SealingKey { id, key: &key }, salt)
    }
}

fn statuses(keys: &[(KeyId, KeyScope, State)]) -> Result<Keys> {
    let status = |(key_id, scope, state): &(KeyId, KeyScope, State)| {
        let scope = scope.clone();
        let status = match state {
            State::Live(key) => KeyStatus::Live { scope, key: Arc::new(DataKey::new(key)?) },
            State::Disabled => KeyStatus::Disabled { scope },
            State::Shredded => KeyStatus::Shredded { scope },
        };
        Ok((*key_id, status))
    };
    keys.iter().map(status).collect()
}

/// Seals a value as a sealer does that drew this salt.
///
/// # Errors
/// Those of sealing.
pub fn seal_value(
    namespace: &Namespace,
    value: &NewValue<'_>,
    key: (KeyId, &Key),
    integrity: (KeyId, &Key),
    salt: &[u8; 16],
) -> Result<SealedValue> {
    value::check_new(value)?;
    let (data_key, integrity_key) = (DataKey::new(key.1)?, DataKey::new(integrity.1)?);
    let integrity = SealingKey { id: integrity.0, key: &integrity_key };
    value::seal(value, namespace, &SealingKey { id: key.0, key: &data_key }, &integrity, salt)
}

/// The hash of a value in a blind index, under this key.
///
/// # Errors
/// Those of a value that can't be spelled, and of an index whose settings are refused.
pub fn blind_hash(index: &BlindIndex, key: &Key, value: &str) -> Result<(String, Vec<u8>)> {
    let spelled = index.spell(value, false)?;
    let hash = DataKey::new(key)?.index_key()?.hash(index.name(), &spelled, index.size());
    Ok((spelled.to_string(), hash))
}

/// Opens a value as a reader does.
///
/// # Errors
/// Those of opening.
pub fn open_value(
    namespace: &Namespace,
    stored: &StoredValue<'_>,
    keys: &[(KeyId, KeyScope, State)],
) -> Result<Sensitive<Vec<u8>>> {
    let closed = ClosedValue::read(&stored.context, stored.value)?;
    closed.open(&stored.scope, namespace, &statuses(keys)?, &Normalizers::default())
}

/// What a snapshot is bound to, besides the namespace.
#[derive(Debug)]
pub struct SnapshotPlace<'a> {
    pub aggregate: &'a AggregateRef,
    pub version: AggregateVersion,
    pub last_event: Uuid,
    pub state: &'a str,
    pub fingerprint: &'a [u8; 32],
}

impl SnapshotPlace<'_> {
    fn binding(&self) -> SnapshotBinding<'_> {
        let Self { aggregate, version, last_event, state, fingerprint } = *self;
        SnapshotBinding { aggregate, version, last_event, state, fingerprint }
    }

    /// Seals a state as a sealer does that drew this salt, under all of these keys.
    ///
    /// # Errors
    /// Those of sealing.
    pub fn seal(
        &self,
        namespace: &Namespace,
        state: &[u8],
        keys: &[(KeyId, Key)],
        destroyed: &[KeyId],
        integrity: (KeyId, &Key),
        salt: &[u8; 16],
    ) -> Result<Vec<u8>> {
        let keys: Vec<(KeyId, DataKey)> =
            keys.iter().map(|(id, key)| Ok((*id, DataKey::new(key)?))).collect::<Result<_>>()?;
        let keys: Vec<SealingKey<'_>> = keys.iter().map(|(id, key)| SealingKey { id: *id, key }).collect();
        let integrity_key = DataKey::new(integrity.1)?;
        let integrity = SealingKey { id: integrity.0, key: &integrity_key };
        snapshot::seal(state, namespace, &self.binding(), &keys, destroyed, &integrity, salt)
    }

    /// Opens a snapshot as a reader does.
    ///
    /// # Errors
    /// Why it is discarded.
    pub fn open(
        &self,
        namespace: &Namespace,
        sealed: &[u8],
        keys: &[(KeyId, KeyScope, State)],
    ) -> Result<std::result::Result<Vec<u8>, Discarded>> {
        match ClosedSnapshot::read(sealed) {
            Ok(closed) => closed.open(namespace, &self.binding(), &statuses(keys)?),
            Err(discarded) => Ok(Err(discarded)),
        }
    }
}

/// A header, as far as its tag.
#[derive(Debug)]
pub struct Core<'a> {
    /// The whole payload is sealed, and not fields of it.
    pub whole: bool,
    pub salt: [u8; 16],
    pub integrity_key: KeyId,
    pub keys: &'a [KeyId],
    pub entries: &'a [Entry<'a>],
}

/// A sealed place, or a void one.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The index of the entry's key among the header's keys.
    pub key: u16,
    pub void: bool,
    pub pointer: &'a str,
}

impl Core<'_> {
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mode = if self.whole { Mode::Whole } else { Mode::Fields };
        let kind = |entry: &Entry<'_>| if entry.void { EntryKind::Void } else { EntryKind::Sealed };
        let entries: Vec<_> = self.entries.iter().map(|entry| (entry.key, kind(entry), entry.pointer)).collect();
        write_core(Document::Payload, mode, &self.salt, self.integrity_key, self.keys, entries.into_iter())
    }
}

/// The transcript that a header is bound to.
#[allow(missing_debug_implementations, reason = "opaque")]
pub struct Transcript(primitives::Transcript);

impl Transcript {
    #[must_use]
    pub fn of(namespace: &Namespace, aggregate: &AggregateRef, event: &NewEvent, core: &[u8]) -> Self {
        Self(Binding::of(namespace, event.to_store(aggregate)).transcript(core))
    }

    /// That of a value.
    #[must_use]
    pub fn of_value(namespace: &Namespace, context: &ValueContext, core: &[u8]) -> Self {
        Self(value::transcript(namespace, context, core))
    }

    /// That of a snapshot.
    #[must_use]
    pub fn of_snapshot(namespace: &Namespace, place: &SnapshotPlace<'_>, core: &[u8]) -> Self {
        Self(place.binding().transcript(namespace, core))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// # Errors
    /// None: the key has the right length.
    pub fn header_tag(&self, integrity_key: &Key) -> Result<[u8; 16]> {
        Ok(DataKey::new(integrity_key)?.header_tag(&self.0))
    }

    /// The key that is derived for this event from a data key, which the header has at this index.
    ///
    /// # Errors
    /// None: the key has the right length.
    pub fn event_key(&self, data_key: &Key, index: u16) -> Result<EventKey> {
        DataKey::new(data_key)?.event_key(&self.0, index).map(EventKey)
    }
}

/// The key that is derived from a data key for one event.
#[allow(missing_debug_implementations, reason = "holds a key")]
pub struct EventKey(primitives::EventKey);

impl EventKey {
    #[must_use]
    pub fn commitment(&self) -> &[u8; 32] {
        self.0.commitment()
    }

    /// Pads and seals a value.
    ///
    /// # Errors
    /// If it is too long for the cipher.
    pub fn seal(&self, index: u16, pointer: &str, value: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = Vec::new();
        self.0.seal(index, pointer, value, PAD, &mut sealed)?;
        Ok(sealed)
    }
}

/// The default padding: values are padded to a multiple of this many bytes.
pub const PADDING: usize = PAD;

/// Bytes as they are written in a payload: as text, with its quotes.
#[must_use]
pub fn token(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    token::push_token(&mut text, bytes);
    String::from_utf8_lossy(&text).into_owned()
}

/// The bytes that such a text stands for, if it is one.
#[must_use]
pub fn bytes_of_token(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    token::read_token(text.as_bytes(), &mut bytes)?;
    Some(bytes)
}

/// Wraps a key under another one, bound to these items.
///
/// # Errors
/// None: the keys have the right lengths.
pub fn wrap(wrapping: &Key, items: &[&[u8]], salt: &[u8; 16], key: &Key) -> Result<Vec<u8>> {
    wrap_with_salt(&SecretKey::new(*wrapping), items, salt, &SecretKey::new(*key))
}

/// The data key that a key-encryption key wrapped. `None` if an item that it is bound to differs.
#[must_use]
pub fn unwrap_data_key(
    kek: (KekId, &Key),
    namespace: &Namespace,
    key: (KeyId, &KeyScope, u32),
    wrapped: &[u8],
) -> Option<Key> {
    let (key_id, scope, version) = key;
    let bound = BoundKey { namespace, key_id, scope, version, kek_id: kek.0 };
    let key = bound.with(|items| unwrap_key(&SecretKey::new(*kek.1), items, wrapped))?;
    Some(*key.expose())
}
