//! A new epoch, from the commands of `docs/erasure.md` alone: old backups of the key table are of no use afterwards.

use crate::command::World;
use crate::page::blocks;
use eventseal::Error;
use eventseal::error::KmsFault;
use std::path::PathBuf;

on_both! {
    a_new_epoch_makes_old_backups_useless,
}

/// Three customers. The second is shredded before the epoch begins, the third while it is under way.
async fn a_new_epoch_makes_old_backups_useless(world: World) {
    let mut world = world.with_keys(0..3).await;
    world.section("Keep a copy of the log");
    world.back_up().await;
    let backup = World::of_the_same_kind(&world).await;
    let old = backup.keyring("old", &std::fs::read_to_string(world.ring()).unwrap());
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 1", "--yes"]).ended(0);

    world.section("Begin it");
    world.append(3..4).await.unwrap();
    world.run(&["shred", "Customer", "cust_2", "--reason", "request 2", "--yes"]).ended(0);
    let both = backup.keyring("both", &std::fs::read_to_string(world.ring()).unwrap());
    world.section("End the old one");

    let restored = restored(&world, backup).await;
    for position in 1..=3 {
        for ring in [&old, &both] {
            let event = restored.event(position, ring, None).await.unwrap();
            assert!(!event.is_redacted(), "as long as the old entry is left, the backup opens: {event:?}");
        }
        let error = restored.event(position, &world.ring(), None).await.unwrap_err();
        assert!(matches!(error, Error::Kms(KmsFault::Refused { .. })), "position {position}: {error:?}");
    }
    let ring = world.ring();
    restored.run(&["doctor", "--keyring", ring.to_str().unwrap()]).ended(5);
    // Nor do the rows of the living key table help with it.
    rows_of_the_living(&world, &restored).await;
    for position in 1..=3 {
        let error = restored.event(position, &world.ring(), None).await.unwrap_err();
        assert!(matches!(error, Error::Kms(KmsFault::Refused { .. })), "position {position}: {error:?}");
    }

    assert_eq!(world.read().await, (2, 2), "the living store reads on");
    assert_eq!(world.json(&["status"])["unfinished"], serde_json::json!([]), "nothing tells to move the old key");
    // The copy of the shred log goes on.
    world.section("Keep a copy of the log");
    world.page(blocks("See that it is right")[0]).ended(0);
    // A move to yet another master key leaves the old one where it is.
    let ring = std::fs::read_to_string(world.ring()).unwrap();
    let next = world.keyring("next", &format!("next:{}\n{ring}main:{}\n", crate::OTHER_SECRET, crate::SECRET));
    let moved = world.json(&["move-master-key", "--keyring", next.to_str().unwrap()]);
    assert_eq!((moved["moved"].as_array().unwrap().len(), moved["dead"].as_array().unwrap().len()), (1, 1));
    rows_of_the_living(&world, &restored).await;
    let alone = world.keyring("alone", &format!("next:{}\n", crate::OTHER_SECRET));
    let error = restored.event(1, &alone, None).await.unwrap_err();
    assert!(matches!(error, Error::Kms(KmsFault::Refused { .. })), "{error:?}");
}

/// The other database, with the backup of this one in it.
async fn restored(world: &World, mut other: World) -> World {
    for name in ["shop.dump", "shop.backup.db"] {
        let from = world.folder.path().join(name);
        if from.exists() {
            std::fs::copy(from, other.folder.path().join(name)).unwrap();
        }
    }
    other.restore().await;
    other
}

/// Puts what the living key table has of the key-encryption keys of the backup into the backup.
async fn rows_of_the_living(world: &World, backup: &World) {
    let sql = if world.is_postgres() {
        "SELECT format('UPDATE key_encryption_keys SET provider = %L, master_key_id = %L, wrapped_kek = %L
            WHERE kek_id = %L', provider, master_key_id, wrapped_kek, kek_id) FROM key_encryption_keys"
    } else {
        "SELECT format('UPDATE key_encryption_keys SET provider = %Q, master_key_id = %Q, wrapped_kek = x''%s''
            WHERE kek_id = %Q', provider, master_key_id, hex(wrapped_kek), kek_id) FROM key_encryption_keys"
    };
    let updates = world.column(sql).await;
    assert_eq!(updates.len(), 2, "the old key-encryption key, and the new one");
    for update in updates {
        backup.execute(update).await;
    }
}

impl World {
    async fn of_the_same_kind(other: &Self) -> Self {
        if other.is_postgres() { Self::postgres().await } else { Self::sqlite().await }
    }

    pub(crate) fn ring(&self) -> PathBuf {
        self.folder.path().join("ring")
    }
}
