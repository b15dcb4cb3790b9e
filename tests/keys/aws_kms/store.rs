//! A sealed store with AWS KMS.

use super::{Store, again, append, context, failure_of, id, process, read, schemas};
use eventseal::kms::Kms;
use eventseal::kms::{AwsKms, KmsFailure};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{KeyScope, Keyring, SealedStore};
use std::sync::Arc;
use support::Deadline;
use support::Sqlite;
use support::moto::Moto;
use uuid::Uuid;

/// Reads until the KMS answers again, and its failure is forgotten.
async fn recovered(db: &Sqlite, store: &Store) -> Vec<bool> {
    let deadline = Deadline::of("for the recovery from an outage");
    loop {
        deadline.look_again().await;
        match read(db, store).await {
            Ok(read) => return read,
            Err(error) => assert_ne!(failure_of(&error), KmsFailure::Other),
        }
    }
}

async fn shred(db: &Sqlite, store: &Store, customer: &str) {
    let mut tx = db.pool.begin().await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", customer), "request").await.unwrap();
    tx.commit().await.unwrap();
}

/// This module, as the names of its tests have it.
const THIS: &str = "aws_kms::store";

#[tokio::test]
async fn i4_an_outage_fails_what_needs_the_kms_and_nothing_else() {
    let moto = Moto::start();
    let arn = moto.key().await;
    let new = || process(AwsKms::new(moto.client(), &arn));
    let db = Sqlite::new().await;
    let warm = new();

    // Down from the start: nothing is made, and nothing is left behind.
    moto.stop();
    let unprepared = warm.keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap_err();
    assert_eq!(failure_of(&unprepared), KmsFailure::Unreachable);
    let keks = || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM key_encryption_keys").fetch_one(&db.pool);
    assert_eq!(keks().await.unwrap(), 0);
    moto.go_on();
    warm.keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    let (provider, master): (String, String) =
        sqlx::query_as("SELECT provider, master_key_id FROM key_encryption_keys").fetch_one(&db.pool).await.unwrap();
    assert_eq!((&*provider, &master), ("aws-kms", &arn));
    append(&db, &warm, "1").await.unwrap();
    append(&db, &warm, "2").await.unwrap();

    // With the key-encryption key cached, all goes on, new subjects too.
    moto.stop();
    append(&db, &warm, "3").await.unwrap();
    assert_eq!(read(&db, &warm).await.unwrap(), [false; 3]);
    // Without it, nothing does, and nothing looks erased.
    let cold = new();
    for error in [read(&db, &cold).await.unwrap_err(), append(&db, &cold, "1").await.unwrap_err()] {
        assert_eq!(failure_of(&error), KmsFailure::Unreachable);
        assert!(error.is_retryable() && !error.is_shredded() && !error.is_tampered());
    }
    // A shred is authenticated, so a process without the integrity key is told of the outage. One that has it cached
    // goes on. A reader that can't check its tag sees the outage, and no redaction.
    let mut tx = db.pool.begin().await.unwrap();
    let refused = cold.keys().shred(&mut tx, &KeyScope::new("Customer", "2"), "request").await.unwrap_err();
    assert_eq!(failure_of(&refused), KmsFailure::Unreachable);
    tx.rollback().await.unwrap();
    shred(&db, &warm, "2").await;
    assert_eq!(failure_of(&read(&db, &cold).await.unwrap_err()), KmsFailure::Unreachable);
    assert_eq!(read(&db, &warm).await.unwrap(), [false, true, false]);

    // It recovers without a restart.
    moto.go_on();
    assert_eq!(recovered(&db, &cold).await, [false, true, false]);
    append(&db, &cold, "1").await.unwrap();
    assert!(append(&db, &cold, "2").await.unwrap_err().is_shredded());

    // A refusal is no redaction either.
    moto.client().disable_key().key_id(id(&arn)).send().await.unwrap();
    let refused = new();
    assert_eq!(failure_of(&read(&db, &refused).await.unwrap_err()), KmsFailure::KeyDisabled);
    assert_eq!(read(&db, &warm).await.unwrap(), [false, true, false, false]);
    moto.client().enable_key().key_id(id(&arn)).send().await.unwrap();
    assert_eq!(recovered(&db, &refused).await, [false, true, false, false]);

    // Another provider does not try its luck.
    let keyring =
        SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Keyring::generate("main").unwrap(), schemas());
    assert_eq!(failure_of(&read(&db, &keyring).await.unwrap_err()), KmsFailure::WrongKey);
}

/// So its role needs no other permission, also where the key is named by an alias: `Decrypt` itself says what that
/// means.
#[tokio::test]
async fn a_process_of_a_prepared_database_only_decrypts() {
    let moto = Moto::shared();
    let db = Sqlite::new().await;
    let (arn, alias) = (moto.key().await, format!("alias/{}", Uuid::now_v7()));
    moto.client().create_alias().alias_name(&alias).target_key_id(&arn).send().await.unwrap();
    let operator = process(AwsKms::new(moto.client(), &arn));
    operator.keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    let service = process(AwsKms::new(moto.client(), &alias));
    service.keys().prepare(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    append(&db, &service, "1").await.unwrap();
    shred(&db, &service, "2").await;
    assert_eq!(read(&db, &service).await.unwrap(), [false]);
}

/// From a keyring to AWS, to another key of AWS's, and back.
#[tokio::test]
async fn i11_key_encryption_keys_move_between_master_keys() {
    let moto = Moto::shared();
    let (client, first, second) = (moto.client(), moto.key().await, moto.key().await);
    let alias = format!("alias/{}", Uuid::now_v7());
    client.create_alias().alias_name(&alias).target_key_id(&first).send().await.unwrap();
    let db = Sqlite::new().await;
    let mut connection = db.pool.acquire().await.unwrap();
    let ring = Arc::new(Keyring::generate("main").unwrap());
    let on_keyring = || SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Arc::clone(&ring), schemas());
    let on_aws = || process(AwsKms::new(client.clone(), &alias).also_opens(&first));
    let before = on_keyring();
    before.keys().prepare(&mut connection).await.unwrap();
    append(&db, &before, "1").await.unwrap();

    let moves = on_aws().keys().move_master_key(&mut connection, Some(&*ring), &mut |_| {}).await.unwrap();
    assert_eq!((moves.moved.len(), moves.already.len()), (1, 0));
    assert_eq!(failure_of(&read(&db, &on_keyring()).await.unwrap_err()), KmsFailure::WrongKey);
    assert_eq!(read(&db, &on_aws()).await.unwrap(), [false]);
    client.update_alias().alias_name(&alias).target_key_id(&second).send().await.unwrap();
    let moves = on_aws().keys().move_master_key(&mut connection, None, &mut |_| {}).await.unwrap();
    assert_eq!((moves.moved.len(), moves.already.len()), (1, 0), "the alias means another key now");
    let moves = on_aws().keys().move_master_key(&mut connection, None, &mut |_| {}).await.unwrap();
    assert_eq!((moves.moved.len(), moves.already.len()), (0, 1));
    client.schedule_key_deletion().key_id(id(&first)).send().await.unwrap();
    let aws = on_aws();
    append(&db, &aws, "1").await.unwrap();
    assert_eq!(read(&db, &aws).await.unwrap(), [false; 2]);
    on_keyring()
        .keys()
        .move_master_key(&mut connection, Some(&AwsKms::new(client.clone(), &alias)), &mut |_| {})
        .await
        .unwrap();
    assert_eq!(read(&db, &on_keyring()).await.unwrap(), [false; 2]);
}

/// With feature `aws-config`: everything from the environment, in a process of its own that has it.
#[tokio::test]
async fn the_environment_configures_a_client() {
    if let Ok(arn) = std::env::var("EVENTSEAL_TEST_KEY") {
        let kms = AwsKms::from_env(&arn).await;
        let here = context();
        let wrapped = kms.generate_kek(&here).await.unwrap();
        assert_eq!(wrapped.master_key_id, arn);
        kms.unwrap_kek(&wrapped, &here).await.unwrap();
        return;
    }
    let moto = Moto::shared();
    let (arn, endpoint) = (moto.key().await, format!("http://127.0.0.1:{}", moto.port));
    let environment = [
        ("EVENTSEAL_TEST_KEY", &*arn),
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let run = |environment: &[_]| again(THIS, "the_environment_configures_a_client", environment);
    run(&environment).unwrap_or_else(|said| panic!("{said}"));
    for (without, words) in [("AWS_REGION", "set AWS_REGION"), ("AWS_ACCESS_KEY_ID", "set them in the environment")] {
        let rest: Vec<_> = environment.into_iter().filter(|(name, _)| *name != without).collect();
        let said = run(&rest).expect_err(without);
        assert!(said.contains(words), "without {without}: {said}");
    }
}
