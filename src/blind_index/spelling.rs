//! How a value is spelled before it is hashed, so that what users take for one value has one hash.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use zeroize::Zeroizing;

/// How long a value may be, once it is spelled.
const MAX_VALUE: usize = 65_536;

/// How a [`BlindIndex`](super::BlindIndex) spells values before it hashes them. Values that are spelled alike have the
/// same hash, and all others have different ones.
///
/// None of them brings composed and decomposed characters to one form (Unicode normalization). If your users type both,
/// do that in a function of your own.
///
/// An index keeps its spelling: values that are spelled in another way are not found any more. To change it, fill an
/// index of another name, and then use that one.
#[derive(Clone)]
#[non_exhaustive]
pub enum Spelling {
    /// Values are hashed as they are.
    Exact,
    /// Upper and lower case are the same, in all scripts: `STRASSE`, `Straße` and `strasse` are one value.
    CaseFolded,
    /// An e-mail address. White space around it is left out, and upper and lower case are the same, in the local part
    /// too. Anything else counts: `ada@example.org` and `ada+shop@example.org` are two values. Something must stand
    /// before and behind the last `@`. So `bücher.example` and `xn--bcher-kva.example` are two values as well.
    Email,
    /// A function of your own does it: [`Spelling::by`].
    Function(SpellingFn),
}

/// Spells a value.
type Spell = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A named function that spells values: see [`Spelling::by`].
#[derive(Clone)]
pub struct SpellingFn {
    name: Arc<str>,
    function: Arc<Spell>,
}

impl Spelling {
    /// A function of your own. Its name stands for it in `Debug`.
    ///
    /// It must be pure. It returns `None` for what is no value of this kind: such a value is refused, as is one for
    /// which it returns an empty text or more than 65,536 bytes, or for which it panics.
    ///
    /// ```
    /// use eventseal::blind_index::{BlindIndex, Spelling};
    ///
    /// let digits = |number: &str| {
    ///     let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    ///     (digits.len() > 3).then_some(digits)
    /// };
    /// let phones = BlindIndex::new("customer-phone").spelling(Spelling::by("digits", digits));
    /// ```
    pub fn by(name: impl Into<Arc<str>>, function: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::Function(SpellingFn { name: name.into(), function: Arc::new(function) })
    }

    /// The value as it is hashed, or what is wrong with it.
    pub(crate) fn spell(&self, value: &str) -> Result<Zeroizing<String>, &'static str> {
        let spelled = Zeroizing::new(match self {
            Self::Exact => value.to_owned(),
            Self::CaseFolded => folded(value),
            Self::Email => email(value).ok_or("is not an e-mail address")?,
            Self::Function(SpellingFn { function, .. }) => catch_unwind(AssertUnwindSafe(|| function(value)))
                .map_err(|_| "can't be spelled: the function of the index panicked")?
                .ok_or("is refused by the function of the index")?,
        });
        match spelled.len() {
            0 => Err("is empty, once it is spelled"),
            length if length > MAX_VALUE => Err("is longer than 65,536 bytes, once it is spelled"),
            _ => Ok(spelled),
        }
    }
}

/// Each character in lower case, then in upper case, then in lower case, whatever stands beside it. `docs/format.md`
/// says why.
fn folded(value: &str) -> String {
    value.chars().flat_map(char::to_lowercase).flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

fn email(value: &str) -> Option<String> {
    let address = value.trim();
    let (local, domain) = address.rsplit_once('@')?;
    (!local.is_empty() && !domain.is_empty()).then(|| folded(address))
}

/// `exact`, `case_folded`, `email`, `function NAME`.
impl fmt::Display for Spelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::CaseFolded => f.write_str("case_folded"),
            Self::Email => f.write_str("email"),
            Self::Function(SpellingFn { name, .. }) => write!(f, "function {name}"),
        }
    }
}

impl fmt::Debug for Spelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spelling({self})")
    }
}

impl fmt::Debug for SpellingFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpellingFn").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(how: &Spelling, value: &str) -> String {
        how.spell(value).unwrap().to_string()
    }

    #[test]
    fn cases_are_folded_whatever_stands_beside_them() {
        for (value, folded) in [
            ("STRASSE", "strasse"),
            ("Straße", "strasse"),
            ("STRA\u{1e9e}E", "strasse"),
            ("ΟΔΥΣΣΕΥΣ", "οδυσσευσ"),
            ("οδυσσευς", "οδυσσευσ"),
            ("ﬁn", "fin"),
            ("İ", "i\u{307}"),
            (" Ada ", " ada "),
        ] {
            assert_eq!(spelled(&Spelling::CaseFolded, value), folded);
        }
        for character in '\0'..=char::MAX {
            let once = folded(&character.to_string());
            assert_eq!(folded(&once), once, "{character:?}");
        }
    }

    #[test]
    fn addresses_are_trimmed_and_folded_and_nothing_more() {
        for (value, address) in [
            ("ada@example.org", "ada@example.org"),
            (" Ada@EXAMPLE.org\r\n", "ada@example.org"),
            ("Ada+Shop@example.org", "ada+shop@example.org"),
            ("a.d.a@example.org", "a.d.a@example.org"),
            ("\"a@b\"@example.org", "\"a@b\"@example.org"),
        ] {
            assert_eq!(spelled(&Spelling::Email, value), address);
        }
        for value in ["", " ", "ada", "@example.org", "ada@", " @ "] {
            assert!(Spelling::Email.spell(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn what_can_not_be_spelled_is_refused() {
        assert_eq!(spelled(&Spelling::Exact, " Ada\0 "), " Ada\0 ");
        assert!(Spelling::Exact.spell("").is_err());
        assert!(Spelling::Exact.spell(&"a".repeat(MAX_VALUE)).is_ok());
        assert!(Spelling::Exact.spell(&"a".repeat(MAX_VALUE + 1)).is_err());
        type Function = fn(&str) -> Option<String>;
        let wrong: [Function; 3] = [|_| None, |_| Some(String::new()), |_| panic!("on purpose")];
        for function in wrong {
            assert!(Spelling::by("f", function).spell("a").is_err());
        }
        let by = Spelling::by("first letter", |value| value.get(..1).map(str::to_owned));
        assert_eq!(
            (spelled(&by, "Ada"), format!("{by:?}")),
            ("A".to_owned(), "Spelling(function first letter)".into())
        );
    }
}
