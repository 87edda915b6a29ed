//! Signatures as Standard Webhooks has them.
//!
//! Arrives: a secret, a message's id, time and text. Leaves: `v1,` and base64 of the HMAC-SHA256 over `id.time.text`. Goes wrong: a secret
//! that is none, which only a damaged document can hold.
//!
//! Source: standard-webhooks/spec, "Signature scheme" (read 2026-11).

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use domains::webhooks::SECRET_PREFIX;

/// The signature of a message; `None` when the secret does not read.
pub(crate) fn signature(secret: &str, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?);
    let mut signed = format!("{id}.{seconds}.").into_bytes();
    signed.extend_from_slice(body);
    Some(format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_libraries_is_signed_as_they_sign_it() {
        // The vector in the test suites of the reference libraries (standard-webhooks/libraries, read 2026-11).
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!(signature("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "m", 0, b""), None);
    }
}
