//! Checks what is protected in the metadata.

use crate::event::{EventDocument, EventType};
use crate::schema::VersionSchema;
use crate::schema::check::Found;
use crate::schema::check::version::CheckVersion;
use crate::schema::declare::VersionDecl;
use crate::schema::problem::{ALL_EVENTS, SchemaProblem};
use crate::seal::plan::Plan;

/// Does any version protect metadata? Then all of them must say what they do.
pub(super) fn is_protected<'d>(versions: impl Iterator<Item = &'d VersionDecl>, of_all: &VersionDecl) -> bool {
    let mut declared = versions.filter_map(|version| version.metadata.as_deref());
    !of_all.fields.is_empty() || declared.any(|metadata| !metadata.fields.is_empty())
}

impl CheckVersion<'_> {
    /// The plan of the metadata of a version. `of_all` is protected in that of all events.
    pub(super) fn metadata_plan(
        &mut self,
        declared: Option<&VersionDecl>,
        of_all: &VersionDecl,
        type_is_protected: bool,
    ) -> Plan {
        self.document = EventDocument::Metadata;
        let mut declared = declared.cloned().unwrap_or_default();
        if !declared.unprotected {
            declared.names_nothing |= of_all.names_nothing;
            declared.fields.extend(of_all.fields.iter().cloned());
            // What the version says itself comes last, so it wins.
            declared.stand_ins.splice(0..0, of_all.stand_ins.iter().cloned());
            declared.pads.splice(0..0, of_all.pads.iter().cloned());
        }
        self.plan(&declared, type_is_protected)
    }
}

/// The schema of everything that is not registered.
pub(super) fn unregistered(of_all: &VersionDecl, found: &mut Found) -> VersionSchema {
    let name = EventType::from(ALL_EVENTS);
    let mut check = CheckVersion::new(&name, None, found);
    check.document = EventDocument::Metadata;
    let metadata_plan = check.plan(of_all, false);
    let mut schema = VersionSchema { metadata_plan, callers: check.callers, ..VersionSchema::default() };
    connect(&name, None, &mut schema, found);
    schema
}

/// Lets the plans of both documents know of each other, and checks that ids which name owners stay in the clear.
pub(super) fn connect(name: &EventType, number: Option<u32>, schema: &mut VersionSchema, found: &mut Found) {
    let VersionSchema { plan, metadata_plan, callers, .. } = schema;
    plan.knows(metadata_plan);
    metadata_plan.knows(plan);
    let in_metadata = plan.beside.iter().chain(&metadata_plan.captures).chain(callers.iter().map(|(_, place)| place));
    let in_payload = metadata_plan.beside.iter();
    let ids = in_metadata.map(|id| (id, &*metadata_plan)).chain(in_payload.map(|id| (id, &*plan)));
    for (id, plan) in ids {
        let protected = plan.fields.iter().filter_map(|field| field.pattern.as_ref());
        let over = protected.filter(|pattern| pattern.overlaps(id)).map(|pattern| pattern.as_str().to_owned()).next();
        if let Some(over) = over.or_else(|| plan.whole.as_ref().map(|_| String::new())) {
            let id = id.as_str().to_owned() + plan.in_words();
            let problem = SchemaProblem::OwnerProtected { id, over };
            found.add_once(name, number, problem);
        }
    }
}
