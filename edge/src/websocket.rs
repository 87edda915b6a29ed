//! WebSocket, the one protocol a client may switch to: anything else, `h2c` above all, would carry requests past every check here.
//!
//! Arrives: an upgrade over HTTP/1.1, or an extended CONNECT over HTTP/2. Leaves: an upgrade over HTTP/1.1 to the origin, and its agreement
//! in the client's own terms. Goes wrong: an origin that agrees to what nobody asked, or not as a WebSocket server would; that is 502.
//!
//! Source: RFC 6455, sections 1.3 and 4; RFC 8441, sections 4 and 5.

use std::hash::{BuildHasher, RandomState};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};
use hyper::{body::Incoming, ext::Protocol};

use crate::{body::Answer, forwarding, watch::RequestGuard};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// What a server adds to a key before it hashes it.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How a client asked for a WebSocket.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// By an upgrade, with a key that the client checks itself.
    Upgrade,
    /// By an extended CONNECT, which has no key; this one is the edge's.
    Connect { key: String },
}

/// Whether a client asks for a WebSocket, and how.
pub(crate) fn asked_for<B: hyper::body::Body>(request: &Request<B>) -> Option<Asked> {
    over_http2(request).or_else(|| by_upgrade(request))
}

/// Whether it asks by an extended CONNECT.
pub(crate) fn over_http2<B>(request: &Request<B>) -> Option<Asked> {
    let protocol = request.extensions().get::<Protocol>()?;
    let asks = *request.method() == Method::CONNECT && protocol.as_str() == "websocket" && request.uri().path().starts_with('/');
    asks.then(|| Asked::Connect { key: STANDARD.encode(nonce()) })
}

fn by_upgrade<B: hyper::body::Body>(request: &Request<B>) -> Option<Asked> {
    let says = |name: HeaderName, word: &str| {
        let values = request.headers().get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|it| it.trim().eq_ignore_ascii_case(word))
    };
    let whole = request.version() == http::Version::HTTP_11 && *request.method() == Method::GET && request.body().is_end_stream();
    (whole && says(CONNECTION, "upgrade") && says(UPGRADE, "websocket")).then_some(Asked::Upgrade)
}

impl Asked {
    /// Makes a request into one that asks the origin.
    pub(crate) fn ask(&self, parts: &mut http::request::Parts) {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, WEBSOCKET);
        if let Self::Connect { key } = self {
            parts.method = Method::GET;
            // Base64 is visible ASCII; a request without a key would be refused by the origin.
            if let Ok(key) = HeaderValue::from_str(key) {
                parts.headers.insert(SEC_WEBSOCKET_KEY, key);
            }
        }
    }
}

/// Checks that the origin agrees to what was asked.
///
/// # Errors
/// What the client is told when it does not.
pub(crate) fn agrees<B>(asked: Option<&Asked>, answer: &Response<B>) -> Result<(), &'static str> {
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    match asked {
        None if switches => Err("The site answered in a protocol nobody asked for."),
        Some(Asked::Connect { key }) if switches => {
            let expected = accept(key);
            let said = answer.headers().get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
            (said == Some(expected.as_bytes())).then_some(()).ok_or("The site did not agree as a WebSocket server does.")
        }
        // To the client a success would mean that the tunnel is open.
        Some(Asked::Connect { .. }) if answer.status().is_success() => Err("The site did not switch to the WebSocket asked for."),
        _ => Ok(()),
    }
}

/// The agreement, in the client's terms.
pub(crate) fn switched(asked: &Asked, answer: Response<Incoming>, guard: Option<RequestGuard>) -> Response<Answer> {
    let (mut parts, _) = answer.into_parts();
    let protocol = parts.headers.remove(UPGRADE);
    forwarding::to_client(&mut parts.headers);
    parts.extensions.clear();
    match asked {
        Asked::Upgrade => {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol.unwrap_or(WEBSOCKET));
        }
        Asked::Connect { .. } => {
            parts.status = StatusCode::OK;
            parts.version = http::Version::default();
            parts.headers.remove(SEC_WEBSOCKET_ACCEPT);
            parts.headers.remove(CONTENT_LENGTH);
        }
    }
    Response::from_parts(parts, Answer::own("", guard))
}

/// Source: RFC 6455, section 4.2.2, step 5.4.
fn accept(key: &str) -> String {
    let joined = [key.as_bytes(), GUID].concat();
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &joined))
}

/// Sixteen bytes that no other connection has; they keep nothing secret (RFC 6455, section 10.3).
fn nonce() -> [u8; 16] {
    let random = [RandomState::new().hash_one("websocket"), RandomState::new().hash_one("key")];
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&random[0].to_le_bytes());
    nonce[8..].copy_from_slice(&random[1].to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, accept: Option<&str>) -> Response<()> {
        let mut answer = Response::builder().status(status);
        if let Some(accept) = accept {
            answer = answer.header(SEC_WEBSOCKET_ACCEPT, accept);
        }
        answer.body(()).unwrap()
    }

    #[test]
    fn the_standards_own_example_agrees_and_nothing_else_does() {
        let asked = Asked::Connect { key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned() };
        assert!(agrees(Some(&asked), &answer(101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))).is_ok());
        assert!(agrees(Some(&asked), &answer(101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOp="))).is_err());
        assert!(agrees(Some(&asked), &answer(101, None)).is_err());
        assert!(agrees(Some(&asked), &answer(200, None)).is_err());
        assert!(agrees(Some(&asked), &answer(403, None)).is_ok());
        assert!(agrees(None, &answer(101, None)).is_err());
        assert!(agrees(None, &answer(200, None)).is_ok());
        // Over HTTP/1.1 the key is the client's, and so is the check.
        assert!(agrees(Some(&Asked::Upgrade), &answer(101, None)).is_ok());
        assert_ne!(nonce(), nonce());
    }
}
