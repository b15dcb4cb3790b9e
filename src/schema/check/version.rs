//! Makes the plan of a version out of its declaration, and checks it.

use crate::crypto::primitives::PAD;
use crate::error::InputFault;
use crate::event::{EventDocument, EventType, check_text};
use crate::json::pointer::{JsonPointer, Pattern, Token, array_index};
use crate::json::scan::{MAX_DEPTH, SEAL_MEMBER};
use crate::schema::check::Found;
use crate::schema::declare::{FieldDecl, Owner, StandInDecl, VersionDecl};
use crate::schema::problem::SchemaProblem;
use crate::seal::format::MAX_POINTER;
use crate::seal::normalize::Normalize;
use crate::seal::plan::{Field, FieldOwner, Plan};
use std::sync::Arc;

const MAX_PAD: usize = 65_536;
/// What stands in for a value if nothing else is declared.
const NO_STAND_IN: &str = "null";

/// The check of one version, or of what is declared for all events.
pub(super) struct CheckVersion<'a> {
    name: &'a EventType,
    /// `None` for what is declared for all events.
    number: Option<u32>,
    found: &'a mut Found,
    /// The document whose plan is made.
    pub(super) document: EventDocument,
    /// The kinds that callers name, each with its place in the metadata.
    pub(super) callers: Vec<(Arc<str>, Pattern)>,
}

impl<'a> CheckVersion<'a> {
    pub(super) fn new(name: &'a EventType, number: Option<u32>, found: &'a mut Found) -> Self {
        Self { name, number, found, document: EventDocument::Payload, callers: Vec::new() }
    }
}

impl CheckVersion<'_> {
    pub(super) fn add(&mut self, problem: SchemaProblem) {
        let problem = match self.document {
            EventDocument::Payload => problem,
            EventDocument::Metadata => SchemaProblem::InMetadata(Box::new(problem)),
        };
        self.found.add_once(self.name, self.number, problem);
    }

    pub(super) fn plan(&mut self, version: &VersionDecl, type_is_protected: bool) -> Plan {
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
        let here = (self.name.clone(), self.number);
        let (other, (event_type, event_version)) =
            self.found.normalized.entry(Arc::clone(kind)).or_insert_with(|| (how.cloned(), here)).clone();
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
    pub(super) fn capture(&mut self, id: &str, field: Option<&Pattern>, captures: &mut Vec<Pattern>) -> usize {
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

pub(super) const TOO_DEEP: &str = "lies deeper than the 128 levels that a payload may have";

fn find<'p>(plan: &'p mut Plan, pointer: &str) -> Option<&'p mut Field> {
    if pointer.is_empty() {
        return plan.whole.as_mut();
    }
    plan.fields.iter_mut().find(|field| field.pattern.as_ref().is_some_and(|pattern| pattern.as_str() == pointer))
}
