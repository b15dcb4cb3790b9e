//! Reads of a stream on PostgreSQL.

use super::Subject;
use crate::bench::{Bench, way};
use crate::database::Postgres;
use crate::fixture;
use crate::measured::{Measured, Report};
use eventseal::ExpectedVersion::NoStream;
use eventseal::{EventStore, EventStoreExt, aggregate};
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Instant;

pub(super) const SUBJECT: Subject = Subject {
    name: "read",
    title: "Read a stream on PostgreSQL",
    about: "Streams of 10 and of 1,000 events of 1 KiB with three protected strings of one customer, whose key was \
        used before. A strict read looks at the key's row. One with `reads_may_lag` need not. Beside it, the same \
        events in the clear are read by the same store without `SealedStore`. Times are for one read of the stream.",
    run,
};

type Store = Arc<dyn EventStore<Tx = PgConnection>>;

fn run(bench: &Bench) -> Report {
    let db = Postgres::new("read");
    let bare: Store = Arc::new(db.bare(db.tables("bare")));
    let sealed: Store = Arc::new(db.sealed(db.tables("wrapped"), fixture::schemas()));
    let lagging: Store = Arc::new(db.lagging(db.tables("wrapped"), fixture::schemas()));
    let mut rows = Vec::new();
    for count in [10, bench.pick(20, 1_000, 1_000)] {
        let stream = aggregate("Stream", count.to_string());
        for store in [&bare, &sealed] {
            db.block_on(async {
                let mut tx = db.pool.begin().await.unwrap();
                let events = fixture::events(&fixture::customer(1), count);
                store.append(&mut tx, &stream, NoStream, &events).await.unwrap();
                tx.commit().await.unwrap();
            });
        }
        db.execute("VACUUM ANALYZE");
        let times = bench.pick(1, 2_000, 2_000).div_ceil(count);
        let ways = [&bare, &sealed, &lagging].map(|store| {
            let (db, stream, mut connection) = (&db, &stream, db.connection());
            way(move || {
                db.block_on(async {
                    let start = Instant::now();
                    for _ in 0..times {
                        let read = store.read_stream(&mut connection, stream).await.unwrap();
                        assert_eq!(read.events.len(), count);
                    }
                    start.elapsed()
                })
            })
        });
        let what = if count == 10 { "10 events".to_owned() } else { "1,000 events".to_owned() };
        let [bare, strict, lagging] = bench.compare(&what, bench.pick(1, 60, 150), times, ways);
        let (of_strict, of_lagging) = if count == 10 { (0.62, Some(0.85)) } else { (0.6, None) };
        rows.push(Measured::speed(format!("{what}, strict"), &strict, "bare store", &bare).reach(of_strict));
        let lagging = Measured::speed(format!("{what}, reads may lag"), &lagging, "bare store", &bare);
        rows.push(lagging.reach_if(of_lagging));
    }
    Report::of(rows)
}
