//! What an SDK's error means, judged by its code; SDK types end here.
//!
//! Arrives: an error of any AWS client. Leaves: a [`StoreError`] in the provider's words. Goes wrong: a code nobody has met, which is judged
//! by its HTTP status, and is a defect when it has none that time could mend.

use aws_sdk_dynamodb::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use domains::StoreError;

/// Codes that time mends although their status says that we are wrong; what throttles is told by its name.
///
/// Source: the error lists of DynamoDB, SQS, S3, Route 53 and Secrets Manager, docs.aws.amazon.com (read 2026-11).
const PASSING: &[&str] = &[
    "RequestLimitExceeded",
    "ProvisionedThroughputExceededException",
    "TransactionInProgressException",
    "LimitExceededException",
    "SlowDown",
    "RequestTimeout",
    "RequestTimeoutException",
    "OperationAborted",
    "PriorRequestNotComplete",
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "ServiceUnavailable",
];

/// The error's code, when the service gave one.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// The HTTP status, when there was an answer.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// The verdict on an error of the call named `what`.
pub(super) fn classify<E>(what: &str, error: &SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let (detail, passes) = match error {
        SdkError::ServiceError(service) => {
            let service = service.err();
            let (code, message) = (service.code(), service.message().unwrap_or_default());
            (format!("{what}: {} {message}", code.unwrap_or("an error without a code")), passes(code, status(error)))
        }
        SdkError::ConstructionFailure(_) => (format!("{what}: {}", chain(error)), false),
        // An answer that does not parse, such as a proxy's page, says nothing about what was asked.
        SdkError::ResponseError(_) => (format!("{what}: {}", chain(error)), true),
        _ => (format!("{what}: {}", chain(error)), true),
    };
    match passes {
        true => StoreError::Unavailable { detail },
        false => StoreError::Defect { detail },
    }
}

/// Whether time may mend an error with this code and status.
fn passes(code: Option<&str>, status: Option<u16>) -> bool {
    let by_code = code.is_some_and(|code| PASSING.contains(&code) || code.contains("Throttl"));
    by_code || status.is_some_and(|status| status >= 500 || status == 429)
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn what_is_refused_is_a_defect_and_what_is_busy_passes() {
        for (code, status) in [
            ("ThrottlingException", 400),
            ("ProvisionedThroughputExceededException", 400),
            ("RequestThrottled", 400),
            ("SlowDown", 503),
            ("InternalServerError", 500),
            ("KMS.ThrottlingException", 400),
            ("ExpiredTokenException", 400),
            ("NobodyKnowsThisOne", 502),
            ("TooManyRequests", 429),
        ] {
            assert!(passes(Some(code), Some(status)), "{code} {status}");
        }
        for (code, status) in [
            ("AccessDeniedException", 400),
            ("AccessDenied", 403),
            ("ValidationException", 400),
            ("ResourceNotFoundException", 400),
            ("NoSuchBucket", 404),
            ("AWS.SimpleQueueService.NonExistentQueue", 400),
            ("UnrecognizedClientException", 400),
            ("NobodyKnowsThisOne", 400),
        ] {
            assert!(!passes(Some(code), Some(status)), "{code} {status}");
        }
        assert!(!passes(None, Some(403)));
        assert!(passes(None, Some(503)));
    }
}
