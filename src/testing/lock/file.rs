//! The lock as a file. `eventseal census --schemas` reads it, too.

use crate::schema::{Owner, SchemaVersion};
use crate::shape::{Shape, sorted};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const FORMAT: u32 = 1;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockFile {
    pub(super) eventseal_schemas: u32,
    pub(super) types: BTreeMap<String, TypeEntry>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TypeEntry {
    /// Which version events are read as that are stored without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) legacy_version: Option<u32>,
    pub(super) versions: BTreeMap<u32, VersionEntry>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionEntry {
    /// Owners by pointer.
    pub(super) protected: BTreeMap<String, String>,
    /// Stand-ins by pointer, where they are not `null`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) redact_as: BTreeMap<String, Value>,
    pub(super) shape: Value,
    pub(super) step: Option<StepEntry>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepEntry {
    pub(super) kind: String,
    pub(super) to: Vec<Target>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    #[serde(rename = "type")]
    event_type: String,
    version: u32,
}

impl VersionEntry {
    pub(super) fn of(version: &SchemaVersion, shape: &Shape) -> Self {
        let step = version.step.as_ref().map(|step| StepEntry {
            kind: step.kind.as_str().to_owned(),
            to: step
                .targets
                .iter()
                .map(|(event_type, version)| Target { event_type: event_type.as_str().to_owned(), version: version.get() })
                .collect(),
        });
        let protected = version.protected.iter().map(|place| (place.pointer.clone(), owner(&place.owner))).collect();
        let stand_ins = version.protected.iter().filter(|place| !place.stand_in.is_null());
        let redact_as = stand_ins.map(|place| (place.pointer.clone(), sorted(place.stand_in.clone()))).collect();
        Self { protected, redact_as, shape: shape.json().clone(), step }
    }
}

fn owner(owner: &Owner) -> String {
    match owner {
        Owner::Aggregate => "the aggregate".to_owned(),
        Owner::AggregateAs { kind } => format!("the aggregate as {kind}"),
        Owner::Subject { kind, id } => format!("{kind} at {id}"),
    }
}

impl std::fmt::Display for StepEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let targets: Vec<String> = self.to.iter().map(|target| format!("{} version {}", target.event_type, target.version)).collect();
        match targets.as_slice() {
            [] => f.write_str(&self.kind),
            _ => write!(f, "{} to {}", self.kind, targets.join(" and ")),
        }
    }
}
