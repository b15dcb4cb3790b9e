//! Reads the registry of an application from its schema lock: the versions, what they protect under whose keys, and
//! where their steps lead. The steps themselves are not in the lock, so they are never run here.

use crate::output::{Failure, shown};
use eventseal::maintenance::CensusRow;
use eventseal::schema::{
    EventSchema, LockFile, LockedStep, LockedType, LockedVersion, SchemaProblem, SplitPart, StepContext,
};
use eventseal::{KeyScope, Normalize, Owner, Schemas, event, subject};
use serde_json::Value;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;

/// A schema lock that was read. Members of the file that are not needed here are ignored.
#[derive(Debug)]
pub(crate) struct Registered {
    lock: LockFile,
    name: String,
}

impl Registered {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = shown(&path.to_string_lossy());
        let bytes = std::fs::read(path).map_err(|error| bad(&name, &format!("can't be read: {error}")))?;
        // The format is checked first, because another format may have changed everything else.
        match serde_json::from_slice::<Value>(&bytes).ok().as_ref().map(|lock| &lock["eventseal_schemas"]) {
            Some(Value::Number(format)) if format.as_u64() == Some(LockFile::FORMAT.into()) => {}
            Some(Value::Number(format)) => {
                return Err(bad(
                    &name,
                    &format!("has format {format}, not {}: use a newer eventseal", LockFile::FORMAT),
                ));
            }
            _ => {
                let problem = "is no schema lock: it has no member \"eventseal_schemas\"; pass the file that \
                    eventseal-testing wrote";
                return Err(Failure::failed("schemas", format!("{name} {problem}")));
            }
        }
        let lock: LockFile = serde_json::from_slice(&bytes)
            .map_err(|error| bad(&name, &format!("is damaged: {error}; write it anew")))?;
        Ok(Self { lock, name })
    }

    /// The registry. With `with_protection` it knows what is protected, which is only needed if payloads are looked
    /// into.
    pub(crate) fn schemas(&self, with_protection: bool) -> Result<Schemas, Failure> {
        let events = self.lock.types.iter().map(|(name, known)| declare(known, name, with_protection));
        Schemas::new(events).map_err(|errors| {
            bad(&self.name, &format!("contradicts itself: {}; write it anew", shown(&errors.to_string())))
        })
    }

    /// Does the version of this row protect anything?
    pub(crate) fn is_protected(&self, row: &CensusRow) -> bool {
        self.version(row).is_some_and(LockedVersion::protects)
    }

    /// Does it protect anything in payloads? Then these have a header.
    pub(crate) fn protects_payloads(&self, row: &CensusRow) -> bool {
        self.version(row).is_some_and(|version| !version.protected.is_empty())
    }

    fn version(&self, row: &CensusRow) -> Option<&LockedVersion> {
        let version = self.legacy_version(row).unwrap_or(row.event_version.get());
        self.lock.types.get(row.event_type.as_str()).and_then(|known| known.versions.get(&version))
    }

    /// The version as which the events of this row are read, if they are stored without one. `None` if they have a
    /// version, or if the lock does not say it.
    pub(crate) fn legacy_version(&self, row: &CensusRow) -> Option<u32> {
        self.lock
            .types
            .get(row.event_type.as_str())
            .and_then(|known| known.legacy_version)
            .filter(|_| row.event_version.get() == 0)
    }

    /// The types with a version that protects anything.
    pub(crate) fn protected_types(&self) -> impl Iterator<Item = &str> {
        let protected =
            self.lock.types.iter().filter(|(_, known)| known.versions.values().any(LockedVersion::protects));
        protected.map(|(name, _)| name.as_str())
    }

    /// Every step, with the type and version from which it starts.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&str, u32, &LockedStep)> {
        self.lock.types.iter().flat_map(|(name, known)| {
            known.versions.iter().filter_map(|(number, version)| Some((name.as_str(), *number, version.step.as_ref()?)))
        })
    }
}

/// What the schemas say about a kind of key scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KindIs {
    Known,
    /// The schemas do not name this kind. But they have values that are owned by the event's aggregate, and a schema
    /// lock does not say which types of aggregates there are.
    PerhapsAnAggregate,
    Unknown,
}

/// How `Owner` is displayed, and so how a schema lock spells it. A kind may contain any text, so owners are compared
/// with a whole kind where possible, instead of being split.
const OWN: &str = "the aggregate";
const OWN_AS: &str = "the aggregate as ";
/// What follows a kind.
const BEHIND_KIND: [&str; 3] = [" at ", " by the caller, at ", " by function "];

impl Registered {
    /// The name of the file, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn owners(&self) -> impl Iterator<Item = &str> {
        let versions = self.lock.types.values().flat_map(|known| known.versions.values());
        let payloads = versions.clone().flat_map(|version| version.protected.values());
        let metadata = versions.filter_map(|version| version.metadata.as_ref()).chain(&self.lock.metadata);
        payloads.chain(metadata.flat_map(|metadata| metadata.protected.values())).map(String::as_str)
    }

    /// The kinds of scopes that the schemas name.
    pub(crate) fn kinds(&self) -> BTreeSet<&str> {
        let named = |owner| match owner {
            OWN => None,
            _ => str::strip_prefix(owner, OWN_AS).or_else(|| {
                let ends = BEHIND_KIND.iter().filter_map(|behind| owner.find(behind));
                ends.min().map(|end| &owner[..end])
            }),
        };
        self.owners().filter_map(named).collect()
    }

    /// How the ids of a kind are normalized, as the schema lock says it.
    fn normalized(&self, kind: &str) -> Option<String> {
        let versions = self.lock.types.values().flat_map(|known| known.versions.values());
        let payloads = versions.clone().map(|version| (&version.protected, &version.normalized));
        let metadata = versions.filter_map(|version| version.metadata.as_ref()).chain(&self.lock.metadata);
        let metadata = metadata.map(|metadata| (&metadata.protected, &metadata.normalized));
        payloads.chain(metadata).find_map(|(protected, normalized)| {
            let of_kind = protected.iter().filter(|(_, owner)| is_of_kind(owner, kind));
            of_kind.filter_map(|(pointer, _)| normalized.get(pointer)).next().cloned()
        })
    }

    /// What the schemas make of the id of a scope, if its kind is normalized.
    pub(crate) fn spelling(&self, scope: &KeyScope) -> Spelling {
        let Some(how) = self.normalized(scope.kind()) else { return Spelling::Theirs };
        let how = match how.as_str() {
            "uuid" => Normalize::Uuid,
            "lower_case" => Normalize::LowerCase,
            _ => return Spelling::Unknown(how),
        };
        let owner = subject(scope.kind(), "/id").normalize(how);
        let known = Schemas::new([event("E").version(1).protect(&["/value"], owner)]);
        match known.map(|known| known.scope_for(scope.kind(), scope.id())) {
            Ok(Ok(normal)) if normal != *scope => Spelling::Other(normal),
            _ => Spelling::Theirs,
        }
    }

    pub(crate) fn kind(&self, kind: &str) -> KindIs {
        if self.owners().any(|owner| is_of_kind(owner, kind)) {
            KindIs::Known
        } else if self.owners().any(|owner| owner == OWN)
            && !self.kinds().into_iter().any(|known| are_similar(kind, known))
        {
            KindIs::PerhapsAnAggregate
        } else {
            // An aggregate whose type is nearly a known kind can't exist: appends to it are refused.
            KindIs::Unknown
        }
    }
}

/// How the id of a scope is spelled, compared with how the schemas spell ids of its kind.
#[derive(Debug)]
pub(crate) enum Spelling {
    /// As they do. Or nothing is known about its kind.
    Theirs,
    /// They spell it like this.
    Other(KeyScope),
    /// They spell it with a function, which only the application knows.
    Unknown(String),
}

/// Does this owner own scopes of this kind?
fn is_of_kind(owner: &str, kind: &str) -> bool {
    owner.strip_prefix(OWN_AS) == Some(kind)
        || owner.strip_prefix(kind).is_some_and(|rest| BEHIND_KIND.iter().any(|behind| rest.starts_with(behind)))
}

/// Are these two kinds so similar that a registry refuses them beside each other?
fn are_similar(a: &str, b: &str) -> bool {
    let of = |name: &str, kind: &str| event(name).version(1).protect(&["/value"], subject(kind, "/id"));
    let refused = Schemas::new([of("A", a), of("B", b)]).err();
    refused.is_some_and(|refused| {
        refused.errors.iter().any(|error| matches!(error.problem, SchemaProblem::SimilarKinds { .. }))
    })
}

fn bad(name: &str, problem: &str) -> Failure {
    Failure::failed("schemas", format!("the schema lock {name} {problem}"))
}

fn declare(known: &LockedType, name: &str, with_protection: bool) -> EventSchema {
    let mut schema = event(name);
    for (number, version) in &known.versions {
        schema = schema.version(*number);
        schema = match &version.protected {
            protected if protected.is_empty() || !with_protection => schema.unprotected("so the schema lock says"),
            protected => protected.keys().fold(schema, |schema, pointer| match pointer.as_str() {
                // Any owner will do: whether a value is in the clear does not depend on it.
                "" => schema.protect_whole(Owner::Aggregate),
                pointer => schema.protect(&[pointer], Owner::Aggregate),
            }),
        };
        schema = match version.metadata.as_ref().filter(|metadata| with_protection && !metadata.protected.is_empty()) {
            Some(metadata) => metadata
                .protected
                .keys()
                .fold(schema, |schema, pointer| schema.protect_metadata(&[pointer.as_str()], Owner::Aggregate)),
            None => schema.metadata_in_the_clear("so the schema lock says"),
        };
        schema = match &version.step {
            Some(step) => declare_step(step, schema, name, *number),
            None => schema,
        };
    }
    match known.legacy_version {
        Some(version) => schema.legacy_version(version),
        None => schema,
    }
}

fn declare_step(step: &LockedStep, schema: EventSchema, name: &str, from: u32) -> EventSchema {
    let targets: Vec<(&str, u32)> = step.to.iter().map(|target| (target.event_type.as_str(), target.version)).collect();
    match &targets[..] {
        [] => schema.drop_from(from),
        [(target, version)] if *target == name && from.checked_add(1) == Some(*version) => {
            schema.upcast_with(from, |_: Value, _| Err::<Value, _>("a schema lock has no steps to take"))
        }
        targets => schema.split(from, targets, never_taken),
    }
}

fn never_taken(_: Value, _: &StepContext<'_>) -> Result<Vec<SplitPart>, Infallible> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventseal::{caller, metadata};

    /// However the schemas name an owner, and wherever they protect something, the command knows the kind.
    #[test]
    fn every_kind_that_a_registry_declares_is_known() {
        let read = |schemas: &Schemas| Registered { lock: LockFile::of(schemas), name: "schemas".to_owned() };
        let owners = || {
            [
                subject("Customer", "/customer"),
                metadata("Customer", "/customer"),
                caller("Customer"),
                Owner::by("Customer", "first-v1", |_| Some("1".to_owned())),
                Owner::Aggregate.scope_kind("Customer"),
            ]
        };
        let normalized = owners().map(|owner| (owner.normalize(Normalize::LowerCase), true));
        for (owner, is_normalized) in owners().map(|owner| (owner, false)).into_iter().chain(normalized) {
            let of = || event("Met").version(1);
            let said = owner.to_string();
            for schemas in [
                Schemas::new([of().protect(&["/name"], owner.clone())]),
                Schemas::new([of().protect_metadata(&["/ip"], owner.clone())]),
                Schemas::builder([]).allow_unknown_types().protect_metadata(&["/ip"], owner.clone()).build(),
            ] {
                let registered = read(&schemas.unwrap());
                assert_eq!(registered.kind("Customer"), KindIs::Known, "{said}");
                assert_eq!(registered.kind("customer"), KindIs::Unknown, "{said}");
                assert_eq!(registered.kinds(), BTreeSet::from(["Customer"]), "{said}");
                let other = matches!(registered.spelling(&KeyScope::new("Customer", "A")), Spelling::Other(_));
                assert_eq!(other, is_normalized, "{said}");
            }
        }
        assert_eq!(read(&Schemas::new([event("Met").version(1)]).unwrap()).kind("Customer"), KindIs::Unknown);
    }
}
