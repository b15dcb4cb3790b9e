//! What the codes of AWS mean.

use crate::kms::KmsFailure;

/// What an error that AWS answered with means.
pub(super) enum Meaning {
    /// The key can't be used. The text says what to do.
    Refusal(KmsFailure, &'static str),
    /// The answer says nothing about the key.
    Outage(KmsFailure),
}

pub(super) fn meaning(code: Option<&str>, status: u16) -> Meaning {
    use Meaning::{Outage, Refusal};
    if let Some((failure, what_to_do)) = code.and_then(refusal) {
        return Refusal(failure, what_to_do);
    }
    match code {
        Some(
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "SlowDown",
        ) => Outage(KmsFailure::Throttled),
        Some("DependencyTimeoutException" | "RequestTimeout" | "RequestTimeoutException") => {
            Outage(KmsFailure::TimedOut)
        }
        Some(
            "KeyUnavailableException"
            | "KMSInternalException"
            | "InternalFailure"
            | "ServiceUnavailable"
            | "RequestAbortedException",
        ) => Outage(KmsFailure::Unreachable),
        // Proxies between this process and AWS answer too, without codes of AWS.
        _ if status == 429 => Outage(KmsFailure::Throttled),
        _ if status >= 500 => Outage(KmsFailure::Unreachable),
        Some(_) => Refusal(KmsFailure::Other, "look the code up in AWS's documentation"),
        None => Outage(KmsFailure::MalformedAnswer),
    }
}

/// What AWS says of a key or of a caller, and not of itself.
fn refusal(code: &str) -> Option<(KmsFailure, &'static str)> {
    Some(match code {
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired" => (
            KmsFailure::AccessDenied,
            "allow the call for this role and key, with the encryption context of eventseal; for a ciphertext of a key \
             that does not exist here, AWS says the same: check account and region",
        ),
        "NotFoundException" | "InvalidArnException" => {
            (KmsFailure::KeyNotFound, "check region, account and alias; a deleted key is lost for good")
        }
        "DisabledException" => (KmsFailure::KeyDisabled, "enable the key again"),
        "KMSInvalidStateException" => (
            KmsFailure::KeyPendingDeletion,
            "if the key is pending deletion, cancel the deletion at once and enable it; if it is pending import or in \
             a key store, see its state",
        ),
        "InvalidCiphertextException" => {
            (KmsFailure::WrongContext, "the row was altered, or belongs to another namespace: restore it from a backup")
        }
        "IncorrectKeyException" => (
            KmsFailure::WrongKey,
            "another master key wrapped it: name that one with also_opens(), if it is yours; if not, the row was \
             altered: restore it from a backup",
        ),
        "InvalidKeyUsageException" => (KmsFailure::WrongKey, "use a symmetric key for encryption and decryption"),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "RequestExpired" => {
            (KmsFailure::Credentials, "AWS does not accept the credentials: renew them, and check this machine's clock")
        }
        _ => return None,
    })
}
