//! Finds other scopes that may be the same person: under the same id, or another spelling of it.
//!
//! There are too many spellings to look for each. So the ids of a kind are walked through in their order. After each id
//! that is found, the walk goes on at the next spelling that could come behind it.

use crate::error::Result;
use crate::keys::names::{KeyScope, following};
use crate::keys::scopes::disordered;
use crate::keys::{KeyManager, KeyTable};
use crate::seal::normalize::uuid;

/// How many looks one call may take.
const LOOKS: usize = 10_000;

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// The other scopes that the key table has under this id or another spelling of it, whatever their kind. A
    /// [`shred`](Self::shred) of one scope does not reach any other: look at these before you report a person as
    /// erased.
    ///
    /// Other spellings differ in any of these at once: the case of each letter; white space, of which one character may
    /// be in front and two behind; the form of a UUID (hyphenated, without hyphens, in braces, as a URN). Not found are
    /// white space inside of an id or more of it around one, leading zeros, and accents that are composed in another
    /// way. Shredded scopes are found too. This changes and locks nothing, and needs no KMS.
    ///
    /// It takes a few looks into the index for each kind, one after the other: as a rule three, and more the more ids
    /// begin like this one in another case. A table in which more than 10,000 looks would be needed is not searched to
    /// its end, and the log says so.
    ///
    /// ```
    /// # use eventseal::{KeyScope, Result};
    /// # use eventseal::keys::KeyManager;
    /// # async fn erase<C: Send + 'static>(keys: &KeyManager<C>, tx: &mut C) -> Result<()> {
    /// let customer = KeyScope::new("Customer", "cust_42");
    /// keys.shred(tx, &customer, "request 118").await?;
    /// for other in keys.similar_scopes(tx, &customer).await? {
    ///     eprintln!("{other} has keys of its own: is it the same person?");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText), [`Error::Database`](crate::Error::Database).
    pub async fn similar_scopes(&self, tx: &mut Tx, scope: &KeyScope) -> Result<Vec<KeyScope>> {
        scope.check()?;
        let spellings = Spellings::of(scope.id());
        let mut found = Vec::new();
        let mut from = KeyScope::new("", "");
        for _ in 0..LOOKS {
            let Some(row) = self.store.scopes_from(tx, &from, 1).await?.pop() else { return Ok(found) };
            if row.scope < from {
                return Err(disordered());
            }
            let (kind, id) = (row.scope.kind(), row.scope.id());
            let next = match spellings.first_from(id) {
                _ if row.scope.is_reserved() => None,
                Some(next) if next == id => {
                    if row.scope != *scope {
                        found.push(row.scope.clone());
                    }
                    spellings.first_from(following(&row.scope).id())
                }
                next => next,
            };
            from = match next {
                Some(next) => KeyScope::new(kind, next),
                None => KeyScope::new(format!("{kind}\u{1}"), ""),
            };
        }
        tracing::warn!(
            scope_kind = scope.kind(),
            scope_id = scope.id(),
            "too many ids are similar: not all of them were found"
        );
        Ok(found)
    }
}

/// The spellings of an id. Each pattern stands for the texts that have one of these characters at each place.
struct Spellings {
    patterns: Vec<Vec<Vec<char>>>,
}

impl Spellings {
    fn of(id: &str) -> Self {
        let bare = id.trim();
        // These differ from the id in more than single letters: `Straße` is `STRASSE` in capitals.
        let mut forms = vec![bare.to_owned(), bare.to_lowercase(), bare.to_uppercase()];
        if let Some(uuid) = uuid(bare) {
            let (hyphenated, simple) = (uuid.hyphenated().to_string(), uuid.simple().to_string());
            forms.extend([uuid.braced().to_string(), uuid.urn().to_string(), hyphenated, simple]);
        }
        let mut cased: Vec<Vec<Vec<char>>> = forms.iter().map(|form| form.chars().map(cases).collect()).collect();
        cased.sort_unstable();
        cased.dedup();
        let space: Vec<char> = ('\t'..='\u{3000}').filter(|char| char.is_whitespace()).collect();
        let mut patterns = Vec::new();
        for form in &cased {
            for (before, behind) in (0..=1).flat_map(|before| (0..=2).map(move |behind| (before, behind))) {
                let around = |count| std::iter::repeat_n(space.clone(), count);
                let pattern: Vec<_> = around(before).chain(form.iter().cloned()).chain(around(behind)).collect();
                // An id of white space alone is similar to nothing but itself.
                if !form.is_empty() {
                    patterns.push(pattern);
                }
            }
        }
        if bare.is_empty() {
            patterns.push(id.chars().map(|char| vec![char]).collect());
        }
        Self { patterns }
    }

    /// The first spelling that is not before this text.
    fn first_from(&self, text: &str) -> Option<String> {
        self.patterns.iter().filter_map(|pattern| first_from(pattern, text)).min()
    }
}

/// A letter in either case, in ascending order.
fn cases(char: char) -> Vec<char> {
    let one = |mut cased: Box<dyn Iterator<Item = char>>| cased.next().filter(|_| cased.next().is_none());
    let (lower, upper) = (one(Box::new(char.to_lowercase())), one(Box::new(char.to_uppercase())));
    let mut cases: Vec<char> = [Some(char), lower, upper].into_iter().flatten().collect();
    cases.sort_unstable();
    cases.dedup();
    cases
}

/// The first text of a pattern that is not before this one, byte by byte. That order is also the order of characters.
fn first_from(pattern: &[Vec<char>], text: &str) -> Option<String> {
    let mut kept: Vec<char> = Vec::new();
    let mut rest = text.chars();
    // As much of the text as the pattern allows.
    let mut over = loop {
        let Some(char) = rest.next() else { break None };
        match pattern.get(kept.len()) {
            Some(allowed) if allowed.contains(&char) => kept.push(char),
            allowed => break Some((allowed, char)),
        }
    };
    // If the text goes on in a way that the pattern does not allow, the last character that can be raised is raised.
    while let Some((allowed, char)) = over {
        match allowed.and_then(|allowed| allowed.iter().find(|other| **other > char)) {
            Some(other) => {
                kept.push(*other);
                over = None;
            }
            None => {
                let last = kept.pop()?;
                over = Some((pattern.get(kept.len()), last));
            }
        }
    }
    let least = pattern.iter().skip(kept.len()).map_while(|allowed| allowed.first());
    Some(kept.iter().chain(least).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_found_from_one_another() {
        let near = |a: &str, b: &str| Spellings::of(a).first_from(b).as_deref() == Some(b);
        let uuid = [
            "0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11",
            "0b9f6a9e7d0c4d3e9f0e3c1f3f0a7b11",
            "{0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11}",
            "urn:uuid:0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11",
            "urn:uuid:0B9F6A9E-7D0C-4D3E-9F0E-3C1F3F0A7B11",
            "0B9F6A9E-7D0C-4D3E-9F0E-3C1F3F0A7B11",
            "0B9F6A9E7D0C4D3E9F0E3C1F3F0A7B11",
            "{0B9F6A9E-7D0C-4D3E-9F0E-3C1F3F0A7B11}",
            " 0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11",
            "0B9f6a9e-7d0C-4d3e-9f0e-3c1f3f0a7b11\r\n",
        ];
        for (a, b) in uuid.iter().flat_map(|a| uuid.iter().map(move |b| (a, b))) {
            assert!(near(a, b), "{a} and {b}");
        }
        let names =
            ["cust_42", "CUST_42", "Cust_42", "cust_42 ", " cust_42", "cust_42\n", "CuSt_42\r\n", "\u{a0}cUsT_42"];
        for (a, b) in names.iter().flat_map(|a| names.iter().map(move |b| (a, b))) {
            assert!(near(a, b), "{a:?} and {b:?}");
        }
        assert!(near("Straße", "STRASSE") && near("straße", "STRASSE"));
        // Capitals inside of long words.
        for (a, b) in [
            ("customer-id-42", "Customer-Id-42"),
            ("ada@example.com", "Ada@Example.Com"),
            ("theiphoneofada", "theIPhoneOfAda"),
            ("7gQ2xWkLpRtYvB", "7Gq2XwKlPrTyVb"),
        ] {
            assert!(near(a, b) && near(b, a), "{a} and {b}");
        }
        for (a, b) in [("cust_42", "cust_4"), ("cust_42", "cust_421"), ("7", "07"), ("cust_42", "cust _42"), (" ", "")]
        {
            assert!(!near(a, b), "{a:?} and {b:?}");
        }
    }

    /// Of the texts that the pattern allows, the first that is not before this one.
    #[test]
    fn a_walk_goes_on_at_the_next_spelling() {
        let pattern = [vec!['A', 'a'], vec!['-'], vec!['B', 'b']];
        for (text, expected) in [
            ("", Some("A-B")),
            ("A-B", Some("A-B")),
            ("A-B\u{1}", Some("A-b")),
            ("A-C", Some("A-b")),
            ("A-c", Some("a-B")),
            ("A.", Some("a-B")),
            ("B", Some("a-B")),
            ("a-b\u{1}", None),
            ("b", None),
        ] {
            assert_eq!(first_from(&pattern, text).as_deref(), expected, "{text:?}");
        }
    }
}
