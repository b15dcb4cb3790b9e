//! The check of a set of schemas, which finds everything that is wrong with it in one go.

mod chains;
pub(crate) mod decoders;
mod derived;
pub(crate) mod kinds;
mod metadata;
mod owners;
pub(crate) mod protection;
mod version;

use crate::error::InputFault;
use crate::event::{EventType, EventVersion, check_text};
use crate::json::pointer::Pattern;
use crate::schema::builder::SchemasBuilder;
use crate::schema::check::chains::{check_lengths, check_targets};
use crate::schema::check::decoders::check_decoders;
use crate::schema::check::decoders::decoded_into;
use crate::schema::check::kinds::check_kinds;
use crate::schema::check::protection::{check_carried, check_change};
use crate::schema::check::version::CheckVersion;
use crate::schema::declare::{EventSchema, StepDecl, VersionDecl};
use crate::schema::problem::{SchemaError, SchemaErrors, SchemaProblem};
use crate::schema::upcast::changes::Changes;
use crate::schema::upcast::step::{MetadataFn, Step};
use crate::schema::{Schemas, TypeSchema, VersionSchema};
use crate::seal::normalize::{Normalize, Normalizers};
use crate::telemetry::{StepTaken, StepsTaken};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Checks a set of schemas and compiles it.
pub(crate) fn check(builder: SchemasBuilder) -> Result<Schemas, SchemaErrors> {
    let mut found = Found::default();
    // What is wrong for all events is said once, not again for every version. So this comes first.
    let mut nothing = metadata::unregistered(&builder.metadata, &mut found);
    let mut types: HashMap<EventType, TypeSchema> = HashMap::new();
    for event in derived::merged(builder.events) {
        let name = event.name.clone();
        let schema = check_type(event, &builder.metadata, &mut found);
        if types.insert(name.clone(), schema).is_some() {
            found.add(&name, None, SchemaProblem::TypeTwice);
        }
    }
    let chains = check_targets(&types, &mut found);
    if !chains.has_cycle {
        check_lengths(&chains.targets, builder.max_steps, &mut found);
    }
    types.iter().for_each(|(name, schema)| check_changes(&types, name, schema, &mut found));
    if let Some(version) = builder.legacy_version {
        let concerned = types
            .values_mut()
            .filter(|schema| schema.legacy.is_none() && schema.version(EventVersion::new(version)).is_some());
        concerned.for_each(|schema| schema.legacy = Some(EventVersion::new(version)));
    }
    let normalizers = found.normalizers();
    for version in types.values_mut().flat_map(|schema| &mut schema.versions).chain([&mut nothing]) {
        version.plan.normalizers.clone_from(&normalizers);
        version.metadata_plan.normalizers.clone_from(&normalizers);
    }
    let kinds = check_kinds(&types, &nothing, builder.distinct_kinds, &mut found);
    check_decoders(&builder.decoders, &types, &mut found);
    let accept_plaintext: HashSet<EventType> = builder.accept_plaintext.into_iter().collect();
    for name in &accept_plaintext {
        let protects = match types.get(name) {
            Some(schema) => schema.versions.iter().any(VersionSchema::protects),
            None => builder.allow_unknown_types && nothing.protects(),
        };
        if !protects {
            found.add(name, None, SchemaProblem::AcceptsNothing);
        }
    }
    if !found.errors.is_empty() {
        found.errors.sort_by(|a, b| (&a.event_type, a.version).cmp(&(&b.event_type, b.version)));
        return Err(SchemaErrors { errors: found.errors });
    }
    Ok(Schemas {
        types,
        ancestors: chains.ancestors(),
        accept_plaintext,
        allow_unknown_types: builder.allow_unknown_types,
        pass_through_sealed: builder.pass_through_sealed,
        kinds,
        normalizers,
        pass_through_newer: builder.pass_through_newer,
        allow_older_appends: builder.allow_older_appends,
        deny_unreadable_payloads: builder.deny_unreadable_payloads,
        max_parts: builder.max_parts,
        nothing,
        decoded_into: decoded_into(&builder.decoders),
        fingerprint: std::sync::OnceLock::new(),
        steps_taken: StepsTaken::default(),
    })
}

/// Where something is declared: an event type, and a version if it is of one.
type Declared = (EventType, Option<u32>);

#[derive(Default)]
pub(crate) struct Found {
    errors: Vec<SchemaError>,
    /// How the ids of each kind are normalized, and who was the first to say it.
    normalized: HashMap<Arc<str>, (Option<Normalize>, Declared)>,
}

impl Found {
    pub(crate) fn add(&mut self, event_type: &EventType, version: Option<u32>, problem: SchemaProblem) {
        self.errors.push(SchemaError { event_type: event_type.clone(), version, problem });
    }

    /// As [`add`](Self::add), unless the problem is known: of this version, or of all events.
    fn add_once(&mut self, event_type: &EventType, version: Option<u32>, problem: SchemaProblem) {
        let is_there = |error: &SchemaError| error.event_type == *event_type && error.version == version;
        let is_known = |error: &SchemaError| error.problem == problem && (is_there(error) || error.is_of_all_events());
        if !self.errors.iter().any(is_known) {
            self.add(event_type, version, problem);
        }
    }

    fn normalizers(&self) -> Normalizers {
        let normalized = self.normalized.iter();
        normalized.filter_map(|(kind, (how, ..))| Some((Arc::clone(kind), how.clone()?))).collect()
    }
}

fn check_type(event: EventSchema, of_all: &VersionDecl, found: &mut Found) -> TypeSchema {
    let name = event.name;
    if let Err(crate::Error::Input(InputFault::InvalidText { problem, .. })) = check_text("", name.as_str()) {
        found.add(&name, None, SchemaProblem::Name(problem));
    }
    if event.misplaced {
        found.add(&name, None, SchemaProblem::BeforeVersion);
    }
    let declared = check_versions(&name, event.versions, found);
    let (Some(first), Some(last)) = (declared.keys().next().copied(), declared.keys().next_back().copied()) else {
        found.add(&name, None, SchemaProblem::NoVersion);
        return TypeSchema { versions: Vec::new(), first: 1, legacy: None };
    };
    let mut steps = check_steps(&name, event.steps, &declared, found);
    let mut metadata = check_metadata_steps(&name, event.metadata_steps, &steps, found);
    if event.legacy.len() > 1 {
        found.add(&name, None, SchemaProblem::LegacyTwice);
    }
    let legacy = event.legacy.first().map(|version| {
        if !declared.contains_key(version) {
            found.add(&name, None, SchemaProblem::LegacyUnknown(*version));
        }
        EventVersion::new(*version)
    });
    let protected = declared.values().any(|version| !version.fields.is_empty() || version.whole.is_some());
    let metadata_protected = metadata::is_protected(declared.values(), of_all);
    let mut versions = Vec::new();
    let mut expected = first;
    for (number, version) in declared {
        if number != expected {
            found.add(&name, Some(expected), SchemaProblem::VersionMissing(expected));
        }
        expected = number.saturating_add(1);
        let step = steps.remove(&number);
        if step.is_none() && number != last {
            found.add(&name, Some(number), SchemaProblem::StepMissing(number));
        }
        let mut check = CheckVersion::new(&name, Some(number), found);
        let plan = check.plan(&version, protected);
        let metadata_plan = check.metadata_plan(version.metadata.as_deref(), of_all, metadata_protected);
        let (callers, metadata) = (check.callers, metadata.remove(&number));
        let taken = StepTaken::from(name.as_str(), number);
        let mut schema = VersionSchema { plan, metadata_plan, callers, step, metadata, taken };
        metadata::connect(&name, Some(number), &mut schema, found);
        versions.push(schema);
    }
    TypeSchema { versions, first, legacy }
}

/// The versions by number. A version that protects the same as another one gets that one's protection here.
fn check_versions(name: &EventType, versions: Vec<VersionDecl>, found: &mut Found) -> BTreeMap<u32, VersionDecl> {
    let mut declared: BTreeMap<u32, VersionDecl> = BTreeMap::new();
    for mut version in versions {
        let number = version.number;
        if number == 0 || i32::try_from(number).is_err() {
            found.add(name, Some(number), SchemaProblem::VersionNumber);
        }
        // This comes before the version takes over what others say, because it may say something else.
        for pointer in said_twice(&version.stand_ins) {
            found.add(name, Some(number), SchemaProblem::StandInTwice(pointer));
        }
        for pointer in said_twice(&version.pads) {
            found.add(name, Some(number), SchemaProblem::PadTwice(pointer));
        }
        // The version's own stand-ins and paddings come last, so they win.
        for same in std::mem::take(&mut version.same_as).into_iter().rev() {
            match declared.get(&same) {
                Some(other) => inherit(&mut version, other),
                None => found.add(name, Some(number), SchemaProblem::SameAsUnknown(same)),
            }
        }
        std::mem::take(&mut version.problems).into_iter().for_each(|problem| found.add(name, Some(number), problem));
        if let Some(version) = derived::joined(declared.get(&number), version, |problem| {
            found.add(name, Some(number), problem);
        }) {
            declared.insert(number, version);
        }
    }
    declared
}

/// The steps by the version that they lead from.
fn check_steps(
    name: &EventType,
    declared_steps: Vec<(u32, StepDecl)>,
    declared: &BTreeMap<u32, VersionDecl>,
    found: &mut Found,
) -> BTreeMap<u32, Step> {
    let mut steps: BTreeMap<u32, Step> = BTreeMap::new();
    let mut derived: BTreeSet<(u32, &str)> = BTreeSet::new();
    for (from, step) in declared_steps {
        if !declared.contains_key(&from) {
            found.add(name, Some(from), SchemaProblem::StepFromUnknown);
        }
        let step = match step {
            StepDecl::Ready(step) => step,
            // Several enums may hold one type.
            StepDecl::Derived(by, _) if !derived.insert((from, by)) => continue,
            StepDecl::Derived(_, step) => step,
            StepDecl::Changes(changes) => compile(changes, &mut |problem| found.add(name, Some(from), problem)),
        };
        if steps.insert(from, step).is_some() {
            found.add(name, Some(from), SchemaProblem::StepTwice);
        }
    }
    steps
}

/// The steps of metadata by the version that they lead from.
fn check_metadata_steps(
    name: &EventType,
    declared: Vec<(u32, MetadataFn)>,
    steps: &BTreeMap<u32, Step>,
    found: &mut Found,
) -> BTreeMap<u32, MetadataFn> {
    let mut metadata: BTreeMap<u32, MetadataFn> = BTreeMap::new();
    for (from, step) in declared {
        if !steps.get(&from).is_some_and(|step| !matches!(step, Step::Drop)) {
            found.add(name, Some(from), SchemaProblem::MetadataWithoutStep);
        }
        if metadata.insert(from, step).is_some() {
            found.add(name, Some(from), SchemaProblem::MetadataTwice);
        }
    }
    metadata
}

/// Reads the pointers of a declarative step. A change with a pointer that is wrong is reported and left out.
fn compile(changes: Changes, add: &mut impl FnMut(SchemaProblem)) -> Step {
    if changes.renamed.len() > 1 {
        add(SchemaProblem::RenamedTwice);
    }
    let mut compiled = Vec::with_capacity(changes.changes.len());
    for change in changes.changes {
        let parse = |text: String| Pattern::parse(&text).map_err(|problem| SchemaProblem::Pointer(text, problem));
        match change.try_map(parse) {
            Ok(change) => match check_change(&change) {
                None => compiled.push(change),
                Some(problem) => add(problem),
            },
            Err(problem) => add(problem),
        }
    }
    Step::Change(changes.renamed.into_iter().next(), compiled)
}

/// Checks that protected values stay protected through every declarative step of a type.
fn check_changes(types: &HashMap<EventType, TypeSchema>, name: &EventType, schema: &TypeSchema, found: &mut Found) {
    for (at, version) in schema.numbered(name) {
        // A change that is wrong was left out of the step. Problems that follow from its absence would only confuse.
        if found.errors.iter().any(|error| error.event_type == *name && error.version == Some(at.number())) {
            continue;
        }
        let Some(step @ Step::Change(_, changes)) = &version.step else { continue };
        for target in step.targets(&at) {
            if let Some(to) = target.find(types) {
                for problem in check_carried(changes, &version.plan, &target, &to.plan) {
                    found.add(name, Some(at.number()), problem);
                }
            }
        }
    }
}

/// The pointers for which two different values are declared, each once.
fn said_twice<T: PartialEq>(said: &[(String, T)]) -> BTreeSet<String> {
    let differs = |(at, (pointer, it)): (usize, &(String, T))| {
        said[..at].iter().any(|(known, other)| known == pointer && other != it)
    };
    said.iter().enumerate().filter(|named| differs(*named)).map(|(_, (pointer, _))| pointer.clone()).collect()
}

fn inherit(version: &mut VersionDecl, other: &VersionDecl) {
    version.fields.extend(other.fields.iter().cloned());
    version.whole_twice |= version.whole.is_some() && other.whole.is_some();
    version.whole = version.whole.take().or_else(|| other.whole.clone());
    version.unprotected |= other.unprotected;
    version.names_nothing |= other.names_nothing;
    if let Some(other) = &other.metadata {
        inherit(version.metadata.get_or_insert_default(), other);
    }
    version.stand_ins.splice(0..0, other.stand_ins.iter().cloned());
    version.pads.splice(0..0, other.pads.iter().cloned());
}
