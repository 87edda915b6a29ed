//! The ports that speak plain HTTP/1: small answers, no bodies, the same deadlines as everywhere.
//!
//! Arrives: TCP connections. Leaves: what a function of the request says. Goes wrong: as on the TLS port, by limits and deadlines.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{
    body::Answer,
    drain::Phase,
    edge::Shared,
    listener::{self, Driven},
    watch::{Activity, WatchedIo},
};

/// What a plain port answers.
pub(crate) type Answers = fn(&Shared, &Request<Incoming>) -> Response<String>;

/// Accepts on a plain port.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken, answers: Answers) {
    let (places, over) = (shared.limits.max_plain_connections, || shared.metrics.connection_ended("over_limit_plain"));
    let serve = |socket, _: SocketAddr, place| {
        let (shared, end) = (Arc::clone(&shared), shared.leaving.end.clone());
        shared.leaving.tasks.clone().spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = serve(shared, socket, answers) => {}
            }
            drop(place);
        });
    };
    listener::accept(listener, places, stop, over, serve).await;
}

async fn serve(shared: Arc<Shared>, socket: TcpStream, answers: Answers) {
    listener::keep_alive(&socket);
    let activity = Activity::new();
    let io = TokioIo::new(WatchedIo::new(socket, Arc::clone(&activity)));
    let service = service_fn(|request: Request<Incoming>| {
        let guard = activity.request();
        let (parts, text) = answers(&shared, &request).into_parts();
        let mut answer = Response::from_parts(parts, Answer::own(text, Some(guard)));
        if shared.leaving.phase() != Phase::Serving {
            answer.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let served = listener::http1_builder(&shared.limits).serve_connection(io, service).with_upgrades();
    let (finish, limits) = (CancellationToken::new(), &shared.limits);
    let driven = Driven { activity: Arc::clone(&activity), finish, limits, leaving: &shared.leaving, is_http2: false };
    if let Some(reason) = driven.drive(served).await {
        shared.metrics.connection_ended(reason);
    }
}

/// An answer of a few words.
pub(crate) fn text(status: http::StatusCode, words: impl Into<String>) -> Response<String> {
    let mut answer = Response::new(words.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
