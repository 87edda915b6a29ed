//! Health and metrics, for the operator. Nothing here changes anything.
//!
//! Arrives: GET requests. Leaves: `/healthz` (the process answers), `/readyz` (the index is loaded, and the edge is not leaving),
//! `/metrics` (Prometheus), `/.well-known/jwks.json` (what verifies tenant assertions). Goes wrong: `/readyz` says 503 before the index was
//! loaded and after SIGTERM, and never because of anything the edge depends on: an edge that keeps serving through an outage must not be
//! taken out by it.

use bundles::jwks;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::{drain::Phase, edge::Shared, plain::text};

pub(crate) fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readiness(shared),
        "/metrics" => metrics(shared),
        "/.well-known/jwks.json" => key_set(shared),
        _ => text(StatusCode::NOT_FOUND, "There are /healthz, /readyz, /metrics and /.well-known/jwks.json.\n"),
    }
}

fn readiness(shared: &Shared) -> Response<String> {
    match (shared.is_loaded(), shared.leaving.phase()) {
        (true, Phase::Serving) => text(StatusCode::OK, "ready\n"),
        (true, _) => text(StatusCode::SERVICE_UNAVAILABLE, "leaving\n"),
        (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, "the index is not loaded yet\n"),
    }
}

fn metrics(shared: &Shared) -> Response<String> {
    let expiry = shared.names.expiry(shared.clock.now().as_second());
    let mut answer = text(StatusCode::OK, shared.metrics.to_prometheus(shared.names.counts(), shared.names.generation(), expiry));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    answer
}

/// The public halves of the signing keys. Before there are any, nothing that a verifier could keep.
fn key_set(shared: &Shared) -> Response<String> {
    let settings = shared.settings();
    let Some(settings) = settings.filter(|settings| !settings.signing_keys.is_empty()) else {
        let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "There are no signing keys yet.\n");
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return answer;
    };
    let mut answer = text(StatusCode::OK, jwks(&settings.signing_keys));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    // A next key is published far longer ahead of its use than that.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    answer
}
