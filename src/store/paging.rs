//! Reads of any length, page by page: the streams that [`EventStoreExt`](crate::EventStoreExt) gives out.
//!
//! A page is read when somebody asks for it, and never before. A stream does nothing while its events are handled, so a
//! statement that it sends ahead would only be answered at the next poll, on a connection that nobody else can use
//! until then. And an event that is opened ahead is older than it looks: its key may have been shredded since.

use crate::error::{Error, Result, StorageFault};
use crate::event::{
    AggregateRef, EventFilter, EventPage, GlobalPosition, PageSize, PersistedEvent, Stream, VersionRange,
};
use crate::store::EventStore;
use futures_util::stream::{self, BoxStream, StreamExt, TryStream, TryStreamExt};

/// The pages of one aggregate's events.
pub(super) fn aggregate_pages<'a, S: EventStore + ?Sized>(
    store: &'a S,
    tx: &'a mut S::Tx,
    aggregate: &AggregateRef,
    range: VersionRange,
    size: PageSize,
) -> BoxStream<'a, Result<Stream>> {
    let left = Some(range);
    let pages = AggregatePages { store, tx, aggregate: aggregate.clone(), size, left, was_short: false };
    stream::try_unfold(pages, AggregatePages::next).boxed()
}

/// The pages of the log.
pub(super) fn log_pages<'a, S: EventStore + ?Sized>(
    store: &'a S,
    tx: &'a mut S::Tx,
    after: GlobalPosition,
    size: PageSize,
    filter: &EventFilter,
) -> BoxStream<'a, Result<EventPage>> {
    let pages = LogPages { store, tx, filter: filter.clone(), size, after: Some(after) };
    stream::try_unfold(pages, LogPages::next).boxed()
}

/// The events of pages, one by one.
pub(super) fn events<'a>(
    pages: impl TryStream<Ok = Vec<PersistedEvent>, Error = Error> + Send + 'a,
) -> BoxStream<'a, Result<PersistedEvent>> {
    pages.map_ok(|events| stream::iter(events.into_iter().map(Ok))).try_flatten().boxed()
}

struct AggregatePages<'a, S: EventStore + ?Sized> {
    store: &'a S,
    tx: &'a mut S::Tx,
    aggregate: AggregateRef,
    size: PageSize,
    /// The part of the range that was not read; `None` at the end.
    left: Option<VersionRange>,
    /// Had the last read fewer events than versions?
    was_short: bool,
}

impl<S: EventStore + ?Sized> AggregatePages<'_, S> {
    async fn next(mut self) -> Result<Option<(Stream, Self)>> {
        while let Some(left) = self.left {
            // Versions have no gaps, so fewer events than versions mean that the end was reached. But somebody may have
            // removed rows, and the rest must not be lost without a word. So the last statement asks for all of it.
            let asked = if self.was_short { left } else { beginning(left, self.size) };
            let is_all = end(asked) == end(left);
            let page = self.store.read_aggregate_stream(self.tx, &self.aggregate, asked).await?;
            let Some(last) = page.last_version else {
                self.left = (!is_all).then_some(left);
                self.was_short = true;
                continue;
            };
            if !asked.contains(last.get()) {
                return Err(broken("read_aggregate_stream returned a last version that is not in the range"));
            }
            self.left = (!is_all).then_some(VersionRange { from: Some(last.next().get()), to: left.to });
            self.was_short = last.get() != end(asked);
            return Ok(Some((page, self)));
        }
        Ok(None)
    }
}

/// As many versions of a range as a page has.
fn beginning(range: VersionRange, size: PageSize) -> VersionRange {
    let first = range.from.unwrap_or(1).max(1);
    let last = first.saturating_add(i64::from(size.get()) - 1);
    VersionRange { from: range.from, to: Some(last.min(end(range))) }
}

fn end(range: VersionRange) -> i64 {
    range.to.unwrap_or(i64::MAX)
}

struct LogPages<'a, S: EventStore + ?Sized> {
    store: &'a S,
    tx: &'a mut S::Tx,
    filter: EventFilter,
    size: PageSize,
    /// Where the next page begins; `None` at the end.
    after: Option<GlobalPosition>,
}

impl<S: EventStore + ?Sized> LogPages<'_, S> {
    async fn next(mut self) -> Result<Option<(EventPage, Self)>> {
        let Some(after) = self.after else { return Ok(None) };
        let page = self.store.read_events(self.tx, after, self.size.get(), &self.filter).await?;
        if page.scanned == 0 {
            return Ok(None);
        }
        if page.next <= after {
            return Err(broken("read_events looked at events, and returned a position that is not after the last one"));
        }
        self.after = (page.scanned >= self.size.get()).then_some(page.next);
        Ok(Some((page, self)))
    }
}

/// Without this error, the stream would give out the same events for ever.
fn broken(problem: &'static str) -> Error {
    Error::Storage(StorageFault::Contract { problem })
}
