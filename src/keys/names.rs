//! The ids of keys, their owners, and the name of a key database. Key material is elsewhere.

use crate::error::Result;
use crate::event::{AggregateRef, check_text};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// The id of a data key: random, and never given to another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub Uuid);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a key-encryption key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KekId(pub Uuid);

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key scope: the owner of data keys. It has a kind and an id, such as `("Customer", "cust_42")`.
///
/// Scopes are compared byte by byte. They outlive an erasure in tombstones and logs, so use surrogate ids, never e-mail
/// addresses or names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyScope {
    kind: Arc<str>,
    id: Arc<str>,
}

/// The scope of [`Owner::Aggregate`](crate::Owner::Aggregate): the aggregate itself.
impl From<&AggregateRef> for KeyScope {
    fn from(aggregate: &AggregateRef) -> Self {
        Self::new(aggregate.aggregate_type(), aggregate.aggregate_id())
    }
}

impl KeyScope {
    /// Names a scope. The names are checked by the operation that uses them.
    #[must_use]
    pub fn new(kind: impl Into<Arc<str>>, id: impl Into<Arc<str>>) -> Self {
        Self { kind: kind.into(), id: id.into() }
    }

    /// The kind of owner, such as `Customer`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The id of the owner among those of its kind.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The scope of the keys that authenticate headers. It can't be shredded.
    #[must_use]
    pub fn integrity() -> Self {
        Self::new("$eventseal", "integrity")
    }

    /// The scope of the keys of the [blind indexes](crate::blind_index). It can't be shredded.
    #[must_use]
    pub fn index() -> Self {
        Self::new("$eventseal", "index")
    }

    /// Is this the scope that every append reads, so that nobody locks it?
    pub(crate) fn is_integrity(&self) -> bool {
        *self == Self::integrity()
    }

    /// Stands for the owner of a key that has no row in the key table.
    pub(crate) fn unknown() -> Self {
        Self::new("$eventseal", "unknown")
    }

    /// Is the scope one of this crate's own?
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.kind.starts_with('$')
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_text("the scope kind", &self.kind)?;
        check_text("the scope id", &self.id)
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

impl fmt::Debug for KeyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyScope({} {})", self.kind, self.id)
    }
}

/// The least name of a scope after this one. Names hold no NUL, so U+0001 is the least character.
pub(crate) fn following(scope: &KeyScope) -> KeyScope {
    KeyScope::new(scope.kind(), format!("{}\u{1}", scope.id()))
}

/// The name of a key database, bound into every seal and every wrapped key.
///
/// It is chosen when the key tables are first migrated, is the same for all stores on those keys, and never changes: a
/// value that was sealed under one name does not open under another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Names a key database, such as `shop-production`.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if the name is empty, holds NUL or is over
    /// 1,024 bytes.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self> {
        let name = name.into();
        check_text("the namespace", &name)?;
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
