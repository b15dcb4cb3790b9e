//! AWS KMS: against moto's server with real keys, against answers that are made up, and against sockets that misbehave.

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Region};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeySpec, KeyUsageType};
use aws_sdk_kms::{Client, Config};
use aws_smithy_http_client::test_util::{ReplayEvent, StaticReplayClient};
use aws_smithy_types::body::SdkBody;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::ExpectedVersion::Any;
use eventseal::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::moto::{Moto, config};
use support::{Sqlite, whole};
use uuid::Uuid;

const KEY: [u8; 32] = *b"0123456789012345678901234567890A";
const ARN: &str = "arn:aws:kms:eu-central-1:123456789012:key/d1b41a7e-0000-4000-8000-000000000001";

fn context() -> KekContext {
    KekContext { namespace: Namespace::new("shop").unwrap(), kek_id: KekId(Uuid::now_v7()) }
}

fn wrapped() -> WrappedKek {
    WrappedKek { master_key_id: ARN.to_owned(), ciphertext: b"ciphertext".to_vec() }
}

fn failure_of(error: &Error) -> KmsFailure {
    match error {
        Error::KmsRefused { failure, .. } => {
            assert!(!error.is_retryable());
            *failure
        }
        Error::KmsUnavailable { failure, .. } => {
            assert!(error.is_retryable());
            *failure
        }
        other => panic!("not an error of the KMS: {other:?}"),
    }
}

/// Is the beginning of this key in the text: as it is, in hexadecimal, in base64, or as `Debug` lists the bytes of these?
fn holds(text: &str, key: &[u8; 32]) -> bool {
    let listed = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    let base64 = STANDARD.encode(&key[..9]);
    let hex: String = key[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let forms = [listed(&key[..8]), listed(base64.as_bytes()), base64, hex, String::from_utf8_lossy(&key[..8]).into_owned()];
    forms.iter().any(|form| text.contains(form))
}

#[track_caller]
fn assert_without_key(text: &str, key: &[u8; 32]) {
    assert!(!holds(text, key), "the key is in: {text}");
}

/// What each of the four operations answers.
async fn all(kms: &AwsKms, wrapped: &WrappedKek, context: &KekContext) -> [(&'static str, Result<()>); 4] {
    [
        ("generate_kek", kms.generate_kek(context).await.map(drop)),
        ("unwrap_kek", kms.unwrap_kek(wrapped, context).await.map(drop)),
        ("wrap_kek", kms.wrap_kek(&SecretKey::new(KEY), context).await.map(drop)),
        ("rewrap_kek", kms.rewrap_kek(wrapped, context).await.map(drop)),
    ]
}

// ---- moto: real keys

/// Moto does not know keys by their ARN where it changes their state.
fn id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap()
}

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
        for error in [kms.unwrap_kek(&wrapped, &other).await.unwrap_err(), kms.rewrap_kek(&wrapped, &other).await.unwrap_err()] {
            assert_eq!(failure_of(&error), KmsFailure::WrongContext);
            assert!(error.to_string().contains("restore it from a backup"), "{error}");
        }
    }
    // The KMS itself binds it: who has the ciphertext and the right to decrypt needs the context as it is.
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
        ("cut", WrappedKek { ciphertext: wrapped.ciphertext[..20].to_vec(), ..wrapped.clone() }, KmsFailure::WrongContext),
        ("another key", by(&other), KmsFailure::WrongKey),
        ("a key that is not there", by(ARN), KmsFailure::WrongKey),
        ("an alias that is not there", by("alias/none"), KmsFailure::WrongKey),
    ] {
        for error in [kms.unwrap_kek(&wrapped, &here).await.unwrap_err(), kms.rewrap_kek(&wrapped, &here).await.unwrap_err()] {
            assert_eq!(failure_of(&error), expected, "{what}: {error}");
        }
    }
    for key in ["alias/none", ARN] {
        let error = AwsKms::new(moto.client(), key).generate_kek(&here).await.unwrap_err();
        assert_eq!(failure_of(&error), KmsFailure::KeyNotFound);
        assert!(error.to_string().contains(key) && error.to_string().contains("check region, account and alias"), "{error}");
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
    assert_eq!((&old.master_key_id, &old_wrapped.master_key_id), (&first, &first), "what is stored is the key, not the alias");
    let opened = kms.unwrap_kek(&old, &here).await.unwrap();

    assert_eq!(kms.master_key_id().await.unwrap(), first);
    assert!(kms.makes_keys_under(&first) && !kms.makes_keys_under(&second));
    client.update_alias().alias_name(&alias).target_key_id(&second).send().await.unwrap();
    let refused = kms.unwrap_kek(&old, &here).await.unwrap_err();
    assert!(failure_of(&refused) == KmsFailure::WrongKey && refused.to_string().contains("also_opens"), "{refused}");
    assert_eq!(failure_of(&kms.rewrap_kek(&old, &here).await.unwrap_err()), KmsFailure::WrongKey);
    assert!(!kms.makes_keys_under(&first), "the alias means another key now");
    let kms = AwsKms::new(client.clone(), &alias).also_opens(&first);
    assert_eq!(kms.unwrap_kek(&old, &here).await.unwrap().expose(), opened.expose(), "the old key is named, so it still opens");
    assert!(!kms.makes_keys_under(&first), "for opening only");
    assert_eq!(kms.generate_kek(&here).await.unwrap().master_key_id, second);
    let moved = kms.rewrap_kek(&old, &here).await.unwrap();
    assert_eq!(moved.master_key_id, second);
    assert_eq!(kms.master_key_id().await.unwrap(), second);
    assert_eq!(AwsKms::new(client.clone(), id(&second)).master_key_id().await.unwrap(), second, "by id");
    // Whatever becomes of the old key.
    client.schedule_key_deletion().key_id(id(&first)).send().await.unwrap();
    assert_eq!(kms.unwrap_kek(&moved, &here).await.unwrap().expose(), opened.expose());
    assert_eq!(failure_of(&kms.unwrap_kek(&old, &here).await.unwrap_err()), KmsFailure::KeyPendingDeletion);
}

/// The replicas of a key in other regions open what it wrapped, and take it over. The region that a row names may be gone.
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
    assert_eq!(failure_of(&AwsKms::new(west.clone(), &replica).unwrap_kek(&foreign, &here).await.unwrap_err()), KmsFailure::WrongKey);
    let single = WrappedKek { master_key_id: ARN.replace("eu-central-1", "eu-west-1"), ..wrapped };
    assert_eq!(failure_of(&AwsKms::new(central, ARN).unwrap_kek(&single, &here).await.unwrap_err()), KmsFailure::WrongKey);
}

/// Whoever can write to the key table may have a key in some account that this process's role may decrypt under.
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
    let wrapped = WrappedKek { master_key_id: theirs.clone(), ciphertext: ciphertext.ciphertext_blob.unwrap().into_inner() };
    let planted = KekRecord { kek_id: planted, wrapped, ..active.clone() };
    assert!(keys.replace_kek(&mut connection, active.kek_id, &planted).await.unwrap());
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

/// The SDK can be told to log bodies, by variables that hold for all of its clients in a process. Keys are not among them.
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
        let output = again("i9_no_level_of_logging_shows_a_key", &[("LOG_SIGNABLE_BODY", "true"), ("LOG_SENSITIVE_BODIES", "true")]);
        return output.unwrap_or_else(|said| panic!("{said}"));
    }
    let moto = Moto::shared();
    let (client, arn) = (moto.client(), moto.key().await);
    let kms = AwsKms::new(client.clone(), &arn);
    let here = context();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_max_level(tracing::Level::TRACE).finish();
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

/// Runs a test of this file in a process of its own, with this environment and no other. What it said, if it failed.
fn again(test: &str, environment: &[(&str, &str)]) -> Result<(), String> {
    let mut process = std::process::Command::new(std::env::current_exe().unwrap());
    let output = process.args(["--exact", &format!("aws_kms::{test}")]).env_clear().envs(environment.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.contains("1 passed") { Ok(()) } else { Err(said.into_owned()) }
}

// ---- answers that are made up

fn answers(answers: &[(u16, &str)]) -> StaticReplayClient {
    let event = |(status, body): &(u16, &str)| {
        let answer = http::Response::builder().status(*status).body(SdkBody::from(*body)).unwrap();
        ReplayEvent::new(http::Request::builder().uri("http://localhost").body(SdkBody::empty()).unwrap(), answer)
    };
    StaticReplayClient::new(answers.iter().map(event).collect())
}

/// A client without retries, but those that a test adds.
fn answered_by(replay: &StaticReplayClient, tries: u32) -> AwsKms {
    let retries = RetryConfig::standard().with_max_attempts(tries).with_initial_backoff(Duration::from_millis(1));
    AwsKms::new(Client::from_conf(config(1).http_client(replay.clone()).retry_config(retries).build()), "alias/eventseal")
}

/// What the audit trail and the wire show: the names of the key, ciphertexts, and two opaque ids.
#[tokio::test]
async fn i9_only_opaque_ids_are_sent() {
    let plaintext = STANDARD.encode(KEY);
    let ciphertext = STANDARD.encode("new");
    let made = json!({ "KeyId": ARN, "CiphertextBlob": ciphertext }).to_string();
    let opened = json!({ "KeyId": ARN, "Plaintext": plaintext }).to_string();
    let described = json!({ "KeyMetadata": { "KeyId": "1", "Arn": ARN } }).to_string();
    let moved = json!({ "KeyId": ARN, "SourceKeyId": ARN, "CiphertextBlob": ciphertext }).to_string();
    let replay = answers(&[(200, &made), (200, &opened), (200, &made), (200, &moved), (200, &described)]);
    let kms = answered_by(&replay, 1);
    let here = context();
    for (what, answer) in all(&kms, &wrapped(), &here).await {
        answer.expect(what);
    }
    assert_eq!(kms.master_key_id().await.unwrap(), ARN);
    assert_eq!(AwsKms::new(Moto::shared().client(), ARN).master_key_id().await.unwrap(), ARN, "an ARN is not asked for");
    let ids = json!({ "eventseal-namespace": "shop", "eventseal-kek": here.kek_id.to_string() });
    let old = STANDARD.encode("ciphertext");
    let alias = "alias/eventseal";
    let expected = [
        ("GenerateDataKeyWithoutPlaintext", json!({ "KeyId": alias, "KeySpec": "AES_256", "EncryptionContext": ids })),
        ("Decrypt", json!({ "KeyId": alias, "CiphertextBlob": old, "EncryptionContext": ids })),
        ("Encrypt", json!({ "KeyId": alias, "Plaintext": plaintext, "EncryptionContext": ids })),
        (
            "ReEncrypt",
            json!({
                "SourceKeyId": alias, "CiphertextBlob": old, "SourceEncryptionContext": ids,
                "DestinationKeyId": alias, "DestinationEncryptionContext": ids,
            }),
        ),
        ("DescribeKey", json!({ "KeyId": alias })),
    ];
    let sent = replay.actual_requests().map(|request| {
        let operation = request.headers().get("x-amz-target").unwrap().trim_start_matches("TrentService.").to_owned();
        (operation, serde_json::from_slice::<Value>(request.body().bytes().unwrap()).unwrap())
    });
    assert_eq!(sent.collect::<Vec<_>>(), expected.map(|(operation, body)| (operation.to_owned(), body)));
}

/// The same id may be named in another account, where this role may decrypt: what is configured is asked, and the answer compared.
#[tokio::test]
async fn i3_a_row_does_not_choose_the_account_of_a_key_that_is_configured_by_its_id() {
    let opened = json!({ "KeyId": ARN, "Plaintext": STANDARD.encode(KEY) }).to_string();
    let moved = json!({ "KeyId": ARN, "SourceKeyId": ARN, "CiphertextBlob": STANDARD.encode("new") }).to_string();
    let here = context();
    for (key, also) in [(id(ARN), None), ("alias/other", Some(id(ARN)))] {
        let not_this = r#"{"__type":"IncorrectKeyException"}"#;
        let replay = match also {
            None => answers(&[(200, &opened), (200, &moved), (200, &opened), (200, &moved)]),
            Some(_) => answers(&[(400, not_this), (200, &opened), (400, not_this), (200, &moved)]),
        };
        let kms = AwsKms::new(Client::from_conf(config(1).http_client(replay.clone()).build()), key);
        let kms = if let Some(also) = also { kms.also_opens(also) } else { kms };
        let kms = if also.is_some() { kms } else { kms.also_opens("arn:aws:kms:eu-central-1:123456789012:key/another") };
        if also.is_none() {
            kms.unwrap_kek(&wrapped(), &here).await.unwrap();
            kms.rewrap_kek(&wrapped(), &here).await.unwrap();
        }
        let foreign = WrappedKek { master_key_id: ARN.replace("123456789012", "210987654321"), ..wrapped() };
        for refused in [kms.unwrap_kek(&foreign, &here).await.map(drop), kms.rewrap_kek(&foreign, &here).await.map(drop)] {
            assert_eq!(failure_of(&refused.unwrap_err()), KmsFailure::WrongKey);
        }
        for request in replay.actual_requests() {
            let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
            let asked = body.get("SourceKeyId").or_else(|| body.get("KeyId")).unwrap().as_str().unwrap().to_owned();
            assert!([id(ARN), "alias/other"].contains(&asked.as_str()), "asked under {asked}, which nobody configured");
        }
    }
}

/// By AWS's documentation of the four operations, and of the errors that all of them have in common.
#[tokio::test]
async fn i4_every_answer_means_what_aws_says_it_means() {
    use KmsFailure::{
        AccessDenied, Credentials, KeyDisabled, KeyNotFound, KeyPendingDeletion, MalformedAnswer, Other, Throttled, TimedOut, Unreachable,
        WrongContext, WrongKey,
    };
    let cases = [
        (400, "AccessDeniedException", AccessDenied, "allow the call"),
        (400, "NotAuthorized", AccessDenied, "allow the call"),
        (400, "NotFoundException", KeyNotFound, "check region, account and alias"),
        (400, "DisabledException", KeyDisabled, "enable the key again"),
        (400, "KMSInvalidStateException", KeyPendingDeletion, "cancel the deletion"),
        (400, "InvalidCiphertextException", WrongContext, "restore it from a backup"),
        (400, "IncorrectKeyException", WrongKey, "restore it from a backup"),
        (400, "InvalidKeyUsageException", WrongKey, "use a symmetric key"),
        (400, "UnrecognizedClientException", Credentials, "renew them"),
        (403, "InvalidClientTokenId", Credentials, "renew them"),
        (400, "InvalidSignatureException", Credentials, "this machine's clock"),
        (400, "ExpiredTokenException", Credentials, "renew them"),
        (400, "MissingAuthenticationTokenException", Credentials, "renew them"),
        (400, "IncompleteSignature", Credentials, "renew them"),
        (400, "RequestExpired", Credentials, "this machine's clock"),
        (400, "InvalidGrantTokenException", Other, "look the code up"),
        (400, "ValidationException", Other, "look the code up"),
        (400, "UnknownOperationException", Other, "look the code up"),
        (400, "ThrottlingException", Throttled, "retry"),
        (400, "LimitExceededException", Throttled, "retry"),
        (429, "", Throttled, "retry"),
        (503, "DependencyTimeoutException", TimedOut, "retry"),
        (408, "RequestTimeoutException", TimedOut, "retry"),
        (500, "KeyUnavailableException", Unreachable, "retry"),
        (500, "KMSInternalException", Unreachable, "retry"),
        (500, "InternalFailure", Unreachable, "retry"),
        (503, "ServiceUnavailable", Unreachable, "retry"),
        (400, "RequestAbortedException", Unreachable, "retry"),
        (500, "NobodyKnowsException", Unreachable, "retry"),
        (502, "", Unreachable, "retry"),
        (400, "", MalformedAnswer, "retry"),
        (403, "", MalformedAnswer, "retry"),
    ];
    for (status, code, expected, remedy) in cases {
        let body = match code {
            "" => "<html>".to_owned(),
            code => json!({ "__type": format!("com.amazonaws.kms#{code}"), "message": "what AWS says" }).to_string(),
        };
        let replay = answers(&[(status, &*body); 5]);
        let kms = answered_by(&replay, 1);
        for (what, answer) in all(&kms, &wrapped(), &context()).await {
            let error = answer.unwrap_err();
            assert_eq!(failure_of(&error), expected, "{status} {code} for {what}: {error:?}");
            let retryable = matches!(expected, Throttled | TimedOut | Unreachable | MalformedAnswer);
            assert_eq!(error.is_retryable(), retryable, "{status} {code} for {what}");
            assert!(error.to_string().contains(remedy), "{error}");
            assert!(whole(&error).contains(code) && whole(&error).contains(expected.as_str()), "{}", whole(&error));
            assert!(retryable || error.to_string().contains("what AWS says"), "{error}");
            assert!(!error.is_shredded() && !error.is_tampered());
            assert_without_key(&whole(&error), &KEY);
        }
        assert_eq!(failure_of(&kms.master_key_id().await.unwrap_err()), expected, "{status} {code} for DescribeKey");
        assert_eq!(replay.actual_requests().count(), 5, "no retries beyond the client's");
    }
}

/// The body of an answer to `Decrypt` is a key: however broken it is, no error may hold it.
#[tokio::test]
async fn i9_an_answer_that_makes_no_sense_is_retryable_and_is_not_shown() {
    let plaintext = STANDARD.encode(KEY);
    let bodies = [
        String::new(),
        "null".to_owned(),
        "{}".to_owned(),
        "<html>502</html>".to_owned(),
        plaintext.clone(),
        format!("\"{plaintext}\""),
        format!(r#"{{"KeyId":"{ARN}","Plaintext":"{plaintext}""#),
        format!(r#"{{"KeyId":"{ARN}","Plaintext":"{plaintext}"}}}}"#),
        format!(r#"{{"KeyId":7,"Plaintext":"{plaintext}"}}"#),
        format!(r#"{{"KeyId":"{ARN}","Plaintext":"{}"}}"#, &plaintext[1..]),
        format!(r#"{{"KeyId":"{ARN}","Plaintext":["{plaintext}"]}}"#),
        format!(r#"{{"KeyId":"{ARN}","Plaintext":"{}"}}"#, STANDARD.encode(&KEY[..31])),
        format!(r#"{{"KeyId":"{ARN}","Plaintext":"{}"}}"#, STANDARD.encode([&KEY[..], b"!"].concat())),
        format!(r#"{{"KeyId":"{ARN}","Plaintext":""}}"#),
        format!(r#"{{"KeyId":"","CiphertextBlob":"{plaintext}"}}"#),
        format!(r#"{{"KeyId":"{ARN}","CiphertextBlob":""}}"#),
        format!(r#"{{"CiphertextBlob":"{plaintext}"}}"#),
    ];
    for body in &bodies {
        let replay = answers(&[(200, body.as_str()); 5]);
        let kms = answered_by(&replay, 1);
        for (what, answer) in all(&kms, &wrapped(), &context()).await {
            let error = answer.expect_err(what);
            assert_eq!(failure_of(&error), KmsFailure::MalformedAnswer, "{what} of {body:?}: {error:?}");
            assert!(error.is_retryable());
            assert_without_key(&whole(&error), &KEY);
        }
        assert_eq!(failure_of(&kms.master_key_id().await.unwrap_err()), KmsFailure::MalformedAnswer, "DescribeKey of {body:?}");
    }
    // An error that comes with a key, from whatever stands in between.
    for status in [400, 503] {
        let body = json!({ "__type": "InvalidCiphertextException", "Plaintext": plaintext }).to_string();
        let error = answered_by(&answers(&[(status, &*body)]), 1).unwrap_kek(&wrapped(), &context()).await.unwrap_err();
        assert_without_key(&whole(&error), &KEY);
    }
}

#[tokio::test]
async fn what_aws_says_is_cut() {
    let long = json!({ "__type": "AccessDeniedException", "message": "é".repeat(10_000) }).to_string();
    let error = answered_by(&answers(&[(400, &long)]), 1).unwrap_kek(&wrapped(), &context()).await.unwrap_err();
    assert!(error.to_string().len() < 1_500, "{}", error.to_string().len());
}

/// Retries are the client's, and so is their number.
#[tokio::test]
async fn i10_what_passes_is_retried_by_the_sdk_and_what_stays_is_not() {
    let throttled = json!({ "__type": "ThrottlingException" }).to_string();
    let denied = json!({ "__type": "AccessDeniedException" }).to_string();
    let opened = json!({ "KeyId": ARN, "Plaintext": STANDARD.encode(KEY) }).to_string();
    for (given, sent, opens) in [
        (vec![(400, &*throttled), (503, ""), (200, &*opened)], 3, true),
        (vec![(400, &*throttled); 5], 3, false),
        (vec![(400, &*denied), (200, &*opened)], 1, false),
    ] {
        let replay = answers(&given);
        let answer = answered_by(&replay, 3).unwrap_kek(&wrapped(), &context()).await;
        assert_eq!((answer.is_ok(), replay.actual_requests().count()), (opens, sent));
    }
}

// ---- nothing to answer

/// Accepts connections, reads from them, and lets `end` end them.
fn misbehaving(end: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 1 << 14]);
            end(connection);
        }
    });
    port
}

async fn unwrap_error(config: aws_sdk_kms::config::Builder) -> Error {
    AwsKms::new(Client::from_conf(config.build()), "alias/eventseal").unwrap_kek(&wrapped(), &context()).await.unwrap_err()
}

#[tokio::test]
async fn i4_a_kms_that_is_not_there_is_an_outage() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hung_up = misbehaving(drop);
    let reset = misbehaving(|connection| socket_without_linger(&connection));
    let half = misbehaving(|mut connection| {
        let _ = write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{{\"Plaintext\":\"{}\"", STANDARD.encode(KEY));
    });
    let nonsense = misbehaving(|mut connection| {
        let _ = connection.write_all(b"220 mail.example.org ESMTP\r\n\r\n");
    });
    for (what, port, expected) in [
        ("a closed port", closed, KmsFailure::Unreachable),
        ("hung up", hung_up, KmsFailure::Unreachable),
        ("reset", reset, KmsFailure::Unreachable),
        ("half an answer", half, KmsFailure::MalformedAnswer),
        ("another protocol", nonsense, KmsFailure::Unreachable),
    ] {
        let error = unwrap_error(config(port)).await;
        assert_eq!(failure_of(&error), expected, "{what}: {}", whole(&error));
        assert_without_key(&whole(&error), &KEY);
        assert!(error.is_retryable() && error.to_string().contains("retry when it answers again"), "{what}: {error}");
    }
    let error = unwrap_error(config(1).endpoint_url("http://kms.invalid")).await;
    // Where there is no name server, that takes its time.
    assert!(matches!(failure_of(&error), KmsFailure::Unreachable | KmsFailure::TimedOut), "an unknown host: {}", whole(&error));
}

/// With nothing left to read and no time to linger, closing sends a reset.
fn socket_without_linger(connection: &TcpStream) {
    let connection = tokio::net::TcpSocket::from_std_stream(connection.try_clone().unwrap());
    #[allow(deprecated, reason = "a linger of zero does not block")]
    connection.set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn i4_a_kms_that_stalls_is_an_outage_after_the_clients_time() {
    let stalled = misbehaving(std::mem::forget);
    let started = Instant::now();
    let limits =
        TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(50)).operation_timeout(Duration::from_millis(150));
    let error = unwrap_error(config(stalled).timeout_config(limits.build())).await;
    assert_eq!(failure_of(&error), KmsFailure::TimedOut, "{error:?}");
    assert!(error.is_retryable() && started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let limits = TimeoutConfig::builder().read_timeout(Duration::from_millis(50));
    let error = unwrap_error(config(stalled).timeout_config(limits.build())).await;
    assert_eq!(failure_of(&error), KmsFailure::TimedOut, "{error:?}");
}

/// The SDK itself would wait for ever.
#[tokio::test(start_paused = true)]
async fn a_client_without_limits_gets_some() {
    let plain = |port| {
        let config = config(port).build();
        Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(aws_sdk_kms::config::Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .http_client(config.http_client().unwrap())
    };
    let stalled = misbehaving(std::mem::forget);
    let started = tokio::time::Instant::now();
    let error = tokio::time::timeout(Duration::from_secs(60), unwrap_error(plain(stalled))).await.expect("it gives up");
    assert_eq!(failure_of(&error), KmsFailure::TimedOut, "{error:?}");
    assert!(started.elapsed() <= Duration::from_secs(21), "{:?}", started.elapsed());
    // Whoever wants to wait may.
    let patient = plain(stalled).timeout_config(TimeoutConfig::disabled());
    assert!(tokio::time::timeout(Duration::from_secs(60), unwrap_error(patient)).await.is_err());
    for seconds in [2, 50] {
        let other = TimeoutConfig::builder().operation_timeout(Duration::from_secs(seconds)).build();
        let started = tokio::time::Instant::now();
        let error = unwrap_error(plain(stalled).timeout_config(other)).await;
        assert_eq!(failure_of(&error), KmsFailure::TimedOut, "{error:?}");
        assert!(started.elapsed().as_secs().abs_diff(seconds) <= 1, "{:?}", started.elapsed());
    }
}

/// A provider of credentials that fails.
#[derive(Debug)]
struct Failing(fn() -> CredentialsError);

impl ProvideCredentials for Failing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err((self.0)()))
    }
}

#[tokio::test]
async fn missing_credentials_are_told_from_an_outage_of_what_provides_them() {
    let with = |provider| config(1).credentials_provider(Failing(provider));
    let error = unwrap_error(with(|| CredentialsError::not_loaded("nowhere to be found"))).await;
    assert_eq!(failure_of(&error), KmsFailure::Credentials, "{}", whole(&error));
    assert!(error.to_string().contains("set them in the environment") && error.to_string().contains("nowhere to be found"), "{error}");
    let error = unwrap_error(with(|| CredentialsError::invalid_configuration("a loop of profiles"))).await;
    assert_eq!(failure_of(&error), KmsFailure::Credentials, "{}", whole(&error));
    let error = unwrap_error(with(|| CredentialsError::provider_error("503 from STS"))).await;
    assert_eq!(failure_of(&error), KmsFailure::Unreachable, "{}", whole(&error));
    let error = unwrap_error(with(|| CredentialsError::provider_timed_out(Duration::from_secs(1)))).await;
    assert_eq!(failure_of(&error), KmsFailure::TimedOut, "{}", whole(&error));

    let bare = || Config::builder().behavior_version(BehaviorVersion::latest()).endpoint_url("http://127.0.0.1:1");
    let client = aws_smithy_http_client::Builder::new().build_http();
    // A client that was built without a provider of credentials: the SDK does not say so in a way that a program could tell
    // from an outage, and an outage must not be a refusal.
    let error = unwrap_error(bare().http_client(client.clone()).region(Region::new("eu-central-1"))).await;
    assert!(error.is_retryable() && whole(&error).contains("Be sure to set an identity, such as credentials"), "{}", whole(&error));
    let no_region = aws_sdk_kms::config::Credentials::new("test", "test", None, None, "test");
    let error = unwrap_error(bare().http_client(client).credentials_provider(no_region)).await;
    assert!(!error.is_retryable() && error.to_string().contains("AWS_REGION"), "{}", whole(&error));
}

#[tokio::test]
async fn a_key_for_signatures_is_the_wrong_kind() {
    let replay = answers(&[(400, r#"{"__type":"InvalidKeyUsageException"}"#)]);
    let error = answered_by(&replay, 1).generate_kek(&context()).await.unwrap_err();
    assert_eq!(failure_of(&error), KmsFailure::WrongKey);
    // Moto makes such keys too, though it does not mind their use.
    let made = Moto::shared().client().create_key().key_usage(KeyUsageType::SignVerify).key_spec(KeySpec::EccNistP256).send().await;
    assert!(made.is_ok());
}

// ---- a store

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

type Store = SealedStore<SqliteStore>;

/// A process, with caches of its own.
fn process(kms: AwsKms) -> Store {
    SealedStore::new(SqliteStore::new(), SqliteKeys::new(), kms, schemas())
}

async fn append(db: &Sqlite, store: &Store, customer: &str) -> Result<()> {
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed(customer)]).await?;
    tx.commit().await.unwrap();
    Ok(())
}

/// For each event, whether it is redacted; a value that is not redacted is there.
async fn read(db: &Sqlite, store: &Store) -> Result<Vec<bool>> {
    let mut connection = db.pool.acquire().await.unwrap();
    let stream = store.read_stream(&mut connection, &aggregate("Order", "1")).await?;
    let redacted = |event: &PersistedEvent| {
        assert_eq!(event.is_redacted(), !String::from_utf8_lossy(&event.payload).contains("Ada"));
        event.is_redacted()
    };
    Ok(stream.events.iter().map(redacted).collect())
}

/// The same, when the KMS answers again, and its failure is forgotten.
async fn recovered(db: &Sqlite, store: &Store) -> Vec<bool> {
    loop {
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
    // A shred needs no KMS. Whoever can't check its tag does not see a redaction but the outage.
    shred(&db, &cold, "2").await;
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
    let keyring = SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Keyring::generate("main").unwrap(), schemas());
    assert_eq!(failure_of(&read(&db, &keyring).await.unwrap_err()), KmsFailure::WrongKey);
}

/// So its role needs no other permission, also where the key is named by an alias: `Decrypt` itself says what that means.
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
    on_keyring().keys().move_master_key(&mut connection, Some(&AwsKms::new(client.clone(), &alias)), &mut |_| {}).await.unwrap();
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
    let run = |environment: &[_]| again("the_environment_configures_a_client", environment);
    run(&environment).unwrap_or_else(|said| panic!("{said}"));
    for (without, words) in [("AWS_REGION", "set AWS_REGION"), ("AWS_ACCESS_KEY_ID", "set them in the environment")] {
        let rest: Vec<_> = environment.into_iter().filter(|(name, _)| *name != without).collect();
        let said = run(&rest).expect_err(without);
        assert!(said.contains(words), "without {without}: {said}");
    }
}
