//! Values outside of events that are sealed like payloads: a column of a read model, an API key, a file's name.
//!
//! [`SealedStore::seal_value`](crate::SealedStore::seal_value) seals bytes for a scope, and
//! [`open_value`](crate::SealedStore::open_value) opens them. The application keeps the [`SealedValue`] where it likes.
//! It is sealed under the same keys as the scope's events, so a shred of the scope erases it too: from the commit of
//! the shred on, it opens to [`Sensitive::Redacted`](crate::Sensitive::Redacted), and no row has to be rewritten.
//!
//! ```
//! use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
//! use eventseal::{KeyScope, Keyring, Namespace, Schemas, SealedStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let db = MemoryDb::new(Namespace::new("shop")?);
//! # let (keys, keyring) = (MemoryKeys::new(), Keyring::generate("main")?);
//! let store = SealedStore::new(MemoryStore::new(), keys, keyring, Schemas::new([])?);
//! # store.keys().prepare(&mut db.begin()).await?;
//! let customer = KeyScope::new("Customer", "cust_42");
//! let context = ["customers", "email", "cust_42"]; // the table, the column, the row
//!
//! let mut tx = db.begin();
//! let sealed = store.seal_value(&mut tx, &customer, context, "ada@example.org").await?;
//! // … write `sealed` into the row, in this transaction …
//! tx.commit()?;
//!
//! let email = store.open_value(&mut db.begin(), &customer, context, &sealed).await?;
//! assert_eq!(email.expose().map(Vec::as_slice), Some(&b"ada@example.org"[..]));
//!
//! let mut tx = db.begin();
//! store.keys().shred(&mut tx, &customer, "erasure request 118").await?;
//! tx.commit()?;
//! assert!(store.open_value(&mut db.begin(), &customer, context, &sealed).await?.is_redacted());
//! # Ok(())
//! # }
//! ```
//!
//! # What a value is bound to
//! - To the namespace of the key database.
//! - To its scope: opened for another one, it is [`OtherOwner`](crate::error::ValueFault::OtherOwner).
//! - To its [context](ValueContext), which says where the value belongs. Opened under another context, it is
//!   [`Tampered`](crate::error::ValueFault::Tampered). A context with the id of the row keeps values from being
//!   exchanged between rows. Without it, values of one scope and one column can be exchanged.
//!
//! An old value of the same scope and context still opens: nothing says which one was written last.
//!
//! # What the library can't do for them
//! It does not keep these values, so it can't list them. A certificate of a scope proves that their keys are destroyed,
//! and does not count them. `verify`, a census and an export see events only.
//!
//! # Pages of rows
//! [`open_values`](crate::SealedStore::open_values) opens the values of a page with one query of the key table, and has
//! one result for each: a row that somebody altered does not fail the others.
//! [`seal_values`](crate::SealedStore::seal_values) seals several with one query.

use crate::error::{Error, InputFault, Result, ValueFault};
use crate::event::check_text;
use crate::keys::names::KeyScope;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How many items a context may have.
const MAX_ITEMS: usize = 16;

/// A value that is sealed, as it is stored.
///
/// It goes into a row in one of two forms, which stand for the same value:
/// - bytes: [`as_bytes`](Self::as_bytes), [`from_bytes`](Self::from_bytes), and with the SQL adapters sqlx's `Type`,
///   `Encode` and `Decode`, for a column of `BYTEA` (PostgreSQL) or `BLOB` (SQLite);
/// - text: `Display` and `FromStr`, in base64url without padding, for a column of text or a JSON document.
///
/// Serde writes text where a format is human readable, such as JSON, and bytes elsewhere.
///
/// Nothing is checked when it is read back, because nothing can be trusted before it is opened. What was altered, or
/// was never sealed, fails when it is opened, and fails alone.
///
/// ```
/// use eventseal::values::SealedValue;
///
/// let stored = SealedValue::from_bytes([1, 2, 3]);
/// assert_eq!(stored.to_string(), "AQID");
/// assert_eq!("AQID".parse::<SealedValue>()?, stored);
/// assert_eq!(serde_json::to_string(&stored)?, r#""AQID""#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SealedValue(Vec<u8>);

impl SealedValue {
    /// Takes bytes that were stored.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes to store. A value of up to 31 bytes has 157, and each 32 bytes more have 32 more.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes to store, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The text to store.
impl fmt::Display for SealedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base64::display::Base64Display::new(&self.0, &URL_SAFE_NO_PAD).fmt(f)
    }
}

/// Fails for a text that is not base64url without padding. Each value has one text.
impl FromStr for SealedValue {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let problem = "is not base64url without padding: it was altered, or was never sealed";
        let wrong = || Error::Input(InputFault::InvalidText { what: "the text of a sealed value", problem });
        URL_SAFE_NO_PAD.decode(text).map(Self).map_err(|_| wrong())
    }
}

/// Shows the length only.
impl fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedValue({} bytes)", self.0.len())
    }
}

impl Serialize for SealedValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for SealedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Read)
        } else {
            deserializer.deserialize_byte_buf(Read)
        }
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = SealedValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sealed value, as base64url or bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SealedValue, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<SealedValue, E> {
        Ok(SealedValue(bytes.to_vec()))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<SealedValue, E> {
        Ok(SealedValue(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<SealedValue, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element()? {
            bytes.push(byte);
        }
        Ok(SealedValue(bytes))
    }
}

/// Where a value belongs: 1 to 16 texts, such as the table, the column and the id of the row. A sealed value opens
/// under the context under which it was sealed, and under no other.
///
/// Items are told apart by themselves, so there is nothing to escape: `["a", "bc"]` and `["ab", "c"]` are two contexts.
/// Each item has 1 to 1,024 bytes, and no NUL character.
///
/// The context is not stored: only a hash of it goes into the seal. Errors name it. So put ids into it, and nothing
/// that must not be in a log. If a table gets another name, keep its old name in the context, or seal the values anew.
///
/// ```
/// use eventseal::values::ValueContext;
///
/// let context = ValueContext::from(["customers", "email", "cust_42"]);
/// assert_eq!(context.to_string(), "customers/email/cust_42");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValueContext(Arc<[String]>);

impl ValueContext {
    /// The context of these items. They are checked by the call that uses it.
    #[must_use]
    pub fn new<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().map(Into::into).collect())
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.0.is_empty() || self.0.len() > MAX_ITEMS {
            return Err(self.fault(ValueFault::InvalidContext { count: self.0.len(), limit: MAX_ITEMS }));
        }
        self.0.iter().try_for_each(|item| check_text("an item of a value's context", item))
    }

    /// The items one after the other, each behind its length in 4 bytes. So each context has an encoding of its own.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.iter().map(|item| item.len() + 4).sum());
        for item in self.0.iter() {
            #[allow(clippy::cast_possible_truncation, reason = "an item was checked to be short")]
            bytes.extend_from_slice(&(item.len() as u32).to_be_bytes());
            bytes.extend_from_slice(item.as_bytes());
        }
        bytes
    }

    /// An error about the value of this context.
    pub(crate) fn fault(&self, fault: ValueFault) -> Error {
        Error::Value { context: self.clone(), fault }
    }
}

impl<T: Into<String>, const N: usize> From<[T; N]> for ValueContext {
    fn from(items: [T; N]) -> Self {
        Self::new(items)
    }
}

impl From<&ValueContext> for ValueContext {
    fn from(context: &ValueContext) -> Self {
        context.clone()
    }
}

/// The items, with `/` in between: to be shown, and not to be compared.
impl fmt::Display for ValueContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(item)?;
        }
        Ok(())
    }
}

/// A value to be sealed: see [`SealedStore::seal_values`](crate::SealedStore::seal_values).
#[derive(Clone)]
pub struct NewValue<'v> {
    pub(crate) scope: KeyScope,
    pub(crate) context: ValueContext,
    pub(crate) value: &'v [u8],
    pub(crate) pad: usize,
}

impl<'v> NewValue<'v> {
    /// The value of this owner, which belongs here.
    #[must_use]
    pub fn new<V: AsRef<[u8]> + ?Sized>(scope: &KeyScope, context: impl Into<ValueContext>, value: &'v V) -> Self {
        Self { scope: scope.clone(), context: context.into(), value: value.as_ref(), pad: 32 }
    }

    /// Pads the value to a multiple of `multiple` bytes, which is itself a multiple of 32 and at most 65,536. Without
    /// it, values are padded to multiples of 32. Values with the same padded length can't be told apart by their
    /// length.
    #[must_use]
    pub fn pad_to(self, multiple: usize) -> Self {
        Self { pad: multiple, ..self }
    }
}

/// Leaves the value out.
impl fmt::Debug for NewValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewValue").field("scope", &self.scope).field("context", &self.context).finish_non_exhaustive()
    }
}

/// A value to be opened: see [`SealedStore::open_values`](crate::SealedStore::open_values).
#[derive(Clone, Debug)]
pub struct StoredValue<'v> {
    pub(crate) scope: KeyScope,
    pub(crate) context: ValueContext,
    pub(crate) value: &'v SealedValue,
}

impl<'v> StoredValue<'v> {
    /// The sealed value of this owner, which belongs here.
    #[must_use]
    pub fn new(scope: &KeyScope, context: impl Into<ValueContext>, value: &'v SealedValue) -> Self {
        Self { scope: scope.clone(), context: context.into(), value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i3_contexts_that_read_alike_are_encoded_apart() {
        let contexts: [&[&str]; 7] =
            [&["a", "bc"], &["ab", "c"], &["abc"], &["a/bc"], &["a", "b", "c"], &["a", "bc", ""], &["", "a", "bc"]];
        let encoded: std::collections::BTreeSet<_> =
            contexts.iter().map(|items| ValueContext::new(items.iter().copied()).encode()).collect();
        assert_eq!(encoded.len(), contexts.len());
        assert_eq!(ValueContext::from(["a", "bc"]).encode(), *b"\0\0\0\x01a\0\0\0\x02bc");
    }

    #[test]
    fn a_context_names_something() {
        for items in [vec![], vec![""], vec!["a\0"], vec!["a"; MAX_ITEMS + 1]] {
            assert!(ValueContext::new(items).check().is_err());
        }
        assert!(ValueContext::new(["a"; MAX_ITEMS]).check().is_ok());
        assert!(ValueContext::new(["a".repeat(1_025)]).check().is_err());
    }
}
