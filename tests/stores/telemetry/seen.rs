//! A subscriber for one thread, which notes the spans and log events of the library with their fields.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

type Fields = BTreeMap<&'static str, String>;

/// A span, or a log event.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    pub(super) is_span: bool,
    pub(super) name: &'static str,
    pub(super) target: &'static str,
    pub(super) level: Level,
    /// All that it may have.
    pub(super) declared: Vec<&'static str>,
    /// Those that have a value.
    pub(super) fields: Fields,
    /// The span that it is in.
    pub(super) inside: Option<&'static str>,
}

/// What was seen.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<Noted>>>);

/// Where a span is in the list.
struct At(usize);

impl Seen {
    /// Notes what this thread does, as long as the result lives.
    pub(super) fn listen(&self) -> (DefaultGuard, Dispatch) {
        let subscriber = || Registry::default().with(self.clone());
        // If there is one subscriber only, the first thread that comes by a place decides whether that is seen, and
        // other tests have none.
        let second = Dispatch::new(Registry::default().with(Self::default()));
        (tracing::subscriber::set_default(subscriber()), second)
    }

    /// What was seen since the last call.
    pub(super) fn take(&self) -> Vec<Noted> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The spans of this name since the last call of anything here.
    pub(super) fn spans(&self, name: &str) -> Vec<Noted> {
        self.take().into_iter().filter(|noted| noted.is_span && noted.name == name).collect()
    }

    /// The only span of this name.
    pub(super) fn span(&self, name: &str) -> Noted {
        let mut spans = self.spans(name);
        assert_eq!(spans.len(), 1, "{name}: {spans:?}");
        spans.remove(0)
    }

    fn note(&self, is_span: bool, metadata: &'static Metadata<'static>, fields: Fields, inside: Option<&'static str>) {
        let declared = metadata.fields().iter().map(|field| field.name()).collect();
        let (name, target, level) = (metadata.name(), metadata.target(), *metadata.level());
        self.0.lock().unwrap().push(Noted { is_span, name, target, level, declared, fields, inside });
    }
}

impl Noted {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        assert!(self.declared.contains(&name), "{} has no field {name}", self.name);
        self.fields.get(name).map(String::as_str)
    }
}

struct Values<'f>(&'f mut Fields);

impl Visit for Values<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// Is it this library's?
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target() == "eventseal" || metadata.target().starts_with("eventseal::")
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !is_ours(attributes.metadata()) {
            return;
        }
        let mut fields = Fields::new();
        attributes.record(&mut Values(&mut fields));
        let inside = context.lookup_current().map(|span| span.name());
        let at = self.0.lock().unwrap().len();
        self.note(true, attributes.metadata(), fields, inside);
        context.span(id).unwrap().extensions_mut().insert(At(at));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        if let Some(At(at)) = span.extensions().get::<At>()
            && let Some(noted) = self.0.lock().unwrap().get_mut(*at)
        {
            values.record(&mut Values(&mut noted.fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if is_ours(event.metadata()) {
            let mut fields = Fields::new();
            event.record(&mut Values(&mut fields));
            self.note(false, event.metadata(), fields, context.lookup_current().map(|span| span.name()));
        }
    }
}
