//! Conveniences on top of the port that appends and reads events.

use super::paging;
use crate::consumer::{Consumer, run_consumers};
use crate::error::Result;
use crate::event::{
    AggregateRef, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NewEvent, PageSize,
    PersistedEvent, Stream, VersionRange,
};
use crate::store::EventStore;
use async_trait::async_trait;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;

/// Conveniences that most code calls on an [`EventStore`]. Implemented for every event store.
///
/// # Histories of any length
/// [`aggregate_events`](Self::aggregate_events) and [`log_events`](Self::log_events) give out events one by one, and
/// hold one page of them in memory. [`aggregate_pages`](Self::aggregate_pages) and [`log_pages`](Self::log_pages) give
/// out the pages. All four return a stream of the crate `futures-core`, which is the async form of an iterator. It is
/// not a [`Stream`], which holds the events of an aggregate in a `Vec`. To consume one, import
/// `futures::TryStreamExt` (`cargo add futures`) or `tokio_stream::StreamExt` (`cargo add tokio-stream`). Nothing else
/// is needed, and the stream need not be pinned.
///
/// - **Memory.** A [`PageSize`] counts stored events: 500 by default. So the peak is what these events need, in bytes,
///   whatever the length of the history. It is about twice that while a [`SealedStore`](crate::SealedStore) opens a
///   page, because the page is there as it is stored and as it is read. An upcaster may make several events of one.
/// - **Keys.** The keys of a page are looked up with one query, before the first of its events is given out.
/// - **Age.** A page is read when its first event is asked for, and not ahead, with statements of its own: if a shred
///   was committed before the page was asked for, the page is redacted. The events of a page that was read before the
///   shred are given out as they were read. A smaller page makes the time between shorter. In a transaction with a
///   snapshot (`REPEATABLE READ`, SQLite), all pages are as old as the snapshot. Where
///   [reads may lag](crate::keys::KeyManagerBuilder::reads_may_lag), pages may lag too.
/// - **Errors.** A page is read as a whole, or fails as a whole. The events of all pages before it are given out, then
///   the error, and then the stream ends: none of the events of the failed page is given out. To get past an event that
///   can't be read, use [`read_events_each`](crate::SealedStore::read_events_each).
/// - **The transaction.** The stream borrows it. Code that handles the events can't write in it meanwhile, and needs
///   another one, or reads pages with [`read_events`](EventStore::read_events). Between two pages no statement is under
///   way. If the stream is dropped, at any point, the transaction can be used on, and nothing was written. If only the
///   future of the next item is dropped, nothing is lost: ask again.
///
/// ```
/// # use eventseal::{EventStore, Keyring, Namespace, NewEvent, Schemas, SealedStore, event};
/// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
/// use eventseal::{EventStoreExt, ExpectedVersion, PageSize, aggregate};
/// use futures::TryStreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> eventseal::Result<()> {
/// # let schemas = Schemas::new([event("Deposited").version(1)]).expect("schemas");
/// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main")?, schemas);
/// # let db = MemoryDb::new(Namespace::new("bank")?);
/// # store.keys().prepare(&mut db.begin()).await?;
/// # let mut tx = db.begin();
/// # let events: Vec<NewEvent> = (1..=100).map(|_| NewEvent::raw("Deposited", 1, "5")).collect();
/// # store.append(&mut tx, &aggregate("Account", "7"), ExpectedVersion::NoStream, &events).await?;
/// // The balance of an account with many events, in pages of 20.
/// let account = aggregate("Account", "7");
/// let mut balance = 0;
/// let mut events = store.aggregate_events(&mut tx, &account, (..).into(), PageSize::try_from(20)?);
/// while let Some(event) = events.try_next().await? {
///     balance += event.decode::<i64>()?;
/// }
/// assert_eq!(balance, 500);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait EventStoreExt: EventStore {
    /// Reads an aggregate's whole stream.
    ///
    /// # Errors
    /// Those of [`EventStore::read_aggregate_stream`].
    async fn read_stream(&self, tx: &mut Self::Tx, aggregate: &AggregateRef) -> Result<Stream> {
        self.read_aggregate_stream(tx, aggregate, (..).into()).await
    }

    /// The events of one aggregate in ascending order of version, one by one, with a page of them in memory: see
    /// [histories of any length](EventStoreExt#histories-of-any-length). Both bounds of `range` are inclusive. A range
    /// without events is an empty stream.
    ///
    /// To append at the version up to which the events were read, use [`aggregate_pages`](Self::aggregate_pages): an
    /// upcaster may have dropped the last events.
    ///
    /// # Errors
    /// As an item, the last one: those of [`aggregate_pages`](Self::aggregate_pages).
    fn aggregate_events<'a>(
        &'a self,
        tx: &'a mut Self::Tx,
        aggregate: &AggregateRef,
        range: VersionRange,
        page: PageSize,
    ) -> BoxStream<'a, Result<PersistedEvent>> {
        paging::events(self.aggregate_pages(tx, aggregate, range, page).map_ok(|page| page.events))
    }

    /// The pages of [`aggregate_events`](Self::aggregate_events). Each has looked at one stored event or more, and
    /// tells the [version](Stream::last_version) of the last, even if an upcaster dropped all of them.
    ///
    /// # Events that are appended meanwhile
    /// Each stored event is given out once, and no version is left out. Where each statement sees what was committed
    /// before it began (`READ COMMITTED`), an event that was appended meanwhile is given out too, if it was committed
    /// before the last statement began. The stream ends after a statement that asked for everything that is left.
    /// Versions have no gaps, so that statement finds only events that were appended since the one before it. If rows
    /// were removed from the table of events, it finds all events after the hole, and its page may be longer than
    /// `page`: begin the range after the hole.
    ///
    /// ```
    /// # use eventseal::{AggregateRef, EventStore, EventStoreExt, ExpectedVersion, NewEvent, PageSize, Result};
    /// use futures::TryStreamExt;
    ///
    /// # async fn close<S: EventStore>(store: &S, tx: &mut S::Tx, account: &AggregateRef) -> Result<()> {
    /// let mut expected = ExpectedVersion::NoStream;
    /// let mut pages = store.aggregate_pages(tx, account, (..).into(), PageSize::default());
    /// while let Some(page) = pages.try_next().await? {
    ///     expected = page.expected_version();
    ///     for event in page { /* apply it */ }
    /// }
    /// drop(pages); // gives the transaction back
    /// store.append(tx, account, expected, &[NewEvent::raw("Closed", 1, "{}")]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As an item, the last one: those of [`EventStore::read_aggregate_stream`], and
    /// [`StorageFault::Contract`](crate::error::StorageFault::Contract) if the store returns a version that it was not
    /// asked for.
    fn aggregate_pages<'a>(
        &'a self,
        tx: &'a mut Self::Tx,
        aggregate: &AggregateRef,
        range: VersionRange,
        page: PageSize,
    ) -> BoxStream<'a, Result<Stream>> {
        paging::aggregate_pages(self, tx, aggregate, range, page)
    }

    /// The events of the log that match `filter`, in ascending order of position, from the first after `after` on. They
    /// are given out one by one, with a page of them in memory: see
    /// [histories of any length](EventStoreExt#histories-of-any-length).
    ///
    /// It ends at the end of the log. A follower that saves how far it is uses [`log_pages`](Self::log_pages).
    ///
    /// # Errors
    /// As an item, the last one: those of [`log_pages`](Self::log_pages).
    fn log_events<'a>(
        &'a self,
        tx: &'a mut Self::Tx,
        after: GlobalPosition,
        page: PageSize,
        filter: &EventFilter,
    ) -> BoxStream<'a, Result<PersistedEvent>> {
        paging::events(self.log_pages(tx, after, page, filter).map_ok(|page| page.events))
    }

    /// The pages of [`log_events`](Self::log_events). Each has looked at one stored event or more, and its
    /// [`next`](EventPage::next) is the position from which to go on later, even if an upcaster dropped all of its
    /// events. If there is nothing after `after`, there is no page.
    ///
    /// It ends after a page that looked at fewer events than `page`. What is appended before that page was read is
    /// given out too.
    ///
    /// **Positions of concurrent transactions.** On PostgreSQL, a lower position may become visible after a higher one,
    /// and the page that it belongs to may have been given out before. What [`EventStore::read_events`] says about it
    /// holds here. A follower must not pass a position that is still in flight.
    ///
    /// ```
    /// # use eventseal::{EventFilter, EventStore, EventStoreExt, GlobalPosition, PageSize, Result};
    /// use futures::TryStreamExt;
    ///
    /// # async fn rebuild<S: EventStore>(store: &S, tx: &mut S::Tx) -> Result<()> {
    /// let mut position = GlobalPosition::START;
    /// let mut pages = store.log_pages(tx, position, PageSize::default(), &EventFilter::default());
    /// while let Some(page) = pages.try_next().await? {
    ///     for event in &page.events { /* write it to the read model, in another transaction */ }
    ///     position = page.next; // and this with it
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As an item, the last one: those of [`EventStore::read_events`], and
    /// [`StorageFault::Contract`](crate::error::StorageFault::Contract) if the store returns a position that is not
    /// after the one it was asked for.
    fn log_pages<'a>(
        &'a self,
        tx: &'a mut Self::Tx,
        after: GlobalPosition,
        page: PageSize,
        filter: &EventFilter,
    ) -> BoxStream<'a, Result<EventPage>> {
        paging::log_pages(self, tx, after, page, filter)
    }

    /// Appends events and hands them to inline consumers in the same transaction: the consumers' writes are committed
    /// or rolled back with the events.
    ///
    /// # Errors
    /// Those of [`EventStore::append`]; [`Error::Consumer`](crate::Error::Consumer) if a consumer fails. The events are
    /// written then, so the caller must roll back. The caller must roll back too if the future is dropped before it is
    /// done, because consumers may have handled some events and not others.
    async fn append_and_consume(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
        consumers: &[&dyn Consumer<Self::Tx>],
    ) -> Result<Appended> {
        let appended = self.append(tx, aggregate, expected, events).await?;
        run_consumers(tx, &appended.events, consumers).await?;
        Ok(appended)
    }
}

impl<S: EventStore + ?Sized> EventStoreExt for S {}
