//! The contract of an index of seals beside the rows of an event store.

use crate::conformance::{Database, must};
use crate::error::{Error, Result, TransactionFault};
use crate::event::{ExpectedVersion, GlobalPosition, NewEvent, PersistedEvent, aggregate};
use crate::keys::names::KeyId;
use crate::store::{
    EventStore, EventTable, IndexedSeal, PositionRange, SealIndex, SealIndexState, StoredQuery, TableWork,
};
use async_trait::async_trait;
use uuid::Uuid;

/// Checks the index of seals, if this kind of table can have one.
pub(super) async fn an_index_of_seals_leads_from_keys_to_events<D, S>(db: &D, store: &S)
where
    D: Database,
    S: EventStore<Tx = D::Tx> + EventTable<Tx = D::Tx>,
{
    let Some(index) = store.seal_index() else { return };
    let events = append(db, store).await;
    let at = |number: usize| events[number].global_position;
    let before = events[0].global_position.get() - 1;
    let since = PositionRange { after: must(before.try_into(), "a position"), up_to: None };
    is_made_once(db, index).await;

    let [one, other, third] = [KeyId(Uuid::now_v7()), KeyId(Uuid::now_v7()), KeyId(Uuid::now_v7())];
    let row = |number: usize, keys: &[KeyId]| IndexedSeal { position: at(number), keys: keys.to_vec() };
    let rows = [row(3, &[one]), row(0, &[one, other]), row(4, &[other])];
    let ctx = Ctx { db, store, index };
    assert!(ctx.work(Does::Add(&rows), true).await.is_err());
    assert!(
        ctx.positions(&[one, other], since, 100).await.is_empty(),
        "rows of a transaction that failed are forgotten"
    );
    ctx.is_refused_outside(&rows).await;
    must(ctx.work(Does::Add(&rows), false).await, "add");
    must(ctx.work(Does::Add(&rows[1..]), false).await, "adding rows that exist");

    for (keys, range, limit, expected, rule) in [
        (&[one][..], since, 100, vec![at(0), at(3)], "positions of a key are found in ascending order"),
        (&[other], since, 100, vec![at(0), at(4)], "every key of an event has a row"),
        (&[one, other], since, 100, vec![at(0), at(3), at(4)], "positions of several keys are found once each"),
        (&[one, other], since, 2, vec![at(0), at(3)], "the first positions are found, up to the limit"),
        (&[third], since, 100, vec![], "a key without rows has no positions"),
        (&[], since, 100, vec![], "no keys have no positions"),
        (
            &[one, other],
            PositionRange { after: at(0), up_to: Some(at(3)) },
            100,
            vec![at(3)],
            "positions of the range are found alone",
        ),
    ] {
        assert_eq!(ctx.positions(keys, range, limit).await, expected, "{rule}");
    }
    events_without_rows_are_read(&ctx, &events, since).await;
    the_mark_moves_forward(&ctx, &events).await;
    let state = ctx.state().await;
    must(ctx.work(Does::Empty, false).await, "empty");
    let emptied = ctx.state().await;
    assert!(emptied.id != state.id, "an index that was emptied has another id");
    assert_eq!((emptied.complete_up_to, emptied.last_event), (GlobalPosition::START, None), "an empty index is new");
    assert!(ctx.positions(&[one, other], since, 100).await.is_empty(), "an index that was emptied has no rows");
}

async fn append<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) -> Vec<PersistedEvent> {
    let mut transaction = must(db.begin().await, "begin");
    let events: Vec<NewEvent> = (0..5).map(|n| NewEvent::raw("Indexed", 1, format!("{{\"n\":{n}}}"))).collect();
    let stream = aggregate("Indexed", "1");
    let appended = store.append(db.tx(&mut transaction), &stream, ExpectedVersion::Any, &events).await;
    must(db.commit(transaction).await, "commit");
    must(appended, "append").events
}

async fn is_made_once<D: Database>(db: &D, index: &dyn SealIndex<Tx = D::Tx>) {
    let mut connection = must(db.connect().await, "connect");
    must(index.make(db.connection(&mut connection)).await, "make");
    let made = must(index.state(db.connection(&mut connection)).await, "state");
    assert!(made.is_some(), "an index that was made has a state");
    must(index.make(db.connection(&mut connection)).await, "making it again");
    let again = must(index.state(db.connection(&mut connection)).await, "state");
    assert_eq!(made, again, "making an index again changes nothing");
}

async fn events_without_rows_are_read<D: Database, S: EventTable<Tx = D::Tx>>(
    ctx: &Ctx<'_, D, S>,
    events: &[PersistedEvent],
    since: PositionRange,
) {
    let query = |range, limit, max_bytes| StoredQuery { range, limit, max_bytes, ..StoredQuery::default() };
    let up_to = PositionRange { after: since.after, up_to: Some(events[1].global_position) };
    for (query, expected, rule) in [
        (query(since, 100, u64::MAX), &events[1..3], "events without a row are read in ascending order"),
        (query(since, 1, u64::MAX), &events[1..2], "the first events without a row are read, up to the limit"),
        (query(since, 100, 1), &events[1..2], "the first event without a row is read whatever its size"),
        (query(up_to, 100, u64::MAX), &events[1..2], "events without a row are read in the range alone"),
    ] {
        let mut connection = must(ctx.db.connect().await, "connect");
        let found = must(ctx.index.events_without(ctx.db.connection(&mut connection), &query).await, "read");
        let ids = |events: &[PersistedEvent]| events.iter().map(|event| event.event_id).collect::<Vec<_>>();
        assert_eq!(ids(&found), ids(expected), "{rule}");
    }
}

async fn the_mark_moves_forward<D: Database, S: EventTable<Tx = D::Tx>>(
    ctx: &Ctx<'_, D, S>,
    events: &[PersistedEvent],
) {
    let new = ctx.state().await;
    let complete = async |id, event: &PersistedEvent| {
        let mut done = false;
        let does = Does::Complete(id, event.global_position, event.event_id, &mut done);
        must(ctx.work(does, false).await, "complete");
        done
    };
    assert!(!complete(Uuid::now_v7(), &events[2]).await, "the mark of another index is not moved");
    assert_eq!(ctx.state().await, new, "the mark of another index is not moved");
    assert!(complete(new.id, &events[2]).await, "the mark is moved forward");
    assert!(!complete(new.id, &events[1]).await, "the mark is not moved back");
    let marked = ctx.state().await;
    let expected = (new.id, events[2].global_position, Some(events[2].event_id));
    assert_eq!((marked.id, marked.complete_up_to, marked.last_event), expected, "the mark is where it was moved to");
    assert!(complete(new.id, &events[2]).await, "the mark may be set where it is");
}

struct Ctx<'c, D: Database, S> {
    db: &'c D,
    store: &'c S,
    index: &'c dyn SealIndex<Tx = D::Tx>,
}

enum Does<'w> {
    Add(&'w [IndexedSeal]),
    Complete(Uuid, GlobalPosition, Uuid, &'w mut bool),
    Empty,
}

impl<D: Database, S: EventTable<Tx = D::Tx>> Ctx<'_, D, S> {
    async fn work(&self, does: Does<'_>, fails: bool) -> Result<()> {
        let mut work = Work { index: self.index, does, fails };
        let mut connection = must(self.db.connect().await, "connect");
        self.store.in_transaction(self.db.connection(&mut connection), &mut work).await
    }

    async fn positions(&self, keys: &[KeyId], range: PositionRange, limit: u32) -> Vec<GlobalPosition> {
        let mut connection = must(self.db.connect().await, "connect");
        must(self.index.positions(self.db.connection(&mut connection), keys, range, limit).await, "positions")
    }

    async fn state(&self) -> SealIndexState {
        let mut connection = must(self.db.connect().await, "connect");
        let state = must(self.index.state(self.db.connection(&mut connection)).await, "state");
        match state {
            Some(state) => state,
            None => panic!("an index that was made has a state"),
        }
    }

    async fn is_refused_outside(&self, rows: &[IndexedSeal]) {
        let mut outside = must(self.db.connect().await, "connect");
        let refused = self.index.add(self.db.connection(&mut outside), rows).await;
        // The database in memory forgets this with the connection.
        assert!(
            matches!(refused, Ok(()) | Err(Error::Transaction(TransactionFault::NotInTransaction { .. }))),
            "rows are added in a transaction only: {refused:?}"
        );
        drop(outside);
        let range = PositionRange::default();
        let keys: Vec<KeyId> = rows.iter().flat_map(|row| row.keys.clone()).collect();
        assert!(self.positions(&keys, range, 100).await.is_empty(), "rows are added in a transaction only");
    }
}

struct Work<'w, Tx> {
    index: &'w dyn SealIndex<Tx = Tx>,
    does: Does<'w>,
    fails: bool,
}

#[async_trait]
impl<Tx: Send + 'static> TableWork<Tx> for Work<'_, Tx> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        match &mut self.does {
            Does::Add(rows) => self.index.add(tx, rows).await?,
            Does::Complete(id, up_to, last, done) => **done = self.index.complete(tx, *id, *up_to, *last).await?,
            Does::Empty => self.index.empty(tx).await?,
        }
        if self.fails { Err(Error::Collision { source: None }) } else { Ok(()) }
    }
}
