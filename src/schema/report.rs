//! The contents of a registry as a list, for reports, guards and operators' tools.

use crate::event::{EventDocument, EventType, EventVersion, PayloadType};
use crate::json::pointer::Pattern;
use crate::schema::declare::Owner;
use crate::schema::type_version::TypeVersion;
use crate::schema::{Schemas, VersionSchema};
use crate::seal::plan::{Field, FieldOwner, Plan};
use crate::seal::stand_in::StandInFn;
use serde_json::Value;
use std::sync::Arc;

/// One version of a registered event type; see [`Schemas::versions`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaVersion {
    /// The event type.
    pub event_type: EventType,
    /// The version.
    pub event_version: EventVersion,
    /// Are events that are stored without a version read as this version? See
    /// [`legacy_version`](crate::schema::EventSchema::legacy_version).
    pub is_legacy: bool,
    /// The places that it protects.
    pub protected: Vec<ProtectedPlace>,
    /// The places in the metadata that it protects.
    pub protected_metadata: Vec<ProtectedPlace>,
    /// The step from this version; `None` for a current version.
    pub step: Option<StepInfo>,
    /// The Rust types that [`decodes`](crate::schema::SchemasBuilder::decodes) names for it.
    pub decoded_into: Vec<PayloadType>,
}

/// A protected place of a payload, or of metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtectedPlace {
    /// A JSON Pointer, in which a `*` stands for every element of an array; `""` for the whole payload.
    pub pointer: String,
    /// Whose keys protect it.
    pub owner: Owner,
    /// The stand-in for the value once its keys are shredded: `null`, unless
    /// [`redact_as`](crate::schema::EventSchema::redact_as) says otherwise. `null` too if a function computes it.
    pub stand_in: Value,
    /// The function of [`redact_with`](crate::schema::EventSchema::redact_with) that computes the stand-in, if any.
    pub stand_in_by: Option<StandInFn>,
}

/// A step, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// How it is written.
    pub kind: StepKind,
    /// Types and versions; none if the event is dropped.
    pub targets: Vec<(EventType, EventVersion)>,
    /// The Rust type that the step reads, if it is [typed](StepKind::Typed) or [over a value](StepKind::Value).
    pub reads: Option<PayloadType>,
}

/// How a step is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepKind {
    /// A list of changes: [`change`](crate::schema::EventSchema::change).
    Declarative,
    /// A function between Rust types: [`upcast`](crate::schema::EventSchema::upcast).
    Typed,
    /// A function that reads a `serde_json::Value`.
    Value,
    /// Into several events: [`split`](crate::schema::EventSchema::split).
    Split,
    /// Into none: [`drop_from`](crate::schema::EventSchema::drop_from).
    Drop,
}

impl StepKind {
    /// A stable word for the kind: `declarative`, `typed`, `value`, `split` or `drop`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declarative => "declarative",
            Self::Typed => "typed",
            Self::Value => "value",
            Self::Split => "split",
            Self::Drop => "drop",
        }
    }
}

impl Schemas {
    /// Every registered version, by type and version.
    #[must_use]
    pub fn versions(&self) -> Vec<SchemaVersion> {
        let mut all: Vec<SchemaVersion> = self
            .types
            .iter()
            .flat_map(|(name, schema)| {
                schema.numbered(name).map(|(at, version)| {
                    let decoded_into = self.decoded_into.get(&at).cloned().unwrap_or_default();
                    let described = version.describe(at);
                    SchemaVersion {
                        is_legacy: schema.legacy == Some(described.event_version),
                        decoded_into,
                        ..described
                    }
                })
            })
            .collect();
        all.sort_unstable_by(|a, b| (&a.event_type, a.event_version).cmp(&(&b.event_type, b.event_version)));
        all
    }

    /// What [`SchemasBuilder::protect_metadata`](crate::schema::SchemasBuilder::protect_metadata) protects in the
    /// metadata of all events. What a registered version protects is in [`versions`](Self::versions), this included.
    #[must_use]
    pub fn protected_metadata(&self) -> Vec<ProtectedPlace> {
        self.nothing.describe_metadata()
    }
}

impl VersionSchema {
    fn describe_metadata(&self) -> Vec<ProtectedPlace> {
        protected_places(&self.metadata_plan, &self.callers)
    }

    fn describe(&self, at: TypeVersion) -> SchemaVersion {
        let step = self.step.as_ref().map(|step| StepInfo {
            kind: step.kind(),
            targets: step.targets(&at).into_iter().map(|target| (target.event_type, target.event_version)).collect(),
            reads: step.reads(),
        });
        let protected = protected_places(&self.plan, &self.callers);
        let protected_metadata = self.describe_metadata();
        let TypeVersion { event_type, event_version } = at;
        SchemaVersion {
            event_type,
            event_version,
            is_legacy: false,
            protected,
            protected_metadata,
            step,
            decoded_into: Vec::new(),
        }
    }
}

fn protected_places(plan: &Plan, callers: &[(Arc<str>, Pattern)]) -> Vec<ProtectedPlace> {
    plan.fields
        .iter()
        .chain(&plan.whole)
        .map(|field| ProtectedPlace {
            pointer: field.pattern.as_ref().map_or_else(String::new, |pattern| pattern.as_str().to_owned()),
            owner: owner_of(plan, callers, field),
            stand_in: serde_json::from_str(&field.stand_in).unwrap_or_default(),
            stand_in_by: field.stand_in_by.clone(),
        })
        .collect()
}

fn owner_of(plan: &Plan, callers: &[(Arc<str>, Pattern)], field: &Field) -> Owner {
    let named = |kind: &Arc<str>, at: Option<&Pattern>, document| {
        let (kind, normalize) = (Arc::clone(kind), plan.normalizers.of(kind).cloned());
        let id = at.map_or_else(String::new, |pattern| pattern.as_str().to_owned());
        let is_caller = || callers.iter().any(|(known, place)| *known == kind && place.as_str() == id);
        match document {
            EventDocument::Payload => Owner::Subject { kind, id, normalize },
            EventDocument::Metadata if is_caller() => Owner::Caller { kind, id, normalize },
            EventDocument::Metadata => Owner::Metadata { kind, id, normalize },
        }
    };
    match &field.owner {
        FieldOwner::Aggregate { kind: None } => Owner::Aggregate,
        FieldOwner::Aggregate { kind: Some(kind) } => {
            Owner::AggregateAs { kind: kind.clone(), normalize: plan.normalizers.of(kind).cloned() }
        }
        FieldOwner::Function { kind, function } => Owner::Function {
            kind: kind.clone(),
            normalize: plan.normalizers.of(kind).cloned(),
            function: function.clone(),
        },
        FieldOwner::Member { kind, binding } => Owner::Subject {
            kind: kind.clone(),
            normalize: plan.normalizers.of(kind).cloned(),
            id: field.pattern.iter().flat_map(Pattern::bindings).nth(*binding).unwrap_or_default().to_owned(),
        },
        FieldOwner::Beside { kind, pointer } => named(kind, plan.beside.get(*pointer), plan.document.other()),
        FieldOwner::Subject { kind, capture } => named(kind, plan.captures.get(*capture), plan.document),
    }
}
