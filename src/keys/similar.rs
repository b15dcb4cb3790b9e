//! Finds other scopes that may be the same person: under the same id, or another spelling of it.

use crate::error::Result;
use crate::keys::names::KeyScope;
use crate::keys::{KeyManager, KeyTable};
use uuid::Uuid;

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// The other scopes that the key table has under this id or another spelling of it, whatever their kind. A
    /// [`shred`](Self::shred) of one scope does not reach any other: look at these before you report a person as
    /// erased.
    ///
    /// Other spellings differ by white space at either end, by case, or by the form of a UUID. In an id of up to 8
    /// letters, each letter may be in either case. In a longer id, all letters, the first letter, or the first letter
    /// of each word may be: every spelling takes a look of its own into the index, which compares byte for byte. Other
    /// differences are not found, and neither are two at once. Shredded scopes are found too. This changes and locks
    /// nothing, and needs no KMS.
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
        let mut found = self.store.scopes_with_ids(tx, &spellings(scope.id())).await?;
        found.retain(|other| other != scope && !other.is_reserved());
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// The id itself, and other ways in which it may have been written.
fn spellings(id: &str) -> Vec<String> {
    let bare = id.trim();
    let mut all = vec![id.to_owned(), bare.to_lowercase(), bare.to_uppercase()];
    all.extend(cases(bare));
    let mut rest = bare.chars();
    if let Some(first) = rest.next() {
        all.extend([first.to_uppercase().chain(rest.clone()).collect(), first.to_lowercase().chain(rest).collect()]);
    }
    if let Ok(uuid) = Uuid::parse_str(bare) {
        let forms = [
            uuid.hyphenated().to_string(),
            uuid.simple().to_string(),
            uuid.braced().to_string(),
            uuid.urn().to_string(),
        ];
        all.extend(forms.iter().map(|form| form.to_uppercase()));
        all.extend(forms);
        // Most programs keep the prefix in lower case.
        all.push(format!("urn:uuid:{}", uuid.hyphenated().to_string().to_uppercase()));
    }
    // White space that reading a line of a file, or a form, may leave at the end.
    all.extend([
        bare.to_owned(),
        format!("{bare} "),
        format!(" {bare}"),
        format!("{bare}\n"),
        format!("{bare}\r"),
        format!("{bare}\r\n"),
    ]);
    all.retain(|spelling| !spelling.is_empty());
    all.sort_unstable();
    all.dedup();
    all
}

/// In an id with more letters than these, there are too many ways to write it.
const LETTERS: usize = 8;

/// The spellings of an id with its letters in either case.
fn cases(id: &str) -> Vec<String> {
    let has_case = |letter: char| !letter.to_lowercase().eq(letter.to_uppercase());
    if id.chars().filter(|letter| has_case(*letter)).count() > LETTERS {
        let mut in_word = false;
        let title = id.chars().map(|letter| {
            let first = !std::mem::replace(&mut in_word, letter.is_alphanumeric());
            if first { letter.to_uppercase().to_string() } else { letter.to_lowercase().to_string() }
        });
        let mut rest = id.chars();
        let first: String =
            rest.next().into_iter().flat_map(char::to_uppercase).chain(rest.flat_map(char::to_lowercase)).collect();
        return vec![title.collect(), first];
    }
    id.chars().fold(vec![String::new()], |spellings, letter| {
        let either = if has_case(letter) {
            vec![letter.to_lowercase().to_string(), letter.to_uppercase().to_string()]
        } else {
            vec![letter.to_string()]
        };
        spellings.iter().flat_map(|before| either.iter().map(move |letter| format!("{before}{letter}"))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_found_from_one_another() {
        let near = |a: &str, b: &str| spellings(a).iter().any(|spelling| spelling == b);
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
        ];
        for a in uuid {
            for b in &uuid[..8] {
                assert!(near(a, b), "{a} and {b}");
            }
        }
        let names = ["cust_42", "CUST_42", "Cust_42", "cust_42 ", " cust_42", "cust_42\n", "cust_42\r\n"];
        for other in names {
            assert!(near("cust_42", other) && near(other, "cust_42"), "{other:?}");
        }
        assert!(near("Straße", "STRASSE") && near("straße", "STRASSE"));
        for (a, b) in [
            ("CUST_42", "Cust_42"),
            ("cUsT_42", "CuSt_42"),
            ("customer-id-42", "Customer-Id-42"),
            ("CUSTOMER-42", "Customer-42"),
        ] {
            assert!(near(a, b) && (near(b, a) || a == "cUsT_42"), "{a} and {b}");
        }
        assert!(
            near("CuSt_42", "cUsT_42")
                && near("ADA@EXAMPLE.COM", "Ada@Example.Com")
                && near("ada@example.com", "Ada@Example.Com")
        );
        for id in ["abcdefgh", "abcdefghi", "AbCdEfGh-ijkl", &"ä".repeat(500)] {
            assert!(spellings(id).len() < 300, "{id}: each is a look");
        }
        assert!(!near("cust_42", "cust_4") && !near("cust_42", "cust_421") && !near("7", "07"));
        assert!(!spellings(" ").iter().any(String::is_empty));
    }
}
