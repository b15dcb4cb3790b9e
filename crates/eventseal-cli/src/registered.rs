//! The registry of an application, as far as its schema lock tells: which versions there are, what they protect and by
//! whose keys, and where their steps lead. What the steps do, nobody knows here; they are never taken.

use crate::output::{Failure, shown};
use eventseal::maintenance::CensusRow;
use eventseal::schema::{EventSchema, LockFile, LockedStep, LockedType, SchemaProblem, SplitPart, StepContext};
use eventseal::{Owner, Schemas, event, subject};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;

/// A schema lock. Members that do not matter here are ignored.
#[derive(Debug)]
pub(crate) struct Registered {
    types: BTreeMap<String, LockedType>,
    name: String,
}

impl Registered {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = shown(&path.to_string_lossy());
        let bytes = std::fs::read(path).map_err(|error| bad(&name, &format!("can't be read: {error}")))?;
        // Before anything that another format may have changed.
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
        Ok(Self { types: lock.types, name })
    }

    /// As a registry. What is protected matters only where payloads are looked into.
    pub(crate) fn schemas(&self, with_protection: bool) -> Result<Schemas, Failure> {
        let events = self.types.iter().map(|(name, known)| declare(known, name, with_protection));
        Schemas::new(events).map_err(|errors| {
            bad(&self.name, &format!("contradicts itself: {}; write it anew", shown(&errors.to_string())))
        })
    }

    pub(crate) fn is_protected(&self, row: &CensusRow) -> bool {
        let version = self.legacy_version(row).unwrap_or(row.event_version.get());
        let known = self.types.get(row.event_type.as_str()).and_then(|known| known.versions.get(&version));
        known.is_some_and(|version| !version.protected.is_empty())
    }

    /// Which version events are read as that are stored without one; `None` if these have one, or if nobody says.
    pub(crate) fn legacy_version(&self, row: &CensusRow) -> Option<u32> {
        self.types
            .get(row.event_type.as_str())
            .and_then(|known| known.legacy_version)
            .filter(|_| row.event_version.get() == 0)
    }

    /// The types that protect anything.
    pub(crate) fn protected_types(&self) -> impl Iterator<Item = &str> {
        let protected =
            self.types.iter().filter(|(_, known)| known.versions.values().any(|version| !version.protected.is_empty()));
        protected.map(|(name, _)| name.as_str())
    }

    /// Every step, with the type and version it starts from.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&str, u32, &LockedStep)> {
        self.types.iter().flat_map(|(name, known)| {
            known.versions.iter().filter_map(|(number, version)| Some((name.as_str(), *number, version.step.as_ref()?)))
        })
    }
}

/// What the schemas say of a kind of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KindIs {
    Known,
    /// The schemas name no such kind, but protect values by their own aggregates, and a schema lock does not say what
    /// types these have.
    PerhapsAnAggregate,
    Unknown,
}

/// As an `Owner` is displayed, and so a schema lock spells it. A kind may hold any text, so it is compared and not cut
/// out where that can be had.
const OWN: &str = "the aggregate";
const OWN_AS: &str = "the aggregate as ";
const SUBJECT_AT: &str = " at ";

impl Registered {
    /// The name of the file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn owners(&self) -> impl Iterator<Item = &str> {
        let versions = self.types.values().flat_map(|known| known.versions.values());
        versions.flat_map(|version| version.protected.values()).map(String::as_str)
    }

    /// The kinds of scopes that the schemas name.
    pub(crate) fn kinds(&self) -> BTreeSet<&str> {
        let named = |owner| match owner {
            OWN => None,
            _ => str::strip_prefix(owner, OWN_AS).or_else(|| owner.split_once(SUBJECT_AT).map(|(kind, _)| kind)),
        };
        self.owners().filter_map(named).collect()
    }

    pub(crate) fn kind(&self, kind: &str) -> KindIs {
        let names = |owner: &str| {
            owner.strip_prefix(OWN_AS) == Some(kind)
                || owner.strip_prefix(kind).is_some_and(|rest| rest.starts_with(SUBJECT_AT))
        };
        if self.owners().any(names) {
            KindIs::Known
        } else if self.owners().any(|owner| owner == OWN)
            && !self.kinds().into_iter().any(|known| are_similar(kind, known))
        {
            KindIs::PerhapsAnAggregate
        } else {
            // An aggregate of a type that is nearly a kind is refused when it is appended to.
            KindIs::Unknown
        }
    }
}

/// Would a registry refuse these two kinds beside each other?
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
                // Whether something lies in the clear does not depend on whose it is.
                "" => schema.protect_whole(Owner::Aggregate),
                pointer => schema.protect(&[pointer], Owner::Aggregate),
            }),
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
