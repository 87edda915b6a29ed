//! The ports that speak plain HTTP/1: small answers, no bodies, the same deadlines as everywhere.
//!
//! Arrives: TCP connections. Leaves: what a function of the request says. Goes wrong: as on the TLS port, by limits and deadlines.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    addresses::{Guest, TooMuch},
    body::Answer,
    drain::Phase,
    edge::Shared,
    listener::{self, Driven},
    load_balancer::{self, NoHeader},
    port80, private,
    watch::{Activity, WatchedIo},
};

/// Which plain port it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Strangers'.
    Http,
    /// The operator's. A load balancer that looks at its health may begin with a PROXY header there, as it does on the TLS port.
    Private,
}

impl Port {
    fn answer(self, shared: &Shared, request: &Request<Incoming>) -> Response<String> {
        match self {
            Self::Http => port80::answer(shared, request),
            Self::Private => private::answer(shared, request),
        }
    }
}

/// Accepts on a plain port.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken, port: Port) {
    let (places, over) = (shared.limits.max_plain_connections, |reason| shared.metrics.connection_ended(reason));
    let serve = |socket, from: SocketAddr, place| {
        let (shared, end) = (Arc::clone(&shared), shared.leaving.end.clone());
        shared.leaving.tasks.clone().spawn(Box::pin(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = serve(shared, socket, from.ip().to_canonical(), port) => {}
            }
            drop(place);
        }));
    };
    listener::accept(listener, places, stop, over, serve).await;
}

async fn serve(shared: Arc<Shared>, mut socket: TcpStream, from: IpAddr, port: Port) {
    let admitted = match port {
        Port::Http => admit(&shared, &mut socket, from).await.map(Some),
        Port::Private => skip_proxy_header(&mut socket, shared.limits.header_read).await.map(|()| None),
    };
    let guest = match admitted {
        Ok(guest) => guest,
        Err(reason) => return shared.metrics.connection_ended(reason),
    };
    let activity = Activity::new();
    let io = TokioIo::new(WatchedIo::new(socket, Arc::clone(&activity)));
    let service = service_fn(|request: Request<Incoming>| {
        let guard = activity.request();
        let within = guest.as_ref().is_none_or(|guest| shared.plain_addresses.request(guest).is_ok());
        let answer = match within {
            true => port.answer(&shared, &request),
            false => text(StatusCode::TOO_MANY_REQUESTS, "Too many requests come from your address. Please wait a moment.\n"),
        };
        let (parts, text) = answer.into_parts();
        let mut answer = Response::from_parts(parts, Answer::own(text, Some(guard)));
        if shared.leaving.phase() != Phase::Serving {
            answer.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let served = listener::http1_builder(&shared.limits).serve_connection(io, service).with_upgrades();
    let driven = Driven { activity: Arc::clone(&activity), finish: CancellationToken::new(), shared: Arc::clone(&shared), is_http2: false };
    if let Some(reason) = driven.drive(Box::pin(served)).await {
        shared.metrics.connection_ended(reason);
    }
}

/// Takes a stranger's connection in: as that of the client the load balancer names, where there is one.
async fn admit(shared: &Shared, socket: &mut TcpStream, from: IpAddr) -> Result<Guest, &'static str> {
    let client = match shared.proxy_protocol {
        true => match timeout(shared.limits.header_read, load_balancer::read_client(socket)).await {
            Ok(told) => told.map_err(NoHeader::reason)?.unwrap_or(from),
            Err(_) => return Err("no_request"),
        },
        false => from,
    };
    shared.plain_addresses.admit(client).map_err(TooMuch::reason)
}

/// Reads over a PROXY header where there is one; what it says does not matter here.
async fn skip_proxy_header(socket: &mut TcpStream, wait: Duration) -> Result<(), &'static str> {
    let skipped = timeout(wait, async {
        let mut first = [0];
        match socket.peek(&mut first).await {
            Ok(1) if load_balancer::may_begin_with(first[0]) => {
                load_balancer::read_client(socket).await.map(drop).map_err(NoHeader::reason)
            }
            Ok(_) => Ok(()),
            Err(_) => Err("gone"),
        }
    });
    skipped.await.unwrap_or(Err("no_request"))
}

/// An answer of a few words.
pub(crate) fn text(status: http::StatusCode, words: impl Into<String>) -> Response<String> {
    let mut answer = Response::new(words.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
