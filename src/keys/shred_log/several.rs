//! Several copies of one log: each must be the beginning of the longest.

use super::copy::{ShredLogCopy, wrong};
use super::verify::CheckedCopy;
use crate::error::{Error, InputFault, KeyFault, Result};
use crate::keys::KeyStore;
use crate::keys::manager::KeyManager;
use crate::keys::seal_log::LogSealer;

/// A copy whose lines were all checked, and the copy itself.
pub(super) type Checked<'c> = (&'c dyn ShredLogCopy, CheckedCopy);

/// The longest of some copies. It fails if another one is not its beginning.
pub(super) fn longest<'a, 'c>(copies: &'a [Checked<'c>]) -> Result<Option<&'a Checked<'c>>> {
    let mut longest: Option<&Checked<'c>> = None;
    for next in copies {
        let Some(so_far) = longest else {
            longest = Some(next);
            continue;
        };
        // A row's hash covers all rows before it, so the first difference is all that there is to find.
        let mut pairs = so_far.1.hashes.iter().zip(&next.1.hashes);
        if let Some(index) = pairs.position(|(one, other)| one != other) {
            let (first, second) = (so_far.0.name(), next.0.name());
            return Err(Error::Keys(KeyFault::CopiesDiffer { first, second, seq: index as u64 + 1 }));
        }
        if next.1.hashes.len() > so_far.1.hashes.len() {
            longest = Some(next);
        }
    }
    Ok(longest)
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Checks every line of some copies, none of which may be empty, and returns the longest.
    pub(super) async fn longest_copy<'c>(
        &self,
        copies: &[&'c dyn ShredLogCopy],
        by: &LogSealer,
    ) -> Result<Checked<'c>> {
        let mut checked: Vec<Checked<'c>> = Vec::with_capacity(copies.len());
        for copy in copies {
            let found = self.verify_copy(*copy, &by.namespace, &by.keys, &mut |_| {}).await?;
            if found.lines == 0 {
                let problem = "is empty: there is nothing to replay, look whether that is the right one";
                return Err(wrong(*copy, None, problem));
            }
            checked.push((*copy, found));
        }
        let index = longest(&checked)?.and_then(|longest| checked.iter().position(|one| std::ptr::eq(one, longest)));
        index.map(|index| checked.swap_remove(index)).ok_or(Error::Input(InputFault::InvalidText {
            what: "the list of copies of the shred log",
            problem: "is empty: name at least one",
        }))
    }
}
