//! A store that fails, hangs or writes something else when it is told to.

use crate::faults::{StoreFaults, TableFaults};
use async_trait::async_trait;
use eventseal::store::{EventTable, PayloadReplacement, PositionRange, StoredCount, StoredQuery, TableWork};
use eventseal::{Error, EventStore, GlobalPosition, PersistedEvent, Result};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The trouble that happens at a call of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    /// It fails before it is done.
    Fails,
    /// It fails when it is done.
    FailsDone,
    /// It is never answered, before it is done.
    Hangs,
    /// It is never answered, when it is done.
    HangsDone,
    /// Another transaction is in the way.
    Collides,
}

type Change = Box<dyn Fn(&mut Vec<u8>) + Send + Sync>;
type Rows = Box<dyn Fn(&mut Vec<PersistedEvent>) + Send + Sync>;
type Hook = Box<dyn Fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

#[derive(Default)]
pub struct State {
    pub calls: AtomicUsize,
    pub hanging: AtomicBool,
    pub trouble: Mutex<Option<(usize, Trouble)>>,
    /// Changes a payload before it is written.
    pub writes: Mutex<Option<Change>>,
    /// Changes events before they are inserted.
    pub inserts: Mutex<Option<Rows>>,
    /// Is done before a payload is replaced or events are inserted.
    pub before_write: tokio::sync::Mutex<Option<Hook>>,
}

#[derive(Clone, Default)]
pub struct Meddler<S> {
    pub inner: S,
    pub state: Arc<State>,
}

impl<S> Meddler<S> {
    pub fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    pub fn trouble(&self, at: usize, trouble: Trouble) {
        self.state.calls.store(0, Ordering::SeqCst);
        *self.state.trouble.lock().unwrap() = Some((at, trouble));
    }

    pub fn peace(&self) {
        self.state.calls.store(0, Ordering::SeqCst);
        *self.state.trouble.lock().unwrap() = None;
        *self.state.writes.lock().unwrap() = None;
        *self.state.inserts.lock().unwrap() = None;
    }

    pub fn writes(&self, change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) {
        *self.state.writes.lock().unwrap() = Some(Box::new(change));
    }

    pub fn inserts(&self, change: impl Fn(&mut Vec<PersistedEvent>) + Send + Sync + 'static) {
        *self.state.inserts.lock().unwrap() = Some(Box::new(change));
    }

    fn meet(&self) -> Option<Trouble> {
        let call = self.state.calls.fetch_add(1, Ordering::SeqCst);
        self.state.trouble.lock().unwrap().filter(|(at, _)| *at == call).map(|(_, trouble)| trouble)
    }

    async fn call<T>(&self, trouble: Option<Trouble>, does: impl Future<Output = Result<T>>) -> Result<T> {
        let broken = || Error::Database { operation: "meddling", source: "it broke".into() };
        match trouble {
            Some(Trouble::Fails) => return Err(broken()),
            Some(Trouble::Collides) => return Err(Error::Collision { source: None }),
            Some(Trouble::Hangs) => self.hang().await,
            _ => {}
        }
        let done = does.await;
        match trouble {
            Some(Trouble::FailsDone) => Err(broken()),
            Some(Trouble::HangsDone) => {
                self.hang().await;
                done
            }
            _ => done,
        }
    }

    async fn hang(&self) {
        self.state.hanging.store(true, Ordering::SeqCst);
        std::future::pending::<()>().await;
    }

    /// Is a call never going to be answered?
    pub fn hangs(&self) -> bool {
        self.state.hanging.load(Ordering::SeqCst)
    }

    async fn before_write(&self) {
        let hook = self.state.before_write.lock().await.take();
        if let Some(hook) = hook {
            hook().await;
        }
    }
}

impl<S: EventStore> StoreFaults for Meddler<S> {
    type Inner = S;

    fn inner(&self) -> &S {
        &self.inner
    }
}

#[async_trait]
impl<S: EventTable> TableFaults for Meddler<S> {
    type Inner = S;

    fn inner(&self) -> &S {
        &self.inner
    }

    async fn in_transaction(&self, connection: &mut S::Tx, work: &mut dyn TableWork<S::Tx>) -> Result<()> {
        self.call(self.meet(), self.inner.in_transaction(connection, work)).await
    }

    async fn last_position(&self, tx: &mut S::Tx) -> Result<GlobalPosition> {
        self.call(self.meet(), self.inner.last_position(tx)).await
    }

    async fn count_events(&self, tx: &mut S::Tx, range: PositionRange) -> Result<Vec<StoredCount>> {
        self.call(self.meet(), self.inner.count_events(tx, range)).await
    }

    async fn stored_events(&self, tx: &mut S::Tx, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        self.call(self.meet(), self.inner.stored_events(tx, query)).await
    }

    async fn stored_events_at(&self, tx: &mut S::Tx, positions: &[GlobalPosition]) -> Result<Vec<PersistedEvent>> {
        self.call(self.meet(), self.inner.stored_events_at(tx, positions)).await
    }

    async fn replace_payloads(
        &self,
        tx: &mut S::Tx,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        self.before_write().await;
        let mut replacements = replacements.to_vec();
        if let Some(writes) = &*self.state.writes.lock().unwrap() {
            replacements.iter_mut().for_each(|replacement| writes(&mut replacement.new));
        }
        self.call(self.meet(), self.inner.replace_payloads(tx, &replacements)).await
    }

    async fn insert_events(&self, tx: &mut S::Tx, events: &[PersistedEvent]) -> Result<()> {
        self.before_write().await;
        let mut events = events.to_vec();
        if let Some(inserts) = &*self.state.inserts.lock().unwrap() {
            inserts(&mut events);
        }
        self.call(self.meet(), self.inner.insert_events(tx, &events)).await
    }

    async fn settled_position(&self, connection: &mut S::Tx) -> Result<GlobalPosition> {
        self.call(self.meet(), self.inner.settled_position(connection)).await
    }
}
