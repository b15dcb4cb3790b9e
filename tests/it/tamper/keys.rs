//! Key rows that are lost, that come from another namespace, or whose scope is disabled.

use super::{
    Careless, GIFTS, Header, JOINED, KEYRING, PLACED, Part, STATES, schemas, seal, shred_all, tampered, with_header,
    world,
};
use async_trait::async_trait;
use eventseal::error::{EventFault, KeyFault, KmsFault};
use eventseal::keys::KeyStore;
use eventseal::keys::{DataKeyRecord, KeyId};
use eventseal::kms::Kms;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryTx};
use eventseal::{Error, JsonPointer, KeyScope, Keyring, Namespace, PersistedEvent, Result, Sealer};
use std::sync::Arc;
use support::faults::{Faulty, KeyFaults};
use support::sealing::SealerWorld;

/// A key table under the name of another namespace, or with rows that were lost.
struct Broken {
    inner: MemoryKeys,
    namespace: &'static str,
    lost: Vec<KeyId>,
}

impl Broken {
    fn renamed() -> Self {
        Self { inner: MemoryKeys::new(), namespace: "other", lost: Vec::new() }
    }

    fn without(lost: Vec<KeyId>) -> Self {
        Self { inner: MemoryKeys::new(), namespace: "test", lost }
    }
}

#[async_trait]
impl KeyFaults for Broken {
    type Inner = MemoryKeys;

    fn inner(&self) -> &MemoryKeys {
        &self.inner
    }

    async fn namespace(&self, _: &mut MemoryTx) -> Result<Option<Namespace>> {
        Namespace::new(self.namespace).map(Some)
    }

    async fn data_keys(&self, tx: &mut MemoryTx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let mut rows = self.inner.data_keys(tx, key_ids).await?;
        rows.retain(|row| !self.lost.contains(&row.key_id));
        Ok(rows)
    }
}

/// A row that is not there is an outage or a mistake, whatever else is in order. It is no erasure.
#[test]
fn i4_a_lost_key_row_is_missing_and_not_shredded() {
    for state in STATES {
        let world = SealerWorld::with_keyring(Keyring::parse(KEYRING).unwrap(), schemas());
        let events = [
            seal(&world, "Placed", PLACED),
            seal(&world, "Gifts", GIFTS),
            seal(&world, "Joined", JOINED),
            seal(&world, "Whole", PLACED),
        ];
        state.bring_about(&world);
        for stored in &events {
            let header = Header::of(stored);
            let before = world.open(stored).unwrap();
            let ids: Vec<KeyId> = header.keys.iter().map(|key| KeyId(uuid::Uuid::from_bytes(*key))).collect();
            let integrity = KeyId(uuid::Uuid::from_bytes(header.integrity_key));
            // One row, some rows, with and without the integrity key's.
            for lost in 1_usize..1 << (ids.len() + 1) {
                let lost: Vec<KeyId> = ids
                    .iter()
                    .chain([&integrity])
                    .enumerate()
                    .filter(|(bit, _)| lost >> bit & 1 == 1)
                    .map(|(_, id)| *id)
                    .collect();
                let sealer =
                    Sealer::new(Faulty(Broken::without(lost.clone())), Keyring::parse(KEYRING).unwrap(), schemas());
                let result = futures::executor::block_on(sealer.open(&mut world.db.begin(), vec![stored.clone()]));
                match result {
                    Err(Error::Event { fault: EventFault::MissingKey { key_id }, .. }) => {
                        assert!(lost.contains(&key_id));
                    }
                    // If nothing is redacted, the integrity key is not read.
                    Ok(opened) => {
                        assert!(
                            lost == [integrity] && !before.is_redacted() && opened == std::slice::from_ref(&before)
                        );
                    }
                    Err(error) => panic!("{state:?}, {}: {error:?}", stored.event_type),
                }
            }
        }
    }
}

/// A namespace separates three times: by its rows, by the KMS, and by what data keys are wrapped with.
#[test]
fn i3_i4_a_seal_does_not_open_in_another_namespace() {
    let here = SealerWorld::with_keyring(Keyring::parse(KEYRING).unwrap(), schemas());
    let stored = seal(&here, "Placed", PLACED);
    // Another database with the same master key does not have the keys.
    let there = SealerWorld::over(
        MemoryDb::new(Namespace::new("other").unwrap()),
        MemoryKeys::new(),
        Keyring::parse(KEYRING).unwrap(),
        schemas(),
    );
    assert!(matches!(there.open(&stored), Err(Error::Event { fault: EventFault::MissingKey { .. }, .. })));
    // Not even if the scopes of the same names were shredded there.
    shred_all(&there);
    assert!(matches!(there.open(&stored), Err(Error::Event { fault: EventFault::MissingKey { .. }, .. })));
    // With the same rows under another namespace, the KMS refuses.
    let renamed = |kms: Box<dyn Kms>| Sealer::new(Faulty(Broken::renamed()), Arc::<dyn Kms>::from(kms), schemas());
    let open = |sealer: &Sealer<MemoryTx>, world: &SealerWorld, stored: &PersistedEvent| {
        futures::executor::block_on(sealer.open(&mut world.db.begin(), vec![stored.clone()]))
    };
    let refused = open(&renamed(Box::new(Keyring::parse(KEYRING).unwrap())), &here, &stored);
    assert!(matches!(refused, Err(Error::Kms(KmsFault::Refused { .. }))), "{refused:?}");
    // And if the KMS does not care, the wrapped keys do.
    let careless =
        SealerWorld::over(MemoryDb::new(Namespace::new("test").unwrap()), MemoryKeys::new(), Careless, schemas());
    let stored = seal(&careless, "Placed", PLACED);
    let refused = open(&renamed(Box::new(Careless)), &careless, &stored);
    assert!(matches!(refused, Err(Error::Keys(KeyFault::WrongKey { .. }))), "{refused:?}");
    // Tombstones have no wrapped key, so there it is the integrity key that says no.
    shred_all(&careless);
    let refused = open(&renamed(Box::new(Careless)), &careless, &stored);
    assert!(matches!(refused, Err(Error::Keys(KeyFault::WrongKey { .. }))), "{refused:?}");
}

#[test]
fn i4_a_disabled_scope_is_an_error_whatever_is_altered() {
    let world = world();
    let stored = seal(&world, "Placed", PLACED);
    let single = seal(&world, "Joined", JOINED);
    world.disable("Customer", "cust-1");
    for event in [&stored, &single] {
        let result = world.open(event);
        assert!(
            matches!(&result, Err(Error::Disabled { scope }) if *scope == KeyScope::new("Customer", "cust-1")),
            "{result:?}"
        );
        let header = Header::of(event);
        for (at, part) in header.map().iter().enumerate() {
            for bit in 0..8 {
                let mut flipped = header.bytes();
                flipped[at] ^= 1 << bit;
                let result = world.open(&with_header(event, &flipped));
                let right = match (part, &result) {
                    // The state of a key never explains an altered header, as long as something can tell.
                    (
                        Part::Format | Part::Suite | Part::Document | Part::Mode,
                        Err(Error::Event { fault: EventFault::Unsupported { .. }, .. }),
                    ) => true,
                    (Part::Commitment(0), result) => matches!(result, Err(Error::Disabled { .. })),
                    (Part::IntegrityKey, Err(Error::Disabled { .. })) => header.keys.len() == 1,
                    (_, result) => tampered(result),
                };
                assert!(right, "{part:?}, bit {bit}: {result:?}");
            }
        }
    }
    // With the other scope shredded, a redaction waits for the disabled one all the same.
    world.shred("Courier", "7");
    assert!(matches!(world.open(&stored), Err(Error::Disabled { .. })));
    world.enable("Customer", "cust-1");
    assert_eq!(world.open(&single).unwrap().payload, JOINED.as_bytes());
    let half = world.open(&stored).unwrap();
    assert_eq!(half.redacted, [JsonPointer::parse("/courier/phone").unwrap()]);
    assert_eq!(String::from_utf8(half.payload).unwrap(), PLACED.replace("\"c4n4ry-555\"", "null"));
    // A disabled scope can still be shredded, and is redacted then.
    world.disable("Customer", "cust-1");
    world.shred("Customer", "cust-1");
    assert_eq!(world.open(&single).unwrap().redacted.len(), 1);
}
