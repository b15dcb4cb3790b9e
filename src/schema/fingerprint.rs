//! A hash of everything that a registry says, so that what was made under another one can be told.

use crate::crypto::primitives::Transcript;
use crate::error::{Error, InputFault, Result};
use crate::json::pointer::Pattern;
use crate::schema::Schemas;
use crate::schema::lock_file::LockFile;
use crate::schema::upcast::changes::Change;
use crate::schema::upcast::step::Step;

impl Schemas {
    /// A hash of the types, versions, protected places and steps, and of the policies about what may be read. Functions
    /// can't be hashed: of a step that is one, only the Rust type that it reads counts.
    pub(crate) fn fingerprint(&self) -> Result<[u8; 32]> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(*known);
        }
        let lock = serde_json::to_string(&LockFile::of(self)).map_err(|error| {
            Error::Input(InputFault::Encode { target: std::any::type_name::<LockFile>(), problem: error.to_string() })
        })?;
        let steps = self.steps();
        let policies = format!(
            "{:?} {} {} {}",
            self.accepting_plaintext(),
            self.allow_unknown_types,
            self.pass_through_sealed,
            self.pass_through_newer
        );
        let hash =
            *Transcript::of(&[b"eventseal/schemas", lock.as_bytes(), steps.as_bytes(), policies.as_bytes()]).as_bytes();
        Ok(*self.fingerprint.get_or_init(|| hash))
    }

    /// What is known of the steps besides their kinds and targets, which the lock has.
    fn steps(&self) -> String {
        let mut types: Vec<_> = self.types.iter().collect();
        types.sort_unstable_by_key(|(name, _)| *name);
        let versions = types.into_iter().flat_map(|(name, schema)| schema.versions.iter().map(move |of| (name, of)));
        let steps = versions.map(|(name, version)| {
            let step = match &version.step {
                Some(Step::Change(_, changes)) => changes.iter().map(described).collect(),
                Some(step) => step.reads().map(|reads| reads.name().to_owned()).into_iter().collect::<Vec<_>>(),
                None => Vec::new(),
            };
            format!("{name:?} {step:?} {}\n", version.metadata.is_some())
        });
        steps.collect()
    }
}

fn described(change: &Change<Pattern>) -> String {
    match change {
        Change::Move { from, to } => format!("move {:?} {:?}", from.as_str(), to.as_str()),
        Change::Copy { from, to } => format!("copy {:?} {:?}", from.as_str(), to.as_str()),
        Change::Default { at, text } => format!("default {:?} {text}", at.as_str()),
        Change::Remove { at } => format!("remove {:?}", at.as_str()),
        Change::Map { at, .. } => format!("map {:?}", at.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::declare::{Owner, event, subject};
    use crate::schema::upcast::changes::Changes;
    use crate::seal::normalize::Normalize;
    use std::collections::BTreeSet;

    #[test]
    fn registries_that_read_differently_have_different_fingerprints() {
        let placed = || event("Placed").version(1);
        let owned = |owner: Owner| Schemas::new([placed().protect(&["/name"], owner)]).unwrap();
        let changed = |changes: Changes| Schemas::new([placed().version(2).change(1, changes)]).unwrap();
        let in_the_clear = || event("Pinged").version(1).metadata_in_the_clear("nobody's");
        let accepting = Schemas::builder([placed().protect(&["/name"], Owner::Aggregate)]).accept_plaintext("Placed");
        let all = [
            Schemas::new([placed()]).unwrap(),
            Schemas::new([event("Other").version(1)]).unwrap(),
            Schemas::new([placed().version(2).upcast(1, |old: String| Ok::<_, Error>(old))]).unwrap(),
            Schemas::new([placed().version(2).upcast(1, |old: u8| Ok::<_, Error>(old))]).unwrap(),
            Schemas::builder([placed()]).allow_unknown_types().build().unwrap(),
            Schemas::builder([placed()]).pass_through_newer().build().unwrap(),
            Schemas::builder([in_the_clear()]).build().unwrap(),
            Schemas::builder([in_the_clear()]).protect_metadata(&["/ip"], Owner::Aggregate).build().unwrap(),
            accepting.build().unwrap(),
            owned(Owner::Aggregate),
            owned(subject("Customer", "/customer")),
            owned(subject("Customer", "/customer").normalize(Normalize::LowerCase)),
            Schemas::new([placed().protect(&["/name"], Owner::Aggregate).redact_as("/name", "?")]).unwrap(),
            changed(Changes::new()),
            changed(Changes::new().set_default("/a", 1)),
            changed(Changes::new().set_default("/a", 2)),
            changed(Changes::new().set_default("/b", 1)),
            changed(Changes::new().move_value("/a", "/b")),
            changed(Changes::new().copy_value("/a", "/b")),
            changed(Changes::new().remove("/a")),
            changed(Changes::new().map_value("/a", |value: u8| value)),
        ];
        let fingerprints: BTreeSet<_> = all.iter().map(|schemas| schemas.fingerprint().unwrap()).collect();
        assert_eq!(fingerprints.len(), all.len());
        assert_eq!(owned(Owner::Aggregate).fingerprint().unwrap(), all[9].fingerprint().unwrap());
        assert_eq!(all[9].fingerprint().unwrap(), all[9].fingerprint().unwrap(), "the first and the second time");
    }
}
