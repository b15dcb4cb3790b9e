//! The schema lock: a registry as a file that people read and commit. It says what every version protects, and where
//! its step leads.
//!
//! `eventseal-testing` writes it, with the shapes of payloads. The command `eventseal` reads it, and so knows an
//! application's registry without running the application.

use crate::schema::declare::Owner;
use crate::schema::{ProtectedPlace, SchemaVersion, Schemas};
use crate::seal::plan::IN_METADATA;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// A schema lock: the contents of a registry, as a file.
///
/// It serializes to JSON whose bytes are the same for the same registry, so that a difference in version control is a
/// difference of the schemas. The crate `eventseal-testing` keeps one up to date; the command `eventseal` takes it with
/// `--schemas`.
///
/// Members that a file has and this version does not know are ignored.
///
/// ```
/// # use eventseal::{Owner, Schemas, event};
/// # use eventseal::schema::{LockFile, SchemaErrors};
/// let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
/// let lock = serde_json::to_string(&LockFile::of(&schemas)).unwrap();
/// let registered = r#"{"versions":{"1":{"protected":{"/name":"the aggregate"},"step":null}}}"#;
/// assert_eq!(lock, format!(r#"{{"eventseal_schemas":1,"types":{{"Registered":{registered}}}}}"#));
/// # Ok::<(), SchemaErrors>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockFile {
    /// The file's format: [`FORMAT`](Self::FORMAT).
    pub eventseal_schemas: u32,
    /// What is protected in the metadata of all events, those of types that are not registered included; `None` if
    /// nothing is. See [`SchemasBuilder::protect_metadata`](crate::schema::SchemasBuilder::protect_metadata).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<LockedMetadata>,
    /// Every event type, by name.
    pub types: BTreeMap<String, LockedType>,
}

/// An event type in a [`LockFile`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockedType {
    /// The version as which events that are stored without a version are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy_version: Option<u32>,
    /// Every version.
    pub versions: BTreeMap<u32, LockedVersion>,
}

/// A version of an event type in a [`LockFile`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockedVersion {
    /// Whose keys protect what, by pointer: an [`Owner`] as it is displayed.
    #[serde(default)]
    pub protected: BTreeMap<String, String>,
    /// How the ids of owners are normalized, by the pointer that they own: a [`Normalize`](crate::Normalize) as it is
    /// displayed. Only where they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub normalized: BTreeMap<String, String>,
    /// Stand-ins by pointer, where they are not `null`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redact_as: BTreeMap<String, Value>,
    /// The names of functions that compute stand-ins, by pointer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redact_with: BTreeMap<String, String>,
    /// What is protected in the metadata; `None` if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<LockedMetadata>,
    /// The shape of the payloads. A registry does not know it: `eventseal-testing` finds it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Value>,
    /// The step from this version; `None` for a current version.
    pub step: Option<LockedStep>,
}

/// What is protected in metadata, in a [`LockFile`]: as in [`LockedVersion`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockedMetadata {
    /// Whose keys protect what, by pointer.
    #[serde(default)]
    pub protected: BTreeMap<String, String>,
    /// How the ids of owners are normalized, by the pointer that they own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub normalized: BTreeMap<String, String>,
    /// Stand-ins by pointer, where they are not `null`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redact_as: BTreeMap<String, Value>,
    /// The names of functions that compute stand-ins, by pointer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redact_with: BTreeMap<String, String>,
}

impl LockedMetadata {
    fn unless_empty(places: &[ProtectedPlace]) -> Option<Self> {
        (!places.is_empty()).then(|| Self::of(places))
    }

    fn of(places: &[ProtectedPlace]) -> Self {
        let normalized = places.iter().filter_map(|place| Some((&place.pointer, place.owner.normalized_by()?)));
        let stand_ins = places.iter().filter(|place| !place.stand_in.is_null());
        let computed = places.iter().filter_map(|place| Some((&place.pointer, place.stand_in_by.as_ref()?)));
        Self {
            protected: places.iter().map(|place| (place.pointer.clone(), place.owner.to_string())).collect(),
            normalized: normalized.map(|(pointer, how)| (pointer.clone(), how.to_string())).collect(),
            redact_as: stand_ins.map(|place| (place.pointer.clone(), sorted(place.stand_in.clone()))).collect(),
            redact_with: computed.map(|(pointer, by)| (pointer.clone(), by.name().to_owned())).collect(),
        }
    }
}

impl LockedVersion {
    /// Does it protect anything, in payloads or in metadata?
    #[must_use]
    pub fn protects(&self) -> bool {
        !self.protected.is_empty() || self.metadata.as_ref().is_some_and(|metadata| !metadata.protected.is_empty())
    }
}

/// A step in a [`LockFile`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockedStep {
    /// How it is written: the word of a [`StepKind`](crate::schema::StepKind).
    pub kind: String,
    /// Where it leads.
    pub to: Vec<LockedTarget>,
}

/// Where a step in a [`LockFile`] leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockedTarget {
    /// The event type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The version.
    pub version: u32,
}

impl LockFile {
    /// The format that this version writes and reads.
    pub const FORMAT: u32 = 1;

    /// The lock of a registry, without shapes.
    #[must_use]
    pub fn of(schemas: &Schemas) -> Self {
        let metadata = LockedMetadata::unless_empty(&schemas.protected_metadata());
        let mut file = Self { metadata, ..Self::default() };
        for version in schemas.versions() {
            let of_type = file.types.entry(version.event_type.as_str().to_owned()).or_default();
            if version.is_legacy {
                of_type.legacy_version = Some(version.event_version.get());
            }
            of_type.versions.insert(version.event_version.get(), LockedVersion::from(&version));
        }
        file
    }
}

/// A lock of the current format, without types.
impl Default for LockFile {
    fn default() -> Self {
        Self { eventseal_schemas: Self::FORMAT, metadata: None, types: BTreeMap::new() }
    }
}

/// Leaves the shape out.
impl From<&SchemaVersion> for LockedVersion {
    fn from(version: &SchemaVersion) -> Self {
        let step = version.step.as_ref().map(|step| LockedStep {
            kind: step.kind.as_str().to_owned(),
            to: step
                .targets
                .iter()
                .map(|(event_type, version)| LockedTarget {
                    event_type: event_type.as_str().to_owned(),
                    version: version.get(),
                })
                .collect(),
        });
        let LockedMetadata { protected, normalized, redact_as, redact_with } = LockedMetadata::of(&version.protected);
        let metadata = LockedMetadata::unless_empty(&version.protected_metadata);
        Self { protected, normalized, redact_as, redact_with, metadata, shape: None, step }
    }
}

/// Sorts the members of a value by name. serde_json may have been built to keep another order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(elements) => elements.into_iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> =
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(members))
        }
        other => other,
    }
}

/// `the aggregate`, `the aggregate as Customer`, `Customer at /customer_id`, `Customer at /actor/id in the metadata`,
/// `Customer by the caller, at /subject in the metadata`, `Customer by function name-v1`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aggregate => f.write_str("the aggregate"),
            Self::AggregateAs { kind, .. } => write!(f, "the aggregate as {kind}"),
            Self::Subject { kind, id, .. } => write!(f, "{kind} at {id}"),
            Self::Metadata { kind, id, .. } => write!(f, "{kind} at {id}{IN_METADATA}"),
            Self::Caller { kind, id, .. } => write!(f, "{kind} by the caller, at {id}{IN_METADATA}"),
            Self::Function { kind, function, .. } => write!(f, "{kind} by function {}", function.name()),
        }
    }
}

impl fmt::Display for LockedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let targets: Vec<String> =
            self.to.iter().map(|target| format!("{} version {}", target.event_type, target.version)).collect();
        match targets.as_slice() {
            [] => f.write_str(&self.kind),
            _ => write!(f, "{} to {}", self.kind, targets.join(" and ")),
        }
    }
}
