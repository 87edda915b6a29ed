//! The API behind API Gateway.
//!
//! Arrives: a request as `lambda_http` reads it from the event. Leaves: the handler's answer, as text. Goes wrong: nothing of its own.

use bytes::Bytes;
use http::Response;
use lambda_http::{Body, Request};

use crate::Api;

/// Answers one request that came through API Gateway.
pub async fn answer(api: &Api, request: Request) -> Response<Body> {
    let request = request.map(|body| match body {
        Body::Text(text) => Bytes::from(text),
        Body::Binary(bytes) => Bytes::from(bytes),
        _ => Bytes::new(),
    });
    // Text goes out as it is; only what is not text would be sent in base64.
    api.handle(request).await.map(|body| match String::from_utf8(body.into()) {
        Ok(text) => Body::Text(text),
        Err(error) => Body::Binary(error.into_bytes()),
    })
}
