//! The file of a case: the event as a store holds it, and the events that readers must get.

use crate::number::read_as_float;
use crate::shape::sorted;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::{AggregateVersion, GlobalPosition, NewEvent, Part, PersistedEvent, aggregate};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

pub(super) const FORMAT: u32 = 1;

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseFile {
    pub(super) eventseal_golden: u32,
    pub(super) stored: Stored,
    /// `None` until the results are recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expected: Option<Expected>,
}

/// The events that readers must get.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    pub(super) live: Vec<Outcome>,
    /// The events after every key was shredded. `None` if nothing in the event is protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) redacted: Option<Vec<Outcome>>,
}

/// One event that a reader gets, without ids, positions and times, which steps can't change.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outcome {
    #[serde(rename = "type")]
    event_type: String,
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    payload: Option<Value>,
    /// A payload that is not JSON, or is JSON with numbers that serde_json would round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    metadata: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    redacted: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    redacted_metadata: Vec<String>,
    /// `[index, count]`, if the event is one part of a split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<[u32; 2]>,
}

/// Reads `null` as a value, and not as a missing one.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(as_read).map(Some)
}

/// The same value with numbers in their canonical spelling. So a file compares equal whether or not serde_json keeps
/// the spelling of numbers in this build.
pub(super) fn as_read(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(read_as_float(&number).unwrap_or(number)),
        Value::Array(elements) => elements.into_iter().map(as_read).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, as_read(value))).collect(),
        other => other,
    }
}

impl Outcome {
    pub(super) fn of(event: &PersistedEvent) -> Self {
        let json = serde_json::from_slice::<Value>(&event.payload).ok().filter(is_exact).map(sorted).map(as_read);
        let text = std::str::from_utf8(&event.payload).ok();
        Self {
            event_type: event.event_type.as_str().to_owned(),
            version: event.event_version.get(),
            payload_text: text.filter(|_| json.is_none()).map(str::to_owned),
            payload_base64: text.is_none().then(|| STANDARD.encode(&event.payload)),
            payload: json,
            metadata: event
                .metadata
                .as_ref()
                .and_then(|metadata| serde_json::from_slice(metadata).ok())
                .map(sorted)
                .map(as_read),
            redacted: event.redacted.iter().map(|place| place.as_str().to_owned()).collect(),
            redacted_metadata: event.redacted_metadata.iter().map(|place| place.as_str().to_owned()).collect(),
            part: (event.part != Part::WHOLE).then_some([event.part.index, event.part.count]),
        }
    }

    /// The documents of this event that could contain a value, each with its name.
    pub(super) fn contents(&self) -> Vec<(&'static str, Value)> {
        let text = self.payload_text.clone().map(Value::String);
        let contents = [("payload", self.payload.clone()), ("payload_text", text), ("metadata", self.metadata.clone())];
        contents.into_iter().filter_map(|(name, content)| Some((name, content?))).collect()
    }
}

/// The events as one JSON value, for comparison.
pub(super) fn as_json(events: &[Outcome]) -> Value {
    serde_json::to_value(events).unwrap_or_default()
}

/// An event as a store holds it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    aggregate_type: String,
    aggregate_id: String,
    #[serde(default = "one")]
    aggregate_version: i64,
    #[serde(default = "one")]
    global_position: i64,
    event_id: Uuid,
    event_type: String,
    event_version: u32,
    created_at: String,
    /// The exact bytes, as a text. In a case that is written by hand, this may be the JSON value itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    /// A payload that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causation_id: Option<String>,
}

fn one() -> i64 {
    1
}

impl Stored {
    pub(super) fn of(event: &PersistedEvent) -> Self {
        let text = std::str::from_utf8(&event.payload).ok();
        Self {
            aggregate_type: event.aggregate.aggregate_type().to_owned(),
            aggregate_id: event.aggregate.aggregate_id().to_owned(),
            aggregate_version: event.aggregate_version.get(),
            global_position: event.global_position.get(),
            event_id: event.event_id,
            event_type: event.stored_type.as_str().to_owned(),
            event_version: event.stored_version.get(),
            created_at: event.created_at.format(&Rfc3339).unwrap_or_default(),
            payload: text.map(Value::from),
            payload_base64: text.is_none().then(|| STANDARD.encode(&event.payload)),
            metadata: event.metadata.as_ref().and_then(|metadata| serde_json::from_slice(metadata).ok()).map(sorted),
            trace_id: event.trace_id.clone(),
            correlation_id: event.correlation_id.clone(),
            causation_id: event.causation_id.clone(),
        }
    }

    /// The event. The error says what is wrong with the file.
    pub(super) fn event(&self) -> Result<PersistedEvent, String> {
        let payload = match (&self.payload, &self.payload_base64) {
            (Some(Value::String(text)), None) => text.as_bytes().to_vec(),
            (Some(json), None) => json.to_string().into_bytes(),
            (None, Some(text)) => {
                STANDARD.decode(text).map_err(|error| format!("stored.payload_base64 is not base64: {error}"))?
            }
            _ => return Err("stored has either payload or payload_base64".to_owned()),
        };
        let created_at = OffsetDateTime::parse(&self.created_at, &Rfc3339)
            .map_err(|error| format!("stored.created_at is not RFC 3339: {error}"))?;
        // Stores return times in UTC, so steps expect them in UTC.
        let created_at =
            created_at.checked_to_offset(time::UtcOffset::UTC).ok_or("stored.created_at is no time in UTC")?;
        let mut event = NewEvent::raw(self.event_type.as_str(), self.event_version, payload)
            .with_id(self.event_id)
            .with_created_at(created_at);
        event.metadata = self.metadata.as_ref().map(|metadata| metadata.to_string().into_bytes());
        event.trace_id.clone_from(&self.trace_id);
        event.correlation_id.clone_from(&self.correlation_id);
        event.causation_id.clone_from(&self.causation_id);
        let version = AggregateVersion::try_from(self.aggregate_version).map_err(|error| error.to_string())?;
        let position = GlobalPosition::try_from(self.global_position).map_err(|error| error.to_string())?;
        let aggregate = aggregate(self.aggregate_type.as_str(), self.aggregate_id.as_str());
        Ok(PersistedEvent::from_new(aggregate, version, position, event))
    }

    /// Is the payload sealed, or are the metadata?
    pub(super) fn is_sealed(&self) -> bool {
        self.event().is_ok_and(|event| event.is_sealed() || event.has_sealed_metadata())
    }
}

/// Does serde_json hold every number of this value exactly, in any build? A payload with a number that it may round is
/// compared as text.
fn is_exact(value: &Value) -> bool {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    match value {
        Value::Number(number) => {
            number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.abs() < EXACT)
        }
        Value::Array(elements) => elements.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        _ => true,
    }
}
