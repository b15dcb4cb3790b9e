//! A KMS that is not there, stalls or has nobody to sign for.

use super::{KEY, assert_without_key, context, failure_of, wrapped};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Region};
use aws_sdk_kms::{Client, Config};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::Error;
use eventseal::kms::Kms;
use eventseal::kms::{AwsKms, KmsFailure};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use support::moto::config;
use support::whole;

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
    AwsKms::new(Client::from_conf(config.build()), "alias/eventseal")
        .unwrap_kek(&wrapped(), &context())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn i4_a_kms_that_is_not_there_is_an_outage() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hung_up = misbehaving(drop);
    let reset = misbehaving(|connection| socket_without_linger(&connection));
    let half = misbehaving(|mut connection| {
        let _ = write!(
            connection,
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{{\"Plaintext\":\"{}\"",
            STANDARD.encode(KEY)
        );
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
    assert!(
        matches!(failure_of(&error), KmsFailure::Unreachable | KmsFailure::TimedOut),
        "an unknown host: {}",
        whole(&error)
    );
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
    let limits = TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_millis(50))
        .operation_timeout(Duration::from_millis(150));
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
    // A client that is configured without a time-out waits.
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
    assert!(
        error.to_string().contains("set them in the environment") && error.to_string().contains("nowhere to be found"),
        "{error}"
    );
    let error = unwrap_error(with(|| CredentialsError::invalid_configuration("a loop of profiles"))).await;
    assert_eq!(failure_of(&error), KmsFailure::Credentials, "{}", whole(&error));
    let error = unwrap_error(with(|| CredentialsError::provider_error("503 from STS"))).await;
    assert_eq!(failure_of(&error), KmsFailure::Unreachable, "{}", whole(&error));
    let error = unwrap_error(with(|| CredentialsError::provider_timed_out(Duration::from_secs(1)))).await;
    assert_eq!(failure_of(&error), KmsFailure::TimedOut, "{}", whole(&error));

    let bare = || Config::builder().behavior_version(BehaviorVersion::latest()).endpoint_url("http://127.0.0.1:1");
    let client = aws_smithy_http_client::Builder::new().build_http();
    // A client that was built without a provider of credentials: the SDK does not say so in a way that a program could
    // tell from an outage, and an outage must not be a refusal.
    let error = unwrap_error(bare().http_client(client.clone()).region(Region::new("eu-central-1"))).await;
    assert!(
        error.is_retryable() && whole(&error).contains("Be sure to set an identity, such as credentials"),
        "{}",
        whole(&error)
    );
    let no_region = aws_sdk_kms::config::Credentials::new("test", "test", None, None, "test");
    let error = unwrap_error(bare().http_client(client).credentials_provider(no_region)).await;
    assert!(!error.is_retryable() && error.to_string().contains("AWS_REGION"), "{}", whole(&error));
}
