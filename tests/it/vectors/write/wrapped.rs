//! Wrapped keys.

use super::making::{CUSTOMER, INTEGRITY, ORDER, id_of, salt, secret};
use crate::vectors::case::{Binding, WrappedKey, bytes_of, hex_of, parse};
use eventseal::internals::format::wrap;

/// The keys of the first case: its data key under a key-encryption key, that one under a keyring's.
pub(super) fn opening() -> Vec<WrappedKey> {
    let (kek_id, kek) = (id_of("kek"), secret("kek"));
    let bind = |items: &[&[u8]], wrapping: &[u8; 32], key: [u8; 32], salt_of: &str| {
        let wrapped = wrap(wrapping, items, &salt(salt_of), &key).unwrap();
        (hex_of(&wrapped), Some(hex_of(&key)))
    };
    let master = secret("master key");
    let kek_uuid = parse(&kek_id);
    let kek_items: [&[u8]; 4] = [b"eventseal/v1/kek", b"shop-test", kek_uuid.as_bytes(), b"2026-11"];
    let (wrapped, opened) = bind(&kek_items, &master, kek, "wrapped kek");
    let of_keyring = WrappedKey {
        name: "key-encryption-key-under-a-keyring".into(),
        wrapping_key: hex_of(&master),
        namespace: "shop-test".into(),
        kek_id: kek_id.clone(),
        bound_to: Binding::KeyEncryptionKey { master_key_id: "2026-11".into() },
        wrapped,
        key: opened,
    };
    let of_kek = |name: &str, owner: &str, kind: &str, id: &str, version: u32| {
        let key_id = id_of(owner);
        let key_uuid = parse(&key_id);
        let number = version.to_be_bytes();
        let items: [&[u8]; 7] = [
            b"eventseal/v1/dek",
            b"shop-test",
            key_uuid.as_bytes(),
            kind.as_bytes(),
            id.as_bytes(),
            &number,
            kek_uuid.as_bytes(),
        ];
        let (wrapped, key) = bind(&items, &kek, secret(owner), name);
        WrappedKey {
            name: name.into(),
            wrapping_key: hex_of(&kek),
            namespace: "shop-test".into(),
            kek_id: kek_id.clone(),
            bound_to: Binding::DataKey { key_id, scope_kind: kind.into(), scope_id: id.into(), version },
            wrapped,
            key,
        }
    };
    vec![
        of_keyring,
        of_kek("data-key", CUSTOMER, "Customer", "cust_42", 1),
        of_kek("integrity-key", INTEGRITY, "$eventseal", "integrity", 1),
        of_kek("data-key-of-a-later-version", "guest 2", "Guest", "名前/2", 65_536),
    ]
}

pub(super) fn refused() -> Vec<WrappedKey> {
    let [kek, data, ..] = &opening()[..] else { unreachable!() };
    let altered = |from: &WrappedKey, name: &str, change: &dyn Fn(&mut WrappedKey)| {
        let mut wrapped = WrappedKey { name: name.into(), key: None, ..from.clone() };
        change(&mut wrapped);
        wrapped
    };
    let bytes = |wrapped: &mut WrappedKey, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes_of(&wrapped.wrapped);
        change(&mut bytes);
        wrapped.wrapped = hex_of(&bytes);
    };
    let bind = |id: &str, kind: &str, scope: &str, version| Binding::DataKey {
        key_id: id_of(id),
        scope_kind: kind.into(),
        scope_id: scope.into(),
        version,
    };
    vec![
        altered(kek, "kek-of-another-namespace", &|wrapped| wrapped.namespace = "shop-staging".into()),
        altered(kek, "kek-of-another-id", &|wrapped| wrapped.kek_id = id_of("another kek")),
        altered(kek, "kek-of-another-master-key-id", &|wrapped| {
            wrapped.bound_to = Binding::KeyEncryptionKey { master_key_id: "2026-12".into() };
        }),
        altered(kek, "kek-of-another-master-key", &|wrapped| {
            wrapped.wrapping_key = hex_of(&secret("another master key"));
        }),
        altered(data, "data-key-of-another-namespace", &|wrapped| wrapped.namespace = "shop-staging".into()),
        altered(data, "data-key-of-another-kek-id", &|wrapped| wrapped.kek_id = id_of("another kek")),
        altered(data, "data-key-of-another-id", &|wrapped| wrapped.bound_to = bind(ORDER, "Customer", "cust_42", 1)),
        altered(data, "data-key-of-another-kind", &|wrapped| {
            wrapped.bound_to = bind(CUSTOMER, "Supplier", "cust_42", 1);
        }),
        altered(data, "data-key-of-another-scope", &|wrapped| {
            wrapped.bound_to = bind(CUSTOMER, "Customer", "cust_43", 1);
        }),
        altered(data, "data-key-of-another-version", &|wrapped| {
            wrapped.bound_to = bind(CUSTOMER, "Customer", "cust_42", 2);
        }),
        altered(data, "data-key-with-another-version-byte", &|wrapped| bytes(wrapped, &|bytes| bytes[0] = 2)),
        altered(data, "data-key-with-another-salt", &|wrapped| bytes(wrapped, &|bytes| bytes[1] ^= 1)),
        altered(data, "data-key-altered", &|wrapped| bytes(wrapped, &|bytes| bytes[17] ^= 1)),
        altered(data, "data-key-with-another-tag", &|wrapped| bytes(wrapped, &|bytes| bytes[64] ^= 1)),
        altered(data, "data-key-truncated", &|wrapped| bytes(wrapped, &|bytes| bytes.truncate(64))),
        altered(data, "data-key-and-one-byte", &|wrapped| bytes(wrapped, &|bytes| bytes.push(0))),
    ]
}
