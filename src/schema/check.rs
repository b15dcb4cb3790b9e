//! The check of a set of schemas, which finds everything that is wrong with it in one go. It is long because its steps
//! share what they found.

mod chains;
pub(crate) mod decoders;
mod derived;
pub(crate) mod kinds;
mod metadata;
mod owners;
pub(crate) mod protection;

use crate::crypto::primitives::PAD;
use crate::error::InputFault;
use crate::event::{EventDocument, EventType, EventVersion, check_text};
use crate::json::pointer::{JsonPointer, Pattern, Token, array_index};
use crate::json::scan::{MAX_DEPTH, SEAL_MEMBER};
use crate::schema::builder::SchemasBuilder;
use crate::schema::check::chains::{check_lengths, check_targets};
use crate::schema::check::decoders::check_decoders;
use crate::schema::check::decoders::decoded_into;
use crate::schema::check::kinds::check_kinds;
use crate::schema::check::protection::{check_carried, check_change};
use crate::schema::declare::{EventSchema, FieldDecl, Owner, StandInDecl, StepDecl, VersionDecl};
use crate::schema::problem::{SchemaError, SchemaErrors, SchemaProblem};
use crate::schema::upcast::changes::Changes;
use crate::schema::upcast::step::{MetadataFn, Step};
use crate::schema::{Schemas, TypeSchema, VersionSchema};
use crate::seal::format::MAX_POINTER;
use crate::seal::normalize::{Normalize, Normalizers};
use crate::seal::plan::{Field, FieldOwner, Plan};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

const MAX_PAD: usize = 65_536;
/// What stands in for a value if nothing else is declared.
const NO_STAND_IN: &str = "null";

/// Checks a set of schemas and compiles it.
pub(crate) fn check(builder: SchemasBuilder) -> Result<Schemas, SchemaErrors> {
    let mut found = Found::default();
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
    for (name, schema) in &types {
        check_changes(&types, name, schema, &mut found);
    }
    if let Some(version) = builder.legacy_version {
        let concerned = types
            .values_mut()
            .filter(|schema| schema.legacy.is_none() && schema.version(EventVersion::new(version)).is_some());
        concerned.for_each(|schema| schema.legacy = Some(EventVersion::new(version)));
    }
    let mut nothing = metadata::unregistered(&builder.metadata, &mut found);
    let normalizers = found.normalizers();
    for version in types.values_mut().flat_map(|schema| &mut schema.versions).chain([&mut nothing]) {
        version.plan.normalizers.clone_from(&normalizers);
        version.metadata_plan.normalizers.clone_from(&normalizers);
    }
    let kinds = check_kinds(&types, builder.distinct_kinds, &mut found);
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
    })
}

#[derive(Default)]
pub(crate) struct Found {
    errors: Vec<SchemaError>,
    /// How the ids of each kind are normalized, and which type and version was the first to say it.
    normalized: HashMap<Arc<str>, (Option<Normalize>, EventType, u32)>,
}

impl Found {
    pub(crate) fn add(&mut self, event_type: &EventType, version: Option<u32>, problem: SchemaProblem) {
        self.errors.push(SchemaError { event_type: event_type.clone(), version, problem });
    }

    fn has(&self, event_type: &EventType, version: Option<u32>, problem: &SchemaProblem) -> bool {
        let same = |error: &SchemaError| error.version == version && error.problem == *problem;
        self.errors.iter().any(|error| error.event_type == *event_type && same(error))
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
        let callers = check.callers;
        let mut schema = VersionSchema { plan, metadata_plan, callers, step, metadata: metadata.remove(&number) };
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

struct CheckVersion<'a> {
    name: &'a EventType,
    /// `None` for what is declared for all events.
    number: Option<u32>,
    found: &'a mut Found,
    /// The document whose plan is made.
    document: EventDocument,
    /// The kinds that callers name, each with its place in the metadata.
    callers: Vec<(Arc<str>, Pattern)>,
}

impl<'a> CheckVersion<'a> {
    fn new(name: &'a EventType, number: Option<u32>, found: &'a mut Found) -> Self {
        Self { name, number, found, document: EventDocument::Payload, callers: Vec::new() }
    }
}

impl CheckVersion<'_> {
    fn add(&mut self, problem: SchemaProblem) {
        let problem = match self.document {
            EventDocument::Payload => problem,
            EventDocument::Metadata => SchemaProblem::InMetadata(Box::new(problem)),
        };
        self.found.add(self.name, self.number, problem);
    }

    fn plan(&mut self, version: &VersionDecl, type_is_protected: bool) -> Plan {
        let protects = !version.fields.is_empty() || version.whole.is_some();
        match (protects, version.unprotected) {
            (true, true) => self.add(SchemaProblem::ProtectedAndNot),
            (false, false) if type_is_protected => match self.document {
                EventDocument::Payload => self.add(SchemaProblem::Undeclared),
                EventDocument::Metadata => self.found.add(self.name, self.number, SchemaProblem::MetadataUndeclared),
            },
            _ => {}
        }
        if !version.fields.is_empty() && version.whole.is_some() {
            self.add(SchemaProblem::FieldsAndWhole);
        }
        if version.names_nothing {
            self.add(SchemaProblem::NamesNothing);
        }
        if version.whole_twice {
            self.add(SchemaProblem::WholeTwice);
        }
        let mut plan = Plan { document: self.document, ..Plan::default() };
        for field in &version.fields {
            if let Some(field) = self.field(field, &mut plan) {
                plan.fields.push(field);
            }
        }
        for (index, field) in plan.fields.iter().enumerate() {
            for other in &plan.fields[..index] {
                if let (Some(a), Some(b)) = (&other.pattern, &field.pattern)
                    && a.overlaps(b)
                {
                    self.add(SchemaProblem::Overlap(a.as_str().to_owned(), b.as_str().to_owned()));
                }
            }
        }
        self.check_mixed_indexes(&plan);
        if let Some(whole) = &version.whole {
            let owner = self.owner(whole, None, &mut plan);
            plan.whole = Some(Field {
                pattern: None,
                place: Some(JsonPointer::root()),
                owner,
                pad: PAD,
                stand_in: NO_STAND_IN.into(),
                stand_in_by: None,
            });
        }
        self.stand_ins(version, &mut plan);
        for (pointer, pad) in &version.pads {
            if *pad == 0 || !pad.is_multiple_of(PAD) || *pad > MAX_PAD {
                self.add(SchemaProblem::Pad(*pad));
            }
            match find(&mut plan, pointer) {
                Some(field) => field.pad = *pad,
                None => self.add(SchemaProblem::NotProtected(pointer.clone())),
            }
        }
        plan.compile()
    }

    /// Notes the stand-ins that a version declares.
    fn stand_ins(&mut self, version: &VersionDecl, plan: &mut Plan) {
        for (pointer, stand_in) in &version.stand_ins {
            match (find(plan, pointer), stand_in) {
                (Some(field), StandInDecl::Value(stand_in)) => {
                    (field.stand_in, field.stand_in_by) = (stand_in.to_string().into(), None);
                }
                (Some(Field { pattern: None, .. }), StandInDecl::Computed(_)) => self.add(SchemaProblem::ComputedWhole),
                (Some(field), StandInDecl::Computed(by)) => {
                    (field.stand_in, field.stand_in_by) = (NO_STAND_IN.into(), Some(by.clone()));
                    self.function(by.name());
                }
                (None, _) => self.add(SchemaProblem::NotProtected(pointer.clone())),
            }
        }
    }

    fn field(&mut self, field: &FieldDecl, plan: &mut Plan) -> Option<Field> {
        let pattern = match Pattern::parse(&field.pointer) {
            Ok(pattern) => pattern,
            Err(problem) => {
                self.add(SchemaProblem::Pointer(field.pointer.clone(), problem));
                return None;
            }
        };
        if pattern.tokens().first() == Some(&Token::Name(SEAL_MEMBER.to_owned())) {
            self.add(SchemaProblem::Pointer(field.pointer.clone(), "is the header's own place"));
        }
        if let Some(reason) = never_seals(&pattern) {
            self.add(SchemaProblem::NeverSeals(field.pointer.clone(), reason));
            return None;
        }
        let owner = self.owner(field, Some(&pattern), plan);
        let place = (pattern.stars() == 0).then(|| JsonPointer::new_unchecked(pattern.at(&[])));
        Some(Field { pattern: Some(pattern), place, owner, pad: PAD, stand_in: NO_STAND_IN.into(), stand_in_by: None })
    }

    fn owner(&mut self, field: &FieldDecl, pattern: Option<&Pattern>, plan: &mut Plan) -> FieldOwner {
        match &field.owner {
            Owner::Aggregate => FieldOwner::Aggregate { kind: None },
            Owner::AggregateAs { kind, normalize: Some(_) } if kind.is_empty() => {
                self.add(SchemaProblem::NormalizesNoKind);
                FieldOwner::Aggregate { kind: None }
            }
            Owner::AggregateAs { kind, normalize } => {
                self.kind(kind);
                self.normalize(kind, normalize.as_ref());
                FieldOwner::Aggregate { kind: Some(Arc::clone(kind)) }
            }
            Owner::Subject { kind, id, normalize } => {
                self.kind(kind);
                self.normalize(kind, normalize.as_ref());
                if id.starts_with('{') {
                    return FieldOwner::Member { kind: Arc::clone(kind), binding: self.binding(id, pattern) };
                }
                match self.document {
                    EventDocument::Payload => self.named_here(kind, id, pattern, plan),
                    EventDocument::Metadata => self.named_beside(kind, id, plan),
                }
            }
            Owner::Function { kind, function, normalize } => {
                self.kind(kind);
                self.normalize(kind, normalize.as_ref());
                self.function(function.name());
                FieldOwner::Function { kind: Arc::clone(kind), function: function.clone() }
            }
            Owner::Metadata { kind, id, normalize } | Owner::Caller { kind, id, normalize } => {
                self.kind(kind);
                self.normalize(kind, normalize.as_ref());
                if matches!(field.owner, Owner::Caller { .. }) {
                    self.caller(kind, id);
                }
                match self.document {
                    EventDocument::Payload => self.named_beside(kind, id, plan),
                    EventDocument::Metadata => self.named_here(kind, id, pattern, plan),
                }
            }
        }
    }

    fn kind(&mut self, kind: &str) {
        let problem = match check_text("", kind) {
            Err(crate::Error::Input(InputFault::InvalidText { problem, .. })) => problem,
            _ if kind.starts_with('$') => "starts with '$', which is reserved",
            _ => return,
        };
        self.add(SchemaProblem::ScopeKind(kind.to_owned(), problem));
    }

    /// Notes how the ids of a kind are normalized. All declarations of a kind must say the same.
    fn normalize(&mut self, kind: &Arc<str>, how: Option<&Normalize>) {
        let (name, number) = (self.name.clone(), self.number.unwrap_or_default());
        let (other, event_type, event_version) =
            self.found.normalized.entry(Arc::clone(kind)).or_insert_with(|| (how.cloned(), name, number)).clone();
        if other.as_ref() != how {
            let shown = |how: Option<&Normalize>| how.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            let (how, other) = (shown(how), shown(other.as_ref()));
            let problem =
                SchemaProblem::NormalizedOtherwise { kind: kind.to_string(), how, other, event_type, event_version };
            if !self.found.errors.iter().any(|known| known.problem == problem && known.event_type == *self.name) {
                self.add(problem);
            }
        }
    }

    /// The index of the capture that finds a scope's id.
    fn capture(&mut self, id: &str, field: Option<&Pattern>, captures: &mut Vec<Pattern>) -> usize {
        let pattern = match Pattern::parse(id) {
            Ok(pattern) => pattern,
            Err(problem) => {
                self.add(SchemaProblem::ScopePointer(id.to_owned(), problem.to_owned()));
                return 0;
            }
        };
        if pattern.tokens().first() == Some(&Token::Name(SEAL_MEMBER.to_owned())) {
            self.add(SchemaProblem::ScopePointer(
                id.to_owned(),
                "is the header's own place, which no payload has".to_owned(),
            ));
        }
        if pattern.tokens().len() > MAX_DEPTH {
            self.add(SchemaProblem::ScopePointer(id.to_owned(), TOO_DEEP.to_owned()));
        }
        let shared = pattern.up_to_last_star();
        let bound = shared.is_empty() || field.is_some_and(|field| field.tokens().starts_with(shared));
        if !bound {
            let field = field.map_or("the whole payload", Pattern::as_str);
            self.add(SchemaProblem::ScopePointer(
                id.to_owned(),
                format!("has a '*' or a name in braces that {field} does not share: which one's id would it be?"),
            ));
        }
        captures.iter().position(|known| *known == pattern).unwrap_or_else(|| {
            captures.push(pattern);
            captures.len() - 1
        })
    }

    /// Refuses pointers such as `/a/*/x` and `/a/0/y` in one version: both would apply to element 0.
    fn check_mixed_indexes(&mut self, plan: &Plan) {
        let patterns: Vec<&Pattern> =
            plan.fields.iter().filter_map(|field| field.pattern.as_ref()).chain(&plan.captures).collect();
        for (index, a) in patterns.iter().enumerate() {
            for b in &patterns[..index] {
                let differ = a.tokens().iter().zip(b.tokens()).find(|(a, b)| a != b);
                let mixed = match differ {
                    Some((Token::Each, Token::Name(name)) | (Token::Name(name), Token::Each)) => {
                        array_index(name).map(|_| "mixes '*' with an index at the same place as another pointer")
                    }
                    Some((Token::Member, Token::Each) | (Token::Each, Token::Member)) => {
                        Some("has an object where another pointer has an array")
                    }
                    Some((Token::Member, Token::Name(_)) | (Token::Name(_), Token::Member)) => Some(
                        "mixes a name in braces, which means every member, with a member that another pointer names",
                    ),
                    _ => None,
                };
                if let Some(problem) = mixed {
                    self.add(SchemaProblem::Pointer(a.as_str().to_owned(), problem));
                }
            }
        }
    }
}

/// Why nothing can ever be sealed at the places of this pattern, if so. Without this check, such a pattern would
/// protect nothing, and nobody would notice.
fn never_seals(pattern: &Pattern) -> Option<&'static str> {
    if pattern.tokens().first() == Some(&Token::Each) {
        return Some(
            "a '*' stands for the elements of an array, and a payload with protected members is an object: name the \
             members, or use protect_whole()",
        );
    }
    if pattern.tokens().first() == Some(&Token::Member) {
        return Some(
            "a name in braces would mean every member of the root, and the header is one of them: put the object into \
             a member, or use protect_whole()",
        );
    }
    if pattern.tokens().len() > MAX_DEPTH {
        return Some(TOO_DEEP);
    }
    // With no indexes, this is the shortest place that the pattern means.
    (pattern.at(&[]).len() > MAX_POINTER).then_some("a sealed payload holds pointers of up to 4,096 bytes")
}

const TOO_DEEP: &str = "lies deeper than the 128 levels that a payload may have";

fn find<'p>(plan: &'p mut Plan, pointer: &str) -> Option<&'p mut Field> {
    if pointer.is_empty() {
        return plan.whole.as_mut();
    }
    plan.fields.iter_mut().find(|field| field.pattern.as_ref().is_some_and(|pattern| pattern.as_str() == pointer))
}
