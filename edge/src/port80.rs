//! Plain HTTP: ACME challenges first, then known names to https, nothing else.
//!
//! Arrives: requests of anybody. Leaves: a key authorization, a redirect, or 404. Goes wrong: nothing; an unknown name is 404, or 503 while
//! the index was never read.

use domains::Hostname;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::{authority, edge::Shared, plain::text};

const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The longest token answered; CAs send 43 characters.
const MAX_TOKEN_BYTES: usize = 128;

pub(crate) fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<String> {
    respond(shared, request.method(), request.version(), request.uri(), request.headers())
}

fn respond(shared: &Shared, method: &Method, version: http::Version, uri: &http::Uri, headers: &http::HeaderMap) -> Response<String> {
    if let Some(token) = uri.path().strip_prefix(CHALLENGES) {
        return challenge(shared, method, token);
    }
    let name = authority::of_request(version, uri, headers).ok().and_then(authority::name_of);
    let hostname = name.and_then(|name| Hostname::try_from(name).ok()).filter(|hostname| !hostname.is_wildcard());
    // Asked before the look, so that what is not found then is not there.
    let is_loaded = shared.is_loaded();
    match hostname {
        Some(hostname) if shared.names.find(&hostname).is_some() => to_https(&hostname, shared.public_https_port, uri),
        Some(_) if !is_loaded => {
            let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "The names served here are not known yet. Please try again.\n");
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
        _ => text(StatusCode::NOT_FOUND, "There is nothing here under this name.\n"),
    }
}

/// Answers an http-01 challenge for any name, with nothing stored for it: the token comes back with the account's thumbprint.
///
/// Source: RFC 8555, section 8.3; tokens are base64url (section 8.1).
fn challenge(shared: &Shared, method: &Method, token: &str) -> Response<String> {
    let is_token =
        (1..=MAX_TOKEN_BYTES).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let asked = matches!(*method, Method::GET | Method::HEAD);
    match shared.settings().filter(|_| is_token && asked).and_then(|settings| settings.key_authorization(token)) {
        Some(authorization) => text(StatusCode::OK, authorization),
        None => text(StatusCode::NOT_FOUND, "There is no such challenge.\n"),
    }
}

fn to_https(hostname: &Hostname, port: u16, uri: &http::Uri) -> Response<String> {
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let target = if target.starts_with('/') { target } else { "/" };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let Ok(location) = HeaderValue::try_from(format!("https://{hostname}{port}{target}")) else {
        return text(StatusCode::BAD_REQUEST, "The request's target cannot be read.\n");
    };
    let mut answer = text(StatusCode::PERMANENT_REDIRECT, "This site is served over https.\n");
    answer.headers_mut().insert(header::LOCATION, location);
    answer
}
