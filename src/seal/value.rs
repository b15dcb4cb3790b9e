//! Seals and opens one value outside of events: a header as payloads have it, of part 3, and one ciphertext behind it.
//!
//! What holds for payloads holds here: nothing is trusted before it is authenticated, and only a tombstone together
//! with a valid tag becomes a redaction (invariant I4).

use crate::crypto::primitives::{COMMITMENT, GCM_TAG, PAD, TAG, Transcript};
use crate::error::{Error, Result, ValueFault};
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::seal::format::{Document, EntryKind, Header, HeaderError, MAX_PAYLOAD, Mode, write_core};
use crate::seal::normalize::Normalizers;
use crate::seal::opening::{KeyStatus, Keys, tag_holds};
use crate::seal::sealing::SealingKey;
use crate::sensitive::Sensitive;
use crate::values::{NewValue, SealedValue, ValueContext};

/// The length of the header: its core with one key and one entry, the tag and one commitment.
const HEADER: usize = 61 + TAG + COMMITMENT;
/// The largest padding that a caller may choose.
const MAX_PAD: usize = 65_536;
/// How many bytes a value may have.
const MAX_VALUE: usize = MAX_PAYLOAD;
/// How many bytes a sealed value may have.
const MAX_SEALED: usize = HEADER + (MAX_VALUE + 1).next_multiple_of(MAX_PAD) + GCM_TAG;

/// Everything that a value is bound to besides its header.
pub(crate) fn transcript(namespace: &Namespace, context: &ValueContext, core: &[u8]) -> Transcript {
    Transcript::of(&[b"eventseal/v1/value", namespace.as_str().as_bytes(), &context.encode(), core])
}

/// Refuses what can't be sealed, before any key is looked up.
pub(crate) fn check_new(value: &NewValue<'_>) -> Result<()> {
    value.context.check()?;
    if value.value.len() > MAX_VALUE {
        let what = "the size of a value in bytes";
        return Err(value.context.fault(ValueFault::LimitExceeded { what, limit: MAX_VALUE }));
    }
    if value.pad == 0 || value.pad > MAX_PAD || !value.pad.is_multiple_of(PAD) {
        return Err(value.context.fault(ValueFault::InvalidPadding { multiple: value.pad }));
    }
    Ok(())
}

/// Seals a value that was [checked](check_new).
pub(crate) fn seal(
    value: &NewValue<'_>,
    namespace: &Namespace,
    key: &SealingKey<'_>,
    integrity: &SealingKey<'_>,
    salt: &[u8; 16],
) -> Result<SealedValue> {
    let entry = [(0, EntryKind::Sealed, "")].into_iter();
    let mut sealed = write_core(Document::Value, Mode::Whole, salt, integrity.id, &[key.id], entry);
    let transcript = transcript(namespace, &value.context, &sealed);
    let event_key = key.key.event_key(&transcript, 0)?;
    sealed.extend_from_slice(&integrity.key.header_tag(&transcript));
    sealed.extend_from_slice(event_key.commitment());
    let mut ciphertext = Vec::new();
    event_key.seal(0, "", value.value, value.pad, &mut ciphertext)?;
    sealed.extend_from_slice(&ciphertext);
    Ok(SealedValue::from_bytes(sealed))
}

/// A sealed value whose header was parsed. Nothing of it is authentic yet.
pub(crate) struct ClosedValue<'v> {
    context: &'v ValueContext,
    header: Header,
    ciphertext: &'v [u8],
}

impl<'v> ClosedValue<'v> {
    /// Parses the header, and looks at the length of what follows it.
    pub(crate) fn read(context: &'v ValueContext, sealed: &'v SealedValue) -> Result<Self> {
        let bytes = sealed.as_bytes();
        if bytes.len() > MAX_SEALED {
            let what = "the size of a sealed value in bytes";
            return Err(context.fault(ValueFault::LimitExceeded { what, limit: MAX_SEALED }));
        }
        let (header, ciphertext) = bytes.split_at(bytes.len().min(HEADER));
        let header = Header::parse(header.to_vec(), Document::Value).map_err(|error| {
            context.fault(match error {
                HeaderError::Unsupported { what, value } => ValueFault::Unsupported { what, value },
                HeaderError::Malformed => ValueFault::Tampered { problem: "the header is malformed" },
            })
        })?;
        if ciphertext.len() <= GCM_TAG || !(ciphertext.len() - GCM_TAG).is_multiple_of(PAD) {
            return Err(context.fault(ValueFault::Tampered { problem: "the ciphertext is malformed" }));
        }
        Ok(Self { context, header, ciphertext })
    }

    /// The ids of the data key and of the integrity key.
    pub(crate) fn key_ids(&self) -> [KeyId; 2] {
        [self.header.keys[0], self.header.integrity_key]
    }

    /// Authenticates the header, and decrypts the value; redacts it if its key is shredded. `owner` is the scope that
    /// it must belong to, normalized.
    pub(crate) fn open(
        &self,
        owner: &KeyScope,
        namespace: &Namespace,
        keys: &Keys,
        normalizers: &Normalizers,
    ) -> Result<Sensitive<Vec<u8>>> {
        let tampered = |problem| self.context.fault(ValueFault::Tampered { problem });
        let transcript = transcript(namespace, self.context, self.header.core());
        let [key_id, _] = self.key_ids();
        let status = keys.get(&key_id);
        let event_key = match status {
            Some(KeyStatus::Live { scope, .. }) if scope.is_reserved() => {
                return Err(tampered("the header names an integrity key as a data key"));
            }
            Some(KeyStatus::Live { key, .. }) => {
                let event_key = key.event_key(&transcript, 0)?;
                if !self.header.commitments().all(|(_, commitment)| event_key.commitment_is(commitment)) {
                    return Err(tampered("the header is not authentic"));
                }
                Some(event_key)
            }
            _ if !tag_holds(&self.header, &transcript, keys) => {
                return Err(tampered("the header's tag is not authentic"));
            }
            _ => None,
        };
        let scope = match status {
            None => return Err(self.missing(key_id)),
            Some(KeyStatus::Faulty(error)) => return Err(error.clone()),
            Some(KeyStatus::Live { scope, .. } | KeyStatus::Disabled { scope } | KeyStatus::Shredded { scope }) => {
                scope
            }
        };
        if normalizers.same(scope.clone()) != *owner {
            return Err(self.context.fault(ValueFault::OtherOwner));
        }
        let Some(event_key) = event_key else {
            if let Some(KeyStatus::Disabled { scope }) = status {
                return Err(Error::Disabled { scope: scope.clone() });
            }
            self.check_integrity(keys)?;
            return Ok(Sensitive::Redacted);
        };
        let mut value = self.ciphertext.to_vec();
        let length = event_key.open(0, "", &mut value).ok_or_else(|| tampered("the ciphertext is not authentic"))?;
        value.truncate(length);
        Ok(Sensitive::Present(value))
    }

    /// A header whose tag could not be checked must not lead to a redaction.
    fn check_integrity(&self, keys: &Keys) -> Result<()> {
        match keys.get(&self.header.integrity_key) {
            None => Err(self.missing(self.header.integrity_key)),
            Some(KeyStatus::Disabled { scope }) => Err(Error::Disabled { scope: scope.clone() }),
            Some(KeyStatus::Faulty(error)) => Err(error.clone()),
            Some(_) => Ok(()),
        }
    }

    fn missing(&self, key_id: KeyId) -> Error {
        self.context.fault(ValueFault::MissingKey { key_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_the_format() {
        assert_eq!((HEADER, MAX_VALUE, MAX_SEALED), (109, 67_108_864, 67_174_525));
    }
}
