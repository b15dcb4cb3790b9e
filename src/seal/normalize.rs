//! Brings ids of owners to one spelling, so that an id that is spelled in two ways names one key scope.

use crate::event::MAX_TEXT;
use crate::keys::names::KeyScope;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use uuid::Uuid;

/// How the ids of a kind of owner are brought to one spelling: see [`Owner::normalize`](crate::Owner::normalize).
///
/// Two of them are equal if their names are.
#[derive(Clone)]
#[non_exhaustive]
pub enum Normalize {
    /// A UUID in any of its forms (hyphenated, without hyphens, in braces, as a URN), in either case, with or without
    /// white space around it, gets its usual spelling: hyphenated and in lower case. Other ids stay as they are.
    Uuid,
    /// All letters become lower case, as [`str::to_lowercase`] does it.
    LowerCase,
    /// A function of your own does it: [`Normalize::by`].
    Function(NormalizeFn),
}

/// A named function that normalizes ids: see [`Normalize::by`].
#[derive(Clone)]
pub struct NormalizeFn {
    name: Arc<str>,
    function: Arc<dyn Fn(&str) -> String + Send + Sync>,
}

impl Normalize {
    /// A function of your own. Its name stands for it in reports and in the schema lock: change the name when you
    /// change what the function does.
    ///
    /// It must be pure, and must leave an id as it is that it has returned itself. If it returns an empty text, one
    /// with a NUL character or of more than 1,024 bytes, or something else for what it returned, or if it panics, then
    /// the event is not appended ([`EventFault::NotNormalized`](crate::error::EventFault::NotNormalized)).
    ///
    /// ```
    /// # use eventseal::{Normalize, Schemas, event, subject};
    /// let customer = subject("Customer", "/customer_id")
    ///     .normalize(Normalize::by("without leading zeros", |id| id.trim_start_matches('0').to_owned()));
    /// let schemas = Schemas::new([event("OrderPlaced").version(1).protect(&["/email"], customer)])?;
    /// assert_eq!(schemas.scope_for("Customer", "0042")?.id(), "42");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn by(name: impl Into<Arc<str>>, function: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::Function(NormalizeFn { name: name.into(), function: Arc::new(function) })
    }

    fn apply<'i>(&self, id: &'i str) -> Result<Cow<'i, str>, Problem> {
        let changed = match self {
            Self::Uuid => match uuid(id.trim()) {
                Some(uuid) => uuid.hyphenated().to_string(),
                None => return Ok(Cow::Borrowed(id)),
            },
            Self::LowerCase => id.to_lowercase(),
            Self::Function(NormalizeFn { function, .. }) => {
                catch_unwind(AssertUnwindSafe(|| function(id))).map_err(|_| "the function panicked")?
            }
        };
        Ok(if changed == id { Cow::Borrowed(id) } else { Cow::Owned(changed) })
    }

    fn normalize<'i>(&self, id: &'i str) -> Result<Cow<'i, str>, Problem> {
        let normal = self.apply(id)?;
        match normal.len() {
            0 => Err("the result is empty"),
            length if length > MAX_TEXT => Err("the result is longer than 1,024 bytes"),
            _ if normal.contains('\0') => Err("the result holds a NUL character"),
            _ if matches!(normal, Cow::Owned(_)) && self.apply(&normal)? != normal => {
                Err("the result would be changed again")
            }
            _ => Ok(normal),
        }
    }
}

/// What is wrong with the result.
type Problem = &'static str;

/// The UUID of an id, in any of its forms. The prefix of a URN may be in capitals.
pub(crate) fn uuid(id: &str) -> Option<Uuid> {
    Uuid::parse_str(&id.to_ascii_lowercase()).ok()
}

/// `uuid`, `lower_case`, `function NAME`: the words of a schema lock.
impl fmt::Display for Normalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid => f.write_str("uuid"),
            Self::LowerCase => f.write_str("lower_case"),
            Self::Function(NormalizeFn { name, .. }) => write!(f, "function {name}"),
        }
    }
}

impl fmt::Debug for Normalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Normalize({self})")
    }
}

impl fmt::Debug for NormalizeFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NormalizeFn").field(&self.name).finish()
    }
}

impl PartialEq for Normalize {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Uuid, Self::Uuid) | (Self::LowerCase, Self::LowerCase) => true,
            (Self::Function(one), Self::Function(other)) => one.name == other.name,
            _ => false,
        }
    }
}

impl Eq for Normalize {}

/// How the ids of each kind are normalized. Kinds that it does not name are not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Normalizers(Arc<HashMap<Arc<str>, Normalize>>);

impl FromIterator<(Arc<str>, Normalize)> for Normalizers {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Normalize)>>(kinds: I) -> Self {
        Self(Arc::new(kinds.into_iter().collect()))
    }
}

/// An id could not be normalized.
pub(crate) struct NotNormalized {
    pub(crate) by: String,
    pub(crate) problem: Problem,
}

impl Normalizers {
    pub(crate) fn of(&self, kind: &str) -> Option<&Normalize> {
        self.0.get(kind)
    }

    /// The scope of an owner, by whatever spelling of its id.
    pub(crate) fn scope(&self, kind: Arc<str>, id: &str) -> Result<KeyScope, NotNormalized> {
        match self.of(&kind) {
            None => Ok(KeyScope::new(kind, id)),
            Some(how) => match how.normalize(id) {
                Ok(id) => Ok(KeyScope::new(kind, &*id)),
                Err(problem) => Err(NotNormalized { by: how.to_string(), problem }),
            },
        }
    }

    /// The same scope under the normalized id, to be compared with others. A scope whose id can't be normalized stays
    /// as it is.
    pub(crate) fn same(&self, scope: KeyScope) -> KeyScope {
        match self.of(scope.kind()).map(|how| how.normalize(scope.id())) {
            Some(Ok(Cow::Owned(id))) => KeyScope::new(scope.kind(), id),
            _ => scope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_uuid_is_one_id() {
        let usual = "0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11";
        for spelled in [
            usual,
            "0B9F6A9E-7D0C-4D3E-9F0E-3C1F3F0A7B11",
            "0b9f6a9e7d0c4d3e9f0e3c1f3f0a7b11",
            "{0B9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11}",
            "URN:UUID:0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11",
            " 0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11\r\n",
        ] {
            assert_eq!(Normalize::Uuid.normalize(spelled).unwrap(), usual);
        }
        for other in ["cust_42", "0b9f6a9e-7d0c-4d3e-9f0e", " x ", "7"] {
            assert_eq!(Normalize::Uuid.normalize(other).unwrap(), other);
        }
    }

    #[test]
    fn ids_are_normalized_once_and_for_all() {
        assert_eq!(Normalize::LowerCase.normalize("CuSt_ÄΣ").unwrap(), "cust_äς");
        type Function = fn(&str) -> String;
        let wrong: [(Function, &str); 5] = [
            (|_| panic!("on purpose"), "panicked"),
            (|_| String::new(), "empty"),
            (|_| "a\0".to_owned(), "NUL"),
            (|_| "a".repeat(1_025), "longer"),
            (|id| format!("{id}+"), "changed again"),
        ];
        for (function, problem) in wrong {
            let refused = Normalize::by("f", function).normalize("42").unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
        let capital = 'İ'.to_string().repeat(500);
        assert!(Normalize::LowerCase.normalize(&capital).unwrap_err().contains("longer"), "in lower case it is longer");
    }

    #[test]
    fn functions_are_equal_by_name() {
        let by = |name: &str| Normalize::by(name, str::to_owned);
        assert!(by("a") == by("a") && by("a") != by("b") && by("uuid") != Normalize::Uuid);
    }
}
