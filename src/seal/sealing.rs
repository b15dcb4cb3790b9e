//! Sealing: turns a plaintext payload into a sealed one.
//!
//! It takes two steps, because keys are looked up in between. [`Draft::new`] finds what must be sealed and whose it is,
//! and reports every error that the caller's input can cause. [`Draft::seal`] encrypts.

use crate::crypto::primitives::{DataKey, EventKey, GCM_TAG, PAD};
use crate::error::{Error, EventFault, KeyFault, Result};
use crate::event::EventRef;
use crate::json::pointer::JsonPointer;
use crate::json::scan::Span;
use crate::json::scan::{Hit, SEAL_MEMBER, Scan, ScanError, WHOLE_MEMBER, scan};
use crate::json::wanted::Target;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::seal::binding::Binding;
use crate::seal::detect::{is_sealed, may_hold_header};
use crate::seal::format::{EntryKind, MAX_ENTRIES, MAX_KEYS, MAX_PADDING, MAX_PAYLOAD, MAX_POINTER, Mode, write_core};
use crate::seal::in_the_clear::NOBODY;
use crate::seal::owner::{Beside, Names, scope_of};
use crate::seal::plan::{Field, FieldOwner, Plan};
use crate::seal::stand_in::StandIns;
use crate::seal::token::{push_token, token_length};
use std::borrow::Cow;
use std::collections::HashMap;
use uuid::Uuid;

/// What must be sealed in one event, and under whose keys.
pub(crate) struct Draft<'a> {
    event: EventRef<'a>,
    mode: Mode,
    /// The position just behind the opening brace, where the header is inserted.
    body: usize,
    /// The places that get an entry, in the order of the document.
    sealed: Vec<Sealed<'a>>,
    /// The scopes whose keys are needed: each once, in order of first use.
    pub(crate) scopes: Vec<KeyScope>,
    /// The destroyed keys that void entries name, each once. In the header they follow the keys of the scopes.
    destroyed: Vec<KeyId>,
    /// How many bytes of padding all values get together.
    padding: usize,
}

/// A place that gets an entry in the header.
struct Sealed<'a> {
    span: Span,
    pointer: Cow<'a, str>,
    under: Under,
    pad: usize,
}

/// The owner that was resolved last.
#[derive(Clone, Copy)]
struct LastOwner<'p> {
    owner: &'p FieldOwner,
    /// The position at which the payload names the subject.
    named_at: Option<usize>,
    /// The index of the owner's scope.
    scope: u16,
}

/// Which entry a value gets in the header.
#[derive(Clone, Copy)]
enum Under {
    /// A sealed entry, under the key of the scope with this index.
    Scope(u16),
    /// A void entry, under the destroyed key with this index. Nothing of the value is kept.
    Destroyed(u16),
}

/// A place that will be sealed, with its owner.
pub(crate) struct Owned<'d> {
    pub(crate) place: &'d str,
    /// Where the value stands.
    pub(crate) span: Span,
    /// The owner's key scope.
    pub(crate) scope: &'d KeyScope,
}

/// Places that become void, each with the destroyed key that its entry names.
pub(crate) type Voids = HashMap<JsonPointer, KeyId>;

/// A data key that is used for sealing, and its id.
pub(crate) struct SealingKey<'a> {
    pub(crate) id: KeyId,
    pub(crate) key: &'a DataKey,
}

impl<'a> Draft<'a> {
    /// Finds the protected places of `event` and their scopes. Returns `None` if the payload has no protected value.
    pub(crate) fn new(plan: &'a Plan, event: EventRef<'a>) -> Result<Option<Self>> {
        Self::with_voids(plan, event, &Voids::new())
    }

    /// As [`new`](Self::new), but the places in `voids` become void, whatever value they hold. A place that the plan
    /// does not protect, or that the payload does not have, is left out; [`voids`](Self::voids) says how many are in
    /// the draft.
    pub(crate) fn with_voids(plan: &'a Plan, event: EventRef<'a>, voids: &Voids) -> Result<Option<Self>> {
        let EventRef { event_id, text: payload, .. } = event;
        let refused = |fault| Error::Event { event_id, fault };
        if payload.len() > MAX_PAYLOAD {
            let what = "the payload's size in bytes";
            return Err(refused(EventFault::LimitExceeded { what, limit: MAX_PAYLOAD }));
        }
        if let Some(field) = &plan.whole {
            return Self::whole(plan, field, event, voids).map(Some);
        }
        let found = scan(payload, &plan.to_seal).map_err(|error| refuse_append(event_id, error))?;
        if found.seal.is_some() {
            return Err(refused(EventFault::ReservedMember));
        }
        let mut draft =
            Self { body: found.body.unwrap_or_default(), ..Self::empty(event, Mode::Fields, found.hits.len()) };
        // Places that hold null count too, so that no document takes long to look through.
        if found.hits.iter().filter(|hit| matches!(hit.target, Target::Field(_))).count() > MAX_ENTRIES {
            let what = "the number of protected values";
            return Err(refused(EventFault::LimitExceeded { what, limit: MAX_ENTRIES }));
        }
        let names = Names::new(plan, &found.hits);
        let mut known_scopes = HashMap::new();
        // Fields of one owner mostly stand together, so the owner is resolved once for them.
        let beside = Beside::new(plan, event);
        let mut last: Option<LastOwner<'_>> = None;
        for hit in &found.hits {
            let Target::Field(index) = hit.target else { continue };
            let field = &plan.fields[index];
            let named = names.owner_of(field, hit);
            let pointer = field.place_text(&hit.bound);
            if !voids.is_empty()
                && let Some(key_id) = voids.get(&JsonPointer::new_unchecked(&*pointer))
            {
                draft.push_void(hit.span, pointer, *key_id)?;
                continue;
            }
            let named_at = named.map(|named| named.span.start);
            let same = |last: &LastOwner<'_>| last.owner == &field.owner && last.named_at == named_at;
            let scope = match last.filter(same).filter(|last| !matches!(last.owner, FieldOwner::Member { .. })) {
                Some(last) => last.scope,
                None => match scope_of(&beside, field, hit, &pointer, named) {
                    Ok(scope) => draft.scope_index(scope, &mut known_scopes)?,
                    // A null without a named subject has nothing to protect.
                    Err(Error::Event {
                        fault: EventFault::MissingScopeId { .. } | EventFault::NotNamed { problem: NOBODY, .. },
                        ..
                    }) if hit.span.of(payload) == b"null" => continue,
                    Err(error) => return Err(error),
                },
            };
            last = Some(LastOwner { owner: &field.owner, named_at, scope });
            draft.push(hit.span, pointer, Under::Scope(scope), field.pad)?;
        }
        if draft.sealed.is_empty() {
            return Ok(None);
        }
        if found.body.is_none() {
            let pointer = JsonPointer::root();
            return Err(refused(EventFault::ShapeMismatch { pointer, expected: "an object" }));
        }
        Ok(Some(draft))
    }

    fn empty(event: EventRef<'a>, mode: Mode, places: usize) -> Self {
        let sealed = Vec::with_capacity(places);
        Self { event, mode, body: 0, sealed, scopes: Vec::new(), destroyed: Vec::new(), padding: 0 }
    }

    fn whole(plan: &Plan, field: &Field, event: EventRef<'a>, voids: &Voids) -> Result<Self> {
        let EventRef { event_id, text: payload, .. } = event;
        let span = Span { start: 0, end: payload.len() };
        let mut draft = Self::empty(event, Mode::Whole, 1);
        if let Some(key_id) = voids.get(&JsonPointer::root()) {
            draft.push_void(span, "".into(), *key_id)?;
            return Ok(draft);
        }
        // A wholly protected payload may be any bytes, unless the subject must be read out of it or it may be sealed.
        let names_subject = matches!(field.owner, FieldOwner::Subject { .. });
        let found = if !names_subject && !may_hold_header(payload) {
            Scan::default()
        } else {
            match scan(payload, &plan.to_seal).map_err(|error| refuse_append(event_id, error)) {
                Ok(found) => found,
                Err(error @ Error::Event { fault: EventFault::ReservedMember, .. }) => return Err(error),
                // A payload that can't be scanned to its end may be a sealed one.
                Err(error @ Error::Event { fault: EventFault::LimitExceeded { .. }, .. })
                    if may_hold_header(payload) =>
                {
                    return Err(error);
                }
                Err(_) if !names_subject => Scan::default(),
                Err(error) => return Err(error),
            }
        };
        if found.seal.is_some() {
            return Err(Error::Event { event_id, fault: EventFault::ReservedMember });
        }
        let hit = Hit { target: Target::Field(0), bound: Vec::new(), span };
        let named = Names::new(plan, &found.hits).owner_of(field, &hit);
        let scope = scope_of(&Beside::new(plan, event), field, &hit, "", named)?;
        let scope = draft.scope_index(scope, &mut HashMap::new())?;
        draft.push(span, "".into(), Under::Scope(scope), field.pad)?;
        Ok(draft)
    }

    /// The index of a scope, which is added if it is new. `index` maps scopes to their indexes once there are too many
    /// to search them one by one.
    fn scope_index(&mut self, scope: KeyScope, index: &mut HashMap<KeyScope, usize>) -> Result<u16> {
        const FEW: usize = 16;
        let known = match self.scopes.len() {
            ..=FEW => self.scopes.iter().position(|known| *known == scope),
            _ => index.get(&scope).copied(),
        };
        let at = known.unwrap_or(self.scopes.len());
        if known.is_none() {
            self.scopes.push(scope);
            if self.scopes.len() > FEW {
                index.extend(self.scopes.iter().cloned().zip(0..).skip(index.len()));
            }
        }
        self.check_keys()?;
        #[allow(clippy::cast_possible_truncation, reason = "below MAX_KEYS")]
        Ok(at as u16)
    }

    /// Adds a void place.
    fn push_void(&mut self, span: Span, pointer: Cow<'a, str>, key_id: KeyId) -> Result<()> {
        let index = self.destroyed.iter().position(|known| *known == key_id).unwrap_or(self.destroyed.len());
        if index == self.destroyed.len() {
            self.destroyed.push(key_id);
        }
        self.check_keys()?;
        #[allow(clippy::cast_possible_truncation, reason = "below MAX_KEYS")]
        self.push(span, pointer, Under::Destroyed(index as u16), 0)
    }

    fn check_keys(&self) -> Result<()> {
        if self.scopes.len() + self.destroyed.len() > MAX_KEYS {
            return Err(Error::Event {
                event_id: self.event.event_id,
                fault: EventFault::LimitExceeded { what: "the number of key scopes", limit: MAX_KEYS },
            });
        }
        Ok(())
    }

    /// How many places are void.
    pub(crate) fn voids(&self) -> usize {
        self.sealed.iter().filter(|sealed| matches!(sealed.under, Under::Destroyed(_))).count()
    }

    /// The places that get an entry.
    pub(crate) fn places(&self) -> impl Iterator<Item = &str> {
        self.sealed.iter().map(|sealed| &*sealed.pointer)
    }

    /// Where the values of the places stand.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        self.sealed.iter().map(|sealed| sealed.span)
    }

    /// The places that will be sealed, each with its owner.
    pub(crate) fn owned(&self) -> impl Iterator<Item = Owned<'_>> {
        self.sealed.iter().filter_map(|sealed| match sealed.under {
            Under::Scope(index) => {
                Some(Owned { place: &sealed.pointer, span: sealed.span, scope: self.scopes.get(usize::from(index))? })
            }
            Under::Destroyed(_) => None,
        })
    }

    /// A place that would be sealed for another owner than in `owners`, which says who owns it now.
    pub(crate) fn moved_to_another(&self, owners: &HashMap<String, KeyScope>) -> Option<JsonPointer> {
        if owners.is_empty() {
            return None;
        }
        let moved = self.owned().find(|owned| owners.get(owned.place).is_some_and(|owner| owner != owned.scope));
        moved.map(|owned| JsonPointer::new_unchecked(owned.place))
    }

    fn push(&mut self, span: Span, pointer: Cow<'a, str>, under: Under, pad: usize) -> Result<()> {
        let event_id = self.event.event_id;
        let over = |what, limit| Err(Error::Event { event_id, fault: EventFault::LimitExceeded { what, limit } });
        if pointer.len() > MAX_POINTER {
            return over("the length of a protected pointer in bytes", MAX_POINTER);
        }
        let sealed = Sealed { span, pointer, under, pad };
        // With many small values and large padding, the stored payload could be many times as large as the caller's.
        if matches!(under, Under::Scope(_)) {
            self.padding += sealed.padded_length() - span.length();
        }
        if self.padding > MAX_PADDING {
            return over("the padding of all protected values in bytes", MAX_PADDING);
        }
        self.sealed.push(sealed);
        Ok(())
    }

    /// The places that will be sealed under the key of this scope.
    pub(crate) fn places_of<'d>(&'d self, scope: &KeyScope) -> impl Iterator<Item = JsonPointer> + 'd {
        let wanted = self.scopes.iter().position(|known| known == scope);
        let of_scope = move |sealed: &&Sealed<'a>| match sealed.under {
            Under::Scope(index) => Some(usize::from(index)) == wanted,
            Under::Destroyed(_) => false,
        };
        self.sealed.iter().filter(of_scope).map(|sealed| JsonPointer::new_unchecked(&*sealed.pointer))
    }

    /// The payload to which the sealed payload must open, and the places that are redacted in it.
    pub(crate) fn opens_to(&self, plan: &Plan) -> (Vec<u8>, Vec<JsonPointer>) {
        let (mut out, mut redacted, mut copied) = (Vec::with_capacity(self.event.text.len()), Vec::new(), 0);
        let stand_ins = StandIns::new(plan, self.event);
        for sealed in self.sealed.iter().filter(|sealed| matches!(sealed.under, Under::Destroyed(_))) {
            let place = JsonPointer::new_unchecked(&*sealed.pointer);
            out.extend_from_slice(&self.event.text[copied..sealed.span.start]);
            out.extend_from_slice(stand_ins.at(&place).as_bytes());
            copied = sealed.span.end;
            redacted.push(place);
        }
        out.extend_from_slice(&self.event.text[copied..]);
        (out, redacted)
    }

    /// Encrypts the values, and binds them to the event and the namespace.
    ///
    /// `keys` must be the active keys of [`scopes`](Self::scopes): one for each, in the same order. A value finds its
    /// key by the index of its scope, so a missing key would shift the others to wrong scopes. Another number of keys
    /// is an error.
    pub(crate) fn seal(
        &self,
        namespace: &Namespace,
        keys: &[SealingKey<'_>],
        integrity: &SealingKey<'_>,
        salt: &[u8; 16],
    ) -> Result<Vec<u8>> {
        if keys.len() != self.scopes.len() {
            return Err(Error::Keys(KeyFault::Cryptography));
        }
        let key_ids: Vec<KeyId> = keys.iter().map(|key| key.id).chain(self.destroyed.iter().copied()).collect();
        #[allow(clippy::cast_possible_truncation, reason = "below MAX_KEYS")]
        let live = keys.len() as u16;
        let entries = self.sealed.iter().map(|sealed| match sealed.under {
            Under::Scope(scope) => (scope, EntryKind::Sealed, &*sealed.pointer),
            Under::Destroyed(key) => (live + key, EntryKind::Void, &*sealed.pointer),
        });
        let mut header = write_core(self.event.document.into(), self.mode, salt, integrity.id, &key_ids, entries);
        let transcript = Binding::of(namespace, self.event).transcript(&header);
        header.extend_from_slice(&integrity.key.header_tag(&transcript));
        let mut event_keys = Vec::with_capacity(keys.len());
        for (key, index) in keys.iter().zip(0_u16..=u16::MAX) {
            let event_key = key.key.event_key(&transcript, index)?;
            header.extend_from_slice(event_key.commitment());
            event_keys.push(event_key);
        }
        match self.mode {
            Mode::Fields => self.splice(&header, &event_keys),
            Mode::Whole => self.wrap(&header, &event_keys),
        }
    }

    /// The payload with the header in front and every protected value replaced where it stands.
    fn splice(&self, header: &[u8], keys: &[EventKey]) -> Result<Vec<u8>> {
        let tokens: usize = self.sealed.iter().map(Sealed::token_length).sum();
        let mut out = Vec::with_capacity(self.event.text.len() + header_member_length(header) + tokens);
        let mut buffer = Vec::new();
        out.extend_from_slice(&self.event.text[..self.body]);
        push_header(&mut out, header);
        out.push(b',');
        let mut copied = self.body;
        for (sealed, index) in self.sealed.iter().zip(0_u16..=u16::MAX) {
            out.extend_from_slice(&self.event.text[copied..sealed.span.start]);
            self.push_sealed(&mut out, &mut buffer, index, sealed, keys)?;
            copied = sealed.span.end;
        }
        out.extend_from_slice(&self.event.text[copied..]);
        Ok(out)
    }

    /// A new object with the header and one ciphertext, for a payload that is sealed as a whole.
    fn wrap(&self, header: &[u8], keys: &[EventKey]) -> Result<Vec<u8>> {
        let sealed = &self.sealed[0];
        let mut out = Vec::with_capacity(header_member_length(header) + sealed.token_length() + 16);
        out.push(b'{');
        push_header(&mut out, header);
        out.extend_from_slice(b",\"");
        out.extend_from_slice(WHOLE_MEMBER.as_bytes());
        out.extend_from_slice(b"\":");
        self.push_sealed(&mut out, &mut Vec::new(), 0, sealed, keys)?;
        out.push(b'}');
        Ok(out)
    }

    fn push_sealed(
        &self,
        out: &mut Vec<u8>,
        buffer: &mut Vec<u8>,
        index: u16,
        sealed: &Sealed,
        keys: &[EventKey],
    ) -> Result<()> {
        match sealed.under {
            Under::Scope(scope) => {
                let value = sealed.span.of(self.event.text);
                keys[usize::from(scope)].seal(index, &sealed.pointer, value, sealed.pad, buffer)?;
                push_token(out, buffer);
            }
            Under::Destroyed(_) => out.extend_from_slice(b"null"),
        }
        Ok(())
    }
}

impl Sealed<'_> {
    fn padded_length(&self) -> usize {
        (self.span.length() + 1).next_multiple_of(self.pad.max(PAD))
    }

    fn token_length(&self) -> usize {
        token_length(self.padded_length() + GCM_TAG)
    }
}

fn push_header(out: &mut Vec<u8>, header: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(SEAL_MEMBER.as_bytes());
    out.extend_from_slice(b"\":");
    push_token(out, header);
}

fn header_member_length(header: &[u8]) -> usize {
    SEAL_MEMBER.len() + 4 + token_length(header.len())
}

/// As [`ScanError::in_event`], for append: a repeated `$seal` member is reported as reserved, like a single one.
fn refuse_append(event_id: Uuid, error: ScanError) -> Error {
    match error.in_event(event_id) {
        Error::Event { fault: EventFault::DuplicateMember { pointer }, .. }
            if pointer.as_str().strip_prefix('/') == Some(SEAL_MEMBER) =>
        {
            Error::Event { event_id, fault: EventFault::ReservedMember }
        }
        error => error,
    }
}

/// Refuses an unprotected document that could be mistaken for a sealed one.
///
/// Payloads of unprotected types may be any bytes. Only those that [`is_sealed`] recognises are refused.
pub(crate) fn check_unprotected(EventRef { event_id, text, .. }: EventRef<'_>) -> Result<()> {
    match is_sealed(text) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::Event { event_id, fault: EventFault::ReservedMember }),
        Err(error) => Err(error.in_event(event_id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NewEvent;

    /// With one key too few, the value of the second customer would be sealed under the key of the third.
    #[test]
    fn i3_nothing_is_sealed_unless_every_scope_has_a_key() {
        let schemas = crate::Schemas::new([crate::event("Met")
            .version(1)
            .protect(&["/l/*/name"], crate::subject("Customer", "/l/*/id"))]);
        let schemas = schemas.unwrap();
        let aggregate = crate::aggregate("Order", "1");
        let elements =
            |count: usize| (0..count).map(|id| format!(r#"{{"id":{id},"name":"Ada"}}"#)).collect::<Vec<_>>().join(",");
        for count in [1, 3, 40] {
            let event =
                NewEvent::raw("Met", 1, format!(r#"{{"l":[{}]}}"#, [elements(count), elements(count)].join(",")));
            let schema =
                schemas.for_read(event.event_id, &event.event_type, event.event_version).unwrap().unwrap().schema;
            let draft = Draft::new(&schema.plan, event.to_store(&aggregate)).unwrap().unwrap();
            let ids: Vec<&str> = draft.scopes.iter().map(KeyScope::id).collect();
            assert_eq!(
                ids,
                (0..count).map(|id| id.to_string()).collect::<Vec<_>>(),
                "each once, in order of first use"
            );
            let namespace = Namespace::new("n").unwrap();
            let key = DataKey::new(&[7; 32]).unwrap();
            let keys = |count: usize| -> Vec<SealingKey<'_>> {
                (0..count).map(|id| SealingKey { id: KeyId(Uuid::from_u128(id as u128)), key: &key }).collect()
            };
            let integrity = SealingKey { id: KeyId(Uuid::nil()), key: &key };
            assert!(draft.seal(&namespace, &keys(count), &integrity, &[0; 16]).is_ok());
            for wrong in [0, count - 1, count + 1] {
                assert!(
                    draft.seal(&namespace, &keys(wrong), &integrity, &[0; 16]).is_err(),
                    "{wrong} keys for {count} scopes"
                );
            }
        }
    }
}
