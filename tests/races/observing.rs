//! The world as the tables and a reader show it.

use super::running::Lane;
use super::{Scope, World};
use eventseal::keys::{KeyId, ScopeState};
use eventseal::{AggregateVersion, EventStoreExt, aggregate};
use sqlx::postgres::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// The scopes of these names with their keys. There is no key without a scope. Each row is looked for through an index,
/// however small the tables were when the statement was planned.
const KEYS: &str = "
    SELECT w.number, s.state, s.generation, s.active_key_id, k.key_id, k.version, k.shredded_at IS NULL,
        k.wrapped_key IS NOT NULL, e.holds
    FROM UNNEST($1::text[]) WITH ORDINALITY AS w (id, number)
    CROSS JOIN LATERAL (SELECT * FROM key_scopes WHERE scope_kind = 'Customer' AND scope_id = w.id OFFSET 0) AS s
    LEFT JOIN LATERAL (SELECT * FROM data_keys WHERE scope_kind = 'Customer' AND scope_id = w.id OFFSET 0) AS k ON true
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE action = 'hold') - count(*) FILTER (WHERE action = 'release') AS holds
        FROM shred_entries WHERE scope_kind = 'Customer' AND scope_id = w.id
    ) AS e
    ORDER BY w.number, k.version";

type KeyRow = (i64, String, i64, Option<Uuid>, Option<Uuid>, Option<i64>, bool, bool, i64);

/// The heads of the streams of these names, and their events.
const EVENTS: &str = "
    SELECT w.number, h.{of}_version, e.{of}_version, e.event_type, e.payload
    FROM UNNEST($1::text[]) WITH ORDINALITY AS w (id, number)
    LEFT JOIN LATERAL (
        SELECT * FROM {heads} WHERE {of}_type = 'Order' AND {of}_id = w.id OFFSET 0
    ) AS h ON true
    LEFT JOIN LATERAL (
        SELECT * FROM events WHERE {of}_type = 'Order' AND {of}_id = w.id ORDER BY {of}_version OFFSET 0
    ) AS e ON true
    ORDER BY w.number, e.{of}_version";

type EventRow = (i64, Option<i64>, Option<i64>, Option<String>, Option<Vec<u8>>);

impl Lane {
    pub(super) async fn observe(&self, connection: &mut PgConnection) -> World {
        let mut world = World::default();
        let keys = self.observe_keys(connection, &mut world).await;
        self.observe_streams(connection, &mut world, &keys).await;
        world
    }

    /// The key rows. Returns the scope and the number of each key.
    async fn observe_keys(&self, connection: &mut PgConnection, world: &mut World) -> HashMap<KeyId, (usize, usize)> {
        let rows: Vec<KeyRow> = sqlx::query_as(KEYS).bind(&self.names[..]).fetch_all(connection).await.unwrap();
        let (mut keys, mut active_keys) = (HashMap::new(), [None; 2]);
        for (number, state, generation, active_key, key, version, live, wrapped, holds) in rows {
            let index = number as usize - 1;
            active_keys[index] = active_key;
            let scope = world.scopes[index].get_or_insert_with(|| Scope {
                state: ScopeState::parse(&state).unwrap(),
                generation: generation.try_into().unwrap(),
                keys: Vec::new(),
                active: None,
                holds: holds.try_into().unwrap(),
            });
            assert!(holds == 0 || scope.state != ScopeState::Shredded, "I12: a held scope was shredded");
            let Some((key, version)) = key.zip(version) else { continue };
            let at = scope.keys.len();
            assert_eq!(version, at as i64 + 1, "key versions have gaps");
            assert_eq!(wrapped, live, "I5: a wrapped key is left under a tombstone");
            assert!(scope.state != ScopeState::Shredded || !live, "I5: a key of a shredded scope is live");
            scope.keys.push(live);
            if active_key == Some(key) {
                scope.active = Some(at);
            }
            keys.insert(KeyId(key), (index, at));
        }
        for (scope, active_key) in world.scopes.iter().zip(active_keys) {
            let active = scope.as_ref().and_then(|scope| scope.active);
            assert_eq!(active.is_some(), active_key.is_some(), "the active key is not one of the scope's own");
        }
        keys
    }

    /// The stored events of the streams, compared with what a reader sees.
    async fn observe_streams(
        &self,
        connection: &mut PgConnection,
        world: &mut World,
        keys: &HashMap<KeyId, (usize, usize)>,
    ) {
        let rows = sqlx::query_as(self.writer.sql(EVENTS)).bind(&self.names[..]);
        let rows: Vec<EventRow> = rows.fetch_all(&mut *connection).await.unwrap();
        let mut heads = [None; 2];
        for (number, head, version, event_type, payload) in rows {
            let index = number as usize - 1;
            heads[index] = head;
            let (Some(version), Some(event_type), Some(payload)) = (version, event_type, payload) else { continue };
            let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            let key = payload["$seal"].as_str().map(|seal| keys.get(&key_of(seal)).copied());
            assert_ne!(key, Some(None), "I6: an event was committed without its key");
            assert!(key.is_some() != (event_type == "Noted"), "I2: an event was stored in the clear");
            world.streams[index].push(key.flatten());
            assert_eq!(version, world.streams[index].len() as i64, "I8: versions have gaps");
        }
        for (head, events) in heads.iter().zip(&world.streams) {
            let last = (!events.is_empty()).then_some(events.len() as i64);
            assert_eq!(*head, last, "the head is not where the events are");
        }
        // A reader, in statements that begin after all of it. A disabled scope is an error for a reader.
        if world.scopes.iter().flatten().any(|scope| scope.state == ScopeState::Disabled) {
            return;
        }
        for ((name, head), events) in self.names.iter().zip(heads).zip(&world.streams) {
            let read = self.stores[0].read_stream(&mut *connection, &aggregate("Order", name.as_str())).await.unwrap();
            assert_eq!(read.last_version.map(AggregateVersion::get), head, "a reader is shown another head");
            assert_eq!(read.events.len(), events.len(), "a reader does not see every event");
            for (event, key) in read.events.iter().zip(events) {
                let live = key.is_none_or(|(scope, key)| world.scopes[scope].as_ref().unwrap().keys[key]);
                assert_eq!(event.is_redacted(), !live, "I5: what a reader sees does not follow the key rows");
                assert!(!live || key.is_none() || String::from_utf8_lossy(&event.payload).contains("Ada"));
            }
        }
    }
}

/// Where a header's data keys begin: see docs/format.md.
const HEADER_KEYS: usize = 38;

/// The id of a header's first data key.
fn key_of(seal: &str) -> KeyId {
    use base64::Engine;
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(seal).unwrap();
    KeyId(Uuid::from_slice(&header[HEADER_KEYS..HEADER_KEYS + 16]).unwrap())
}
