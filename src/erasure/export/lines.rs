//! An export as lines of JSON.

use crate::erasure::export::{ExportItem, Exported, ExportedEvent, ExportedPayload, ExportedPlaces};
use crate::event::Unreadable;
use crate::json::pointer::JsonPointer;
use crate::keys::names::{KeyScope, Namespace};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::{self, Write};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Writes an export as lines of JSON: a first line that says whose it is, a line for each event, and a last line that
/// says whether all are there. If the last line is missing, the export was cut off.
///
/// ```
/// # use eventseal::{KeyScope, Namespace, SealedStore};
/// # use eventseal::erasure::{ExportLines, ExportOptions};
/// # use eventseal::memory::{MemoryStore, MemoryTx};
/// # type Done = Result<(), Box<dyn std::error::Error>>;
/// # async fn export(store: &SealedStore<MemoryStore>, connection: &mut MemoryTx) -> Done {
/// let customer = KeyScope::new("Customer", "cust_42");
/// let mut lines = ExportLines::begin(Vec::new(), &Namespace::new("shop")?, &customer)?;
/// let mut sink = |item: eventseal::erasure::ExportItem<'_>| Ok(lines.write(item)?);
/// let exported = store.export(connection, &customer, &ExportOptions::default(), &mut sink, &mut |_| {}).await?;
/// let written = lines.end(&exported)?;
/// assert!(written.ends_with(b"}\n") && exported.is_complete());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ExportLines<W> {
    out: W,
}

#[derive(Serialize)]
struct EventLine<'e> {
    position: i64,
    event_id: String,
    aggregate_type: &'e str,
    aggregate_id: &'e str,
    aggregate_version: i64,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<&'e str>,
    stored: PayloadPart<'e>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Vec<PayloadPart<'e>>>,
    /// Why `current` is missing, though steps lead on.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_upcast: Option<String>,
    #[serde(skip_serializing_if = "is_true")]
    registered: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<&'e str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost_in_metadata: Vec<&'e str>,
}

#[derive(Serialize)]
struct PayloadPart<'e> {
    #[serde(rename = "type")]
    event_type: &'e str,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<Value>,
    /// JSON as it was appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    /// Bytes that are not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    fields: Vec<&'e str>,
    erased: Vec<&'e str>,
    left_out: Vec<&'e str>,
    /// Only if something of the metadata is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_metadata: Option<MetadataPlaces<'e>>,
}

#[derive(Serialize)]
struct MetadataPlaces<'e> {
    fields: Vec<&'e str>,
    erased: Vec<&'e str>,
    left_out: Vec<&'e str>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_true(flag: &bool) -> bool {
    *flag
}

impl<W: Write> ExportLines<W> {
    /// Begins with the line that says whose data this is.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn begin(mut out: W, namespace: &Namespace, scope: &KeyScope) -> io::Result<Self> {
        let line = json!({
            "eventseal_export": 1,
            "namespace": namespace.as_str(),
            "kind": scope.kind(),
            "id": scope.id(),
            "exported_at": rfc3339(OffsetDateTime::now_utc()),
        });
        write_line(&mut out, &line)?;
        Ok(Self { out })
    }

    /// Writes one item of the export as a line.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&mut self, item: ExportItem<'_>) -> io::Result<()> {
        match item {
            ExportItem::Event(event) => write_line(&mut self.out, &EventLine::of(event)),
            ExportItem::Unreadable(unreadable) => write_line(&mut self.out, &unreadable_line(unreadable)),
        }
    }

    /// Writes the last line, flushes the writer, and returns it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn end(mut self, exported: &Exported) -> io::Result<W> {
        let line = json!({
            "complete": exported.is_complete(),
            "events": exported.events,
            "fields": exported.fields,
            "erased": exported.erased,
            "left_out": exported.left_out,
            "lost": exported.lost,
            "withheld": exported.withheld,
            "unreadable": exported.unreadable,
            "not_upcast": exported.not_upcast,
            "not_searched": exported.not_searched,
        });
        write_line(&mut self.out, &line)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

/// The text of an error with those of its sources. It holds no values.
fn described(error: &crate::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn unreadable_line(unreadable: &Unreadable) -> Value {
    json!({
        "position": unreadable.global_position.get(),
        "event_id": unreadable.event_id.to_string(),
        "aggregate_type": unreadable.aggregate.aggregate_type(),
        "aggregate_id": unreadable.aggregate.aggregate_id(),
        "aggregate_version": unreadable.aggregate_version.get(),
        "unreadable": described(&unreadable.error),
    })
}

/// The document in one line. JSON has line breaks between its tokens only, never in a string. `None` if it is no JSON.
fn in_one_line(document: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(document).ok()?;
    RawValue::from_string(text.replace(['\n', '\r'], " ")).ok()
}

fn texts(places: &[JsonPointer]) -> Vec<&str> {
    places.iter().map(JsonPointer::as_str).collect()
}

impl<'e> EventLine<'e> {
    fn of(event: &'e ExportedEvent) -> Self {
        let (current, not_upcast) = match &event.current {
            None => (None, None),
            Some(Ok(payloads)) => (Some(payloads.iter().map(PayloadPart::of).collect()), None),
            Some(Err(error)) => (None, Some(described(error))),
        };
        Self {
            position: event.global_position.get(),
            event_id: event.event_id.to_string(),
            aggregate_type: event.aggregate.aggregate_type(),
            aggregate_id: event.aggregate.aggregate_id(),
            aggregate_version: event.aggregate_version.get(),
            created_at: rfc3339(event.created_at),
            trace_id: event.trace_id.as_deref(),
            correlation_id: event.correlation_id.as_deref(),
            causation_id: event.causation_id.as_deref(),
            stored: PayloadPart::of(&event.stored),
            current,
            not_upcast,
            registered: event.is_registered,
            lost: texts(&event.lost),
            lost_in_metadata: texts(&event.lost_in_metadata),
        }
    }
}

impl<'e> MetadataPlaces<'e> {
    fn of(places: &'e ExportedPlaces) -> Option<Self> {
        let ExportedPlaces { fields, erased, left_out } = places;
        (*places != ExportedPlaces::default()).then(|| Self {
            fields: texts(fields),
            erased: texts(erased),
            left_out: texts(left_out),
        })
    }
}

impl<'e> PayloadPart<'e> {
    fn of(exported: &'e ExportedPayload) -> Self {
        let payload = exported.payload.as_deref();
        let document = payload.and_then(in_one_line);
        let part = exported.part;
        Self {
            event_type: exported.event_type.as_str(),
            version: exported.event_version.get(),
            part: (part.count > 1).then(|| json!({ "index": part.index, "count": part.count })),
            payload_base64: payload.filter(|_| document.is_none()).map(|bytes| STANDARD.encode(bytes)),
            payload: document,
            metadata: exported.metadata.as_deref().and_then(in_one_line),
            fields: texts(&exported.fields),
            erased: texts(&exported.erased),
            left_out: texts(&exported.left_out),
            in_metadata: MetadataPlaces::of(&exported.in_metadata),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_in_one_line_and_else_as_it_was() {
        let one = in_one_line(b"{\r\n \"a\": 1.50,\n\"b\":\"x\\ny\"}").unwrap();
        assert_eq!(one.get(), r#"{   "a": 1.50, "b":"x\ny"}"#);
        assert!(in_one_line(b"not JSON").is_none() && in_one_line(b"\xff").is_none());
    }
}
