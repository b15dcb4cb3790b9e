//! Real keys: those of moto.

use super::{ARN, KEY, again, all, append, assert_without_key, context, failure_of, holds, id, process, read};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Region;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use eventseal::keys::KekRecord;
use eventseal::keys::KeyStore;
use eventseal::kms::Kms;
use eventseal::kms::{AwsKms, KekContext, KmsFailure, SecretKey, WrappedKek};
use eventseal::sqlite::SqliteKeys;
use eventseal::{Namespace, conformance};
use std::io::Write;
use std::sync::{Arc, Mutex};
use support::Sqlite;
use support::moto::{Moto, config};
use support::rows::{self, Change};
use uuid::Uuid;

/// This module, as the names of its tests have it.
const THIS: &str = "aws_kms::real_keys";

#[tokio::test]
async fn the_contract_of_a_kms() {
    let moto = Moto::shared();
    conformance::kms(&AwsKms::new(moto.client(), moto.key().await)).await;
}

#[tokio::test]
async fn i3_a_key_opens_in_its_own_context_only() {
    let moto = Moto::shared();
    let (client, arn) = (moto.client(), moto.key().await);
    let kms = AwsKms::new(client.clone(), &arn);
    let here = context();
    let wrapped = kms.generate_kek(&here).await.unwrap();
    assert_eq!(wrapped.master_key_id, arn);
    kms.unwrap_kek(&wrapped, &here).await.unwrap();
    let elsewhere = KekContext { namespace: Namespace::new("other").unwrap(), ..here.clone() };
    for other in [elsewhere, context()] {
        for error in
            [kms.unwrap_kek(&wrapped, &other).await.unwrap_err(), kms.rewrap_kek(&wrapped, &other).await.unwrap_err()]
        {
            assert_eq!(failure_of(&error), KmsFailure::WrongContext);
            assert!(error.to_string().contains("restore it from a backup"), "{error}");
        }
    }
    // The KMS itself binds the context: decrypting needs the same context, even with the ciphertext and the permission.
    let ids = [("eventseal-namespace", "shop".to_owned()), ("eventseal-kek", here.kek_id.to_string())];
    for (what, ids, opens) in [("right", &ids[..], true), ("missing", &[], false), ("half", &ids[..1], false)] {
        let mut call = client.decrypt().ciphertext_blob(Blob::new(wrapped.ciphertext.clone()));
        for (name, value) in ids {
            call = call.encryption_context(*name, value);
        }
        assert_eq!(call.clone().send().await.is_ok(), opens, "{what}");
        assert!(call.encryption_context("more", "of it").send().await.is_err(), "{what} and more");
        // And a ciphertext that somebody made with another context is not taken for a key-encryption key.
        let mut made = client.generate_data_key_without_plaintext().key_id(&arn).key_spec(DataKeySpec::Aes256);
        for (name, value) in ids {
            made = made.encryption_context(*name, value);
        }
        for (made, opens) in [(made.clone(), opens), (made.encryption_context("more", "of it"), false)] {
            let ciphertext = made.send().await.unwrap().ciphertext_blob.unwrap().into_inner();
            let foreign = WrappedKek { ciphertext, ..wrapped.clone() };
            match kms.unwrap_kek(&foreign, &here).await {
                Ok(_) => assert!(opens, "{what}"),
                Err(error) => assert!(!opens && failure_of(&error) == KmsFailure::WrongContext, "{what}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn i3_another_master_key_or_an_altered_ciphertext_is_refused() {
    let moto = Moto::shared();
    let (arn, other) = (moto.key().await, moto.key().await);
    let kms = AwsKms::new(moto.client(), &arn);
    let here = context();
    let wrapped = kms.generate_kek(&here).await.unwrap();
    let altered = |position: usize| {
        let mut altered = wrapped.clone();
        altered.ciphertext[position] ^= 1;
        altered
    };
    let by = |master_key_id: &str| WrappedKek { master_key_id: master_key_id.to_owned(), ..wrapped.clone() };
    let length = wrapped.ciphertext.len();
    for (what, wrapped, expected) in [
        ("the last byte", altered(length - 1), KmsFailure::WrongContext),
        ("a byte within", altered(length / 2), KmsFailure::WrongContext),
        (
            "cut",
            WrappedKek { ciphertext: wrapped.ciphertext[..20].to_vec(), ..wrapped.clone() },
            KmsFailure::WrongContext,
        ),
        ("another key", by(&other), KmsFailure::WrongKey),
        ("a key that is not there", by(ARN), KmsFailure::WrongKey),
        ("an alias that is not there", by("alias/none"), KmsFailure::WrongKey),
    ] {
        for error in
            [kms.unwrap_kek(&wrapped, &here).await.unwrap_err(), kms.rewrap_kek(&wrapped, &here).await.unwrap_err()]
        {
            assert_eq!(failure_of(&error), expected, "{what}: {error}");
        }
    }
    for key in ["alias/none", ARN] {
        let error = AwsKms::new(moto.client(), key).generate_kek(&here).await.unwrap_err();
        assert_eq!(failure_of(&error), KmsFailure::KeyNotFound);
        assert!(
            error.to_string().contains(key) && error.to_string().contains("check region, account and alias"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_alias_chooses_and_the_arn_stays() {
    let moto = Moto::shared();
    let (client, first, second) = (moto.client(), moto.key().await, moto.key().await);
    let alias = format!("alias/{}", Uuid::now_v7());
    client.create_alias().alias_name(&alias).target_key_id(&first).send().await.unwrap();
    let kms = AwsKms::new(client.clone(), &alias);
    let here = context();
    let old = kms.generate_kek(&here).await.unwrap();
    let old_wrapped = kms.wrap_kek(&SecretKey::new(KEY), &here).await.unwrap();
    assert_eq!(
        (&old.master_key_id, &old_wrapped.master_key_id),
        (&first, &first),
        "what is stored is the key, not the alias"
    );
    let opened = kms.unwrap_kek(&old, &here).await.unwrap();

    assert_eq!(kms.master_key_id().await.unwrap(), first);
    assert!(kms.makes_keys_under(&first) && !kms.makes_keys_under(&second));
    client.update_alias().alias_name(&alias).target_key_id(&second).send().await.unwrap();
    let refused = kms.unwrap_kek(&old, &here).await.unwrap_err();
    assert!(failure_of(&refused) == KmsFailure::WrongKey && refused.to_string().contains("also_opens"), "{refused}");
    assert_eq!(failure_of(&kms.rewrap_kek(&old, &here).await.unwrap_err()), KmsFailure::WrongKey);
    assert!(!kms.makes_keys_under(&first), "the alias means another key now");
    let kms = AwsKms::new(client.clone(), &alias).also_opens(&first);
    assert_eq!(
        kms.unwrap_kek(&old, &here).await.unwrap().expose(),
        opened.expose(),
        "the old key is named, so it still opens"
    );
    assert!(!kms.makes_keys_under(&first), "for opening only");
    assert_eq!(kms.generate_kek(&here).await.unwrap().master_key_id, second);
    let moved = kms.rewrap_kek(&old, &here).await.unwrap();
    assert_eq!(moved.master_key_id, second);
    assert_eq!(kms.master_key_id().await.unwrap(), second);
    assert_eq!(AwsKms::new(client.clone(), id(&second)).master_key_id().await.unwrap(), second, "by id");
    // The old key is not needed any more.
    client.schedule_key_deletion().key_id(id(&first)).send().await.unwrap();
    assert_eq!(kms.unwrap_kek(&moved, &here).await.unwrap().expose(), opened.expose());
    assert_eq!(failure_of(&kms.unwrap_kek(&old, &here).await.unwrap_err()), KmsFailure::KeyPendingDeletion);
}

/// The replicas of a key in other regions open what it wrapped, and take it over. The region that a row names may be
/// gone.
#[tokio::test]
async fn a_replica_opens_what_its_multi_region_key_wrapped() {
    let moto = Moto::shared();
    let client = |region: &'static str| Client::from_conf(config(moto.port).region(Region::new(region)).build());
    let (central, west) = (client("eu-central-1"), client("eu-west-1"));
    let made = central.create_key().multi_region(true).send().await.unwrap().key_metadata.unwrap();
    let (key, primary) = (made.key_id.clone(), made.arn.unwrap());
    let replicated = central.replicate_key().key_id(&key).replica_region("eu-west-1").send().await.unwrap();
    let replica = replicated.replica_key_metadata.unwrap().arn.unwrap();
    let alias = format!("alias/{}", Uuid::now_v7());
    west.create_alias().alias_name(&alias).target_key_id(&key).send().await.unwrap();
    let here = context();
    let wrapped = AwsKms::new(central.clone(), &primary).generate_kek(&here).await.unwrap();
    assert_eq!(wrapped.master_key_id, primary);
    let opened = AwsKms::new(central.clone(), &primary).unwrap_kek(&wrapped, &here).await.unwrap();
    // However the key is configured there: a service that fails over may know the ARN of its old region only.
    for name in [&replica, &primary, &key, &alias] {
        let there = AwsKms::new(west.clone(), name);
        assert_eq!(there.unwrap_kek(&wrapped, &here).await.unwrap().expose(), opened.expose(), "{name}");
        assert!(there.makes_keys_under(&wrapped.master_key_id), "{name}: it is the same key");
        assert_eq!(there.master_key_id().await.unwrap(), replica, "{name}");
        let moved = there.rewrap_kek(&wrapped, &here).await.unwrap();
        assert_eq!(moved.master_key_id, replica, "{name}");
    }
    // The same id in another account, and a key without replicas, are other keys.
    let foreign = WrappedKek { master_key_id: primary.replace(":123456789012:", ":210987654321:"), ..wrapped.clone() };
    assert_eq!(
        failure_of(&AwsKms::new(west.clone(), &replica).unwrap_kek(&foreign, &here).await.unwrap_err()),
        KmsFailure::WrongKey
    );
    let single = WrappedKek { master_key_id: ARN.replace("eu-central-1", "eu-west-1"), ..wrapped };
    assert_eq!(
        failure_of(&AwsKms::new(central, ARN).unwrap_kek(&single, &here).await.unwrap_err()),
        KmsFailure::WrongKey
    );
}

/// Somebody who can write to the key table may own a key under which this process's role may decrypt.
#[tokio::test]
async fn i3_a_planted_key_is_not_used_for_new_keys() {
    let moto = Moto::shared();
    let (client, ours, theirs) = (moto.client(), moto.key().await, moto.key().await);
    let db = Sqlite::new().await;
    process(AwsKms::new(client.clone(), &ours)).keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    let planted = context().kek_id;
    let ciphertext = client
        .encrypt()
        .key_id(&theirs)
        .plaintext(Blob::new(KEY))
        .encryption_context("eventseal-namespace", "conformance")
        .encryption_context("eventseal-kek", planted.to_string())
        .send()
        .await
        .unwrap();
    let keys = SqliteKeys::new();
    let mut connection = db.pool.acquire().await.unwrap();
    let active = keys.active_kek(&mut connection, "default").await.unwrap().unwrap();
    let wrapped =
        WrappedKek { master_key_id: theirs.clone(), ciphertext: ciphertext.ciphertext_blob.unwrap().into_inner() };
    let planted = KekRecord { kek_id: planted, wrapped, ..active.clone() };
    rows::change(&keys, &mut connection, Change::Replace { active: &active, by: &planted }).await.unwrap();
    drop(connection);
    let alias = format!("alias/{}", Uuid::now_v7());
    client.create_alias().alias_name(&alias).target_key_id(&ours).send().await.unwrap();
    for kms in [
        AwsKms::new(client.clone(), &ours),
        AwsKms::new(client.clone(), &alias),
        // Configured, but for opening.
        AwsKms::new(client.clone(), &ours).also_opens(&theirs),
        AwsKms::new(client.clone(), &alias).also_opens(&theirs),
    ] {
        let whole = format!("{kms:?}");
        let refused = append(&db, &process(kms), "1").await.unwrap_err();
        assert_eq!(failure_of(&refused), KmsFailure::WrongKey, "{whole}: {refused}");
    }
    // The one who is configured for it is another process.
    append(&db, &process(AwsKms::new(client.clone(), &theirs).also_opens(&ours)), "1").await.unwrap();
    // And what it made opens where that key is for opening, as during a move.
    let moving = process(AwsKms::new(client.clone(), &ours).also_opens(&theirs));
    assert_eq!(read(&db, &moving).await.unwrap(), [false]);
    append(&db, &moving, "1").await.unwrap();
    moving.keys().move_master_key(&mut db.pool.acquire().await.unwrap(), None, &mut |_| {}).await.unwrap();
    append(&db, &process(AwsKms::new(client.clone(), &ours)), "2").await.unwrap();
}

#[tokio::test]
async fn a_master_key_that_rotates_opens_what_it_wrapped_before() {
    let moto = Moto::shared();
    let (client, arn) = (moto.client(), moto.key().await);
    let kms = AwsKms::new(client.clone(), &arn);
    let here = context();
    let wrapped = kms.generate_kek(&here).await.unwrap();
    let opened = kms.unwrap_kek(&wrapped, &here).await.unwrap();
    client.rotate_key_on_demand().key_id(&arn).send().await.unwrap();
    assert_eq!(client.list_key_rotations().key_id(&arn).send().await.unwrap().rotations().len(), 1);
    let renewed = kms.rewrap_kek(&wrapped, &here).await.unwrap();
    assert_eq!(renewed.master_key_id, arn, "a rotated key keeps its ARN");
    for wrapped in [&wrapped, &renewed] {
        assert_eq!(kms.unwrap_kek(wrapped, &here).await.unwrap().expose(), opened.expose());
    }
}

#[tokio::test]
async fn i4_a_key_that_is_not_enabled_refuses_everything_and_comes_back() {
    let moto = Moto::shared();
    let (client, arn) = (moto.client(), moto.key().await);
    let kms = AwsKms::new(client.clone(), &arn);
    let here = context();
    let wrapped = kms.generate_kek(&here).await.unwrap();
    client.disable_key().key_id(id(&arn)).send().await.unwrap();
    for (what, answer) in all(&kms, &wrapped, &here).await {
        let error = answer.unwrap_err();
        assert_eq!(failure_of(&error), KmsFailure::KeyDisabled, "{what}");
        assert!(error.to_string().contains("enable the key again"), "{error}");
    }
    client.enable_key().key_id(id(&arn)).send().await.unwrap();
    kms.unwrap_kek(&wrapped, &here).await.unwrap();
    client.schedule_key_deletion().key_id(id(&arn)).send().await.unwrap();
    for (what, answer) in all(&kms, &wrapped, &here).await {
        let error = answer.unwrap_err();
        assert_eq!(failure_of(&error), KmsFailure::KeyPendingDeletion, "{what}");
        assert!(error.to_string().contains("cancel the deletion at once"), "{error}");
    }
    client.cancel_key_deletion().key_id(id(&arn)).send().await.unwrap();
    client.enable_key().key_id(id(&arn)).send().await.unwrap();
    for (what, answer) in all(&kms, &wrapped, &here).await {
        answer.expect(what);
    }
}

/// The SDK can be told to log bodies, by variables that hold for all of its clients in a process. Keys are not among
/// them.
#[tokio::test]
async fn i9_no_level_of_logging_shows_a_key() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    if std::env::var("LOG_SENSITIVE_BODIES").is_err() {
        let output = again(
            THIS,
            "i9_no_level_of_logging_shows_a_key",
            &[("LOG_SIGNABLE_BODY", "true"), ("LOG_SENSITIVE_BODIES", "true")],
        );
        return output.unwrap_or_else(|said| panic!("{said}"));
    }
    let moto = Moto::shared();
    let (client, arn) = (moto.client(), moto.key().await);
    let kms = AwsKms::new(client.clone(), &arn);
    let here = context();
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_writer(move || writer.clone()).with_max_level(tracing::Level::TRACE).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let wrapped = kms.wrap_kek(&SecretKey::new(KEY), &here).await.unwrap();
    assert_eq!(kms.unwrap_kek(&wrapped, &here).await.unwrap().expose(), &KEY);
    let logged = || String::from_utf8(std::mem::take(&mut *log.0.lock().unwrap())).unwrap();
    assert_without_key(&logged(), &KEY);
    let other = *b"not a key but as long as one ...";
    let sent = client.encrypt().key_id(&arn).plaintext(Blob::new(other)).send().await.unwrap();
    assert!(holds(&logged(), &other), "this test would see it");
    client.decrypt().ciphertext_blob(sent.ciphertext_blob.unwrap()).send().await.unwrap();
    assert!(holds(&logged(), &other), "this test would see it");
    drop(guard);
    assert!(!format!("{kms:?}").contains("test"), "credentials are in {kms:?}");
}
