//! A Lambda environment on this machine: a function's real program, asked through the runtime API.
//!
//! Arrives: a program's name and environment; then events. Leaves: what the function answers, or the error it reports. Goes wrong: a program
//! that ends or does not answer in time is a panic that names its log.
//!
//! Source: the runtime API, docs.aws.amazon.com/lambda, version 2018-06-01 (read 2026-11).

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot},
};

use crate::process::{Process, binary};

/// How long an invocation may take, as the function is told.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a function answered; `Err` holds what it reported as its error.
pub type Invoked = Result<Value, Value>;

/// A function's environment; its program is killed when it is dropped.
#[derive(Debug)]
pub struct Lambda {
    name: &'static str,
    service: Arc<Service>,
    process: Process,
}

/// What Lambda knows of one environment.
#[derive(Debug, Default)]
struct Service {
    waiting: Mutex<VecDeque<(String, Value)>>,
    arrived: Notify,
    answers: Mutex<HashMap<String, oneshot::Sender<Invoked>>>,
    invoked: Mutex<u64>,
}

impl Lambda {
    /// Starts the program called `name` with this environment and nothing else of the function's.
    pub async fn start(name: &'static str, environment: &[(String, String)], folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let service = Arc::new(Service::default());
        tokio::spawn(serve(listener, service.clone()));
        let mut environment = environment.to_vec();
        for (key, value) in [
            ("AWS_LAMBDA_RUNTIME_API", address.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", name.to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
        ] {
            environment.push((key.to_owned(), value));
        }
        let process = Process::start(&binary(name), &[], &environment, folder);
        Self { name, service, process }
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Waits until its program has ended by itself; `false` when it has not within the time.
    pub async fn ended(&mut self, within: Duration) -> bool {
        self.process.ended(within).await
    }

    /// Invokes the function with an event.
    pub async fn invoke(&self, event: Value) -> Invoked {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut invoked = locked(&self.service.invoked);
            *invoked += 1;
            format!("00000000-0000-4000-8000-{:012}", *invoked)
        };
        locked(&self.service.answers).insert(id.clone(), answer);
        locked(&self.service.waiting).push_back((id, event));
        self.service.arrived.notify_one();
        let answered = tokio::time::timeout(TIMEOUT, answered).await;
        let answered =
            answered.unwrap_or_else(|_| panic!("{} does not answer in {TIMEOUT:?}; its log is {}", self.name, self.log().display()));
        answered.unwrap_or_else(|_| panic!("{} ended; its log is {}", self.name, self.log().display()))
    }

    /// The same, given that the function reports no error.
    pub async fn answer(&self, event: Value) -> Value {
        self.invoke(event).await.unwrap_or_else(|error| panic!("{} failed: {error}; its log is {}", self.name, self.log().display()))
    }
}

async fn serve(listener: TcpListener, service: Arc<Service>) {
    while let Ok((connection, _)) = listener.accept().await {
        let service = service.clone();
        let handler = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.handle(request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), handler));
    }
}

impl Service {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["2018-06-01", "runtime", "invocation", "next"] => self.next().await,
            ["2018-06-01", "runtime", "invocation", id, "response"] => self.settle(id, Ok(json(&body))),
            ["2018-06-01", "runtime", "invocation", id, "error"] => self.settle(id, Err(json(&body))),
            ["2018-06-01", "runtime", "init", "error"] => plain(StatusCode::ACCEPTED),
            _ => plain(StatusCode::NOT_FOUND),
        }
    }

    async fn next(&self) -> Response<Full<Bytes>> {
        let (id, event) = loop {
            let arrived = self.arrived.notified();
            if let Some(next) = locked(&self.waiting).pop_front() {
                break next;
            }
            arrived.await;
        };
        let deadline = UNIX_EPOCH.elapsed().unwrap_or_default() + TIMEOUT;
        let response = Response::builder()
            .header("Lambda-Runtime-Aws-Request-Id", id)
            .header("Lambda-Runtime-Deadline-Ms", deadline.as_millis().to_string())
            .header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:123456789012:function:under-test")
            .header("Lambda-Runtime-Trace-Id", "Root=1-00000000-000000000000000000000000")
            .header("Content-Type", "application/json");
        response.body(Full::new(Bytes::from(event.to_string()))).expect("a response of constants")
    }

    fn settle(&self, id: &str, answer: Invoked) -> Response<Full<Bytes>> {
        match locked(&self.answers).remove(id) {
            Some(waiting) => {
                // Whoever invoked it may have given up.
                let _ = waiting.send(answer);
                plain(StatusCode::ACCEPTED)
            }
            None => plain(StatusCode::BAD_REQUEST),
        }
    }
}

fn json(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
