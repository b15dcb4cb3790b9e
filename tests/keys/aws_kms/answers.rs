//! Answers of AWS KMS that are made up.

use super::{ARN, KEY, all, answered_by, answers, assert_without_key, context, failure_of, id, wrapped};
use aws_sdk_kms::Client;
use aws_sdk_kms::types::{KeySpec, KeyUsageType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventseal::kms::Kms;
use eventseal::kms::{AwsKms, KmsFailure, WrappedKek};
use serde_json::{Value, json};
use support::moto::{Moto, config};
use support::whole;

/// The audit trail and the wire show the names of the key, ciphertexts, and two opaque ids, and nothing else.
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
    assert_eq!(
        AwsKms::new(Moto::shared().client(), ARN).master_key_id().await.unwrap(),
        ARN,
        "an ARN is not asked for"
    );
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

/// The same id may be named in another account, where this role may decrypt: what is configured is asked, and the
/// answer compared.
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
        let kms =
            if also.is_some() { kms } else { kms.also_opens("arn:aws:kms:eu-central-1:123456789012:key/another") };
        if also.is_none() {
            kms.unwrap_kek(&wrapped(), &here).await.unwrap();
            kms.rewrap_kek(&wrapped(), &here).await.unwrap();
        }
        let foreign = WrappedKek { master_key_id: ARN.replace("123456789012", "210987654321"), ..wrapped() };
        for refused in
            [kms.unwrap_kek(&foreign, &here).await.map(drop), kms.rewrap_kek(&foreign, &here).await.map(drop)]
        {
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
        AccessDenied, Credentials, KeyDisabled, KeyNotFound, KeyPendingDeletion, MalformedAnswer, Other, Throttled,
        TimedOut, Unreachable, WrongContext, WrongKey,
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
        assert_eq!(
            failure_of(&kms.master_key_id().await.unwrap_err()),
            KmsFailure::MalformedAnswer,
            "DescribeKey of {body:?}"
        );
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

#[tokio::test]
async fn a_key_for_signatures_is_the_wrong_kind() {
    let replay = answers(&[(400, r#"{"__type":"InvalidKeyUsageException"}"#)]);
    let error = answered_by(&replay, 1).generate_kek(&context()).await.unwrap_err();
    assert_eq!(failure_of(&error), KmsFailure::WrongKey);
    // Moto makes such keys too, though it does not mind their use.
    let made = Moto::shared()
        .client()
        .create_key()
        .key_usage(KeyUsageType::SignVerify)
        .key_spec(KeySpec::EccNistP256)
        .send()
        .await;
    assert!(made.is_ok());
}
