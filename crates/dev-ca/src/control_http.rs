//! The control listener: what [`Control`] can do, as JSON over plain HTTP on loopback.
//!
//! Arrives: requests from tests and tools on this machine. Leaves: JSON. Goes wrong: unreadable JSON (400), unknown paths (404) and
//! methods (405), each as a problem document that says what is understood.
//!
//! | request | body | does |
//! |---|---|---|
//! | `GET /counters` | | [`Control::counters`] |
//! | `GET /certificates` | | [`Control::certificates`] |
//! | `GET /faults` | | [`Control::faults`] |
//! | `POST /faults` | a [`Fault`] or a list of them | [`Control::fault`] |
//! | `DELETE /faults` | | [`Control::clear_faults`] |
//! | `GET /settings` | | [`Control::settings`] |
//! | `PUT /settings` | any of its fields | changes those |
//! | `PUT /renewal-windows` | `{"chosen": …, "window": {"start": …, "end": …}}` or `{"chosen": …, "now": true}` | [`Control::set_window`], [`Control::renew_now`] |
//! | `DELETE /renewal-windows` | | [`Control::reset_window`] for all |
//!
//! `chosen` is `"all"`, `{"name": hostname}` or `{"certificate": ARI identifier}`.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::control::{Chosen, Control, Fault, SettingsChange};
use crate::orders::Window;
use crate::problem::{Kind, Problem};
use crate::server::{ConnectionLost, Handler};

/// The control side of the CA, as a handler of requests.
pub(crate) struct ControlHttp(pub(crate) Control);

impl Handler for ControlHttp {
    async fn handle(&self, request: Request<Bytes>) -> Result<Response<Full<Bytes>>, ConnectionLost> {
        Ok(answer(&self.0, &request).unwrap_or_else(|problem| problem.response()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowChange {
    chosen: Chosen,
    window: Option<Window>,
    #[serde(default)]
    now: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unpause {
    name: String,
}

fn answer(control: &Control, request: &Request<Bytes>) -> Result<Response<Full<Bytes>>, Problem> {
    let body = request.body();
    match (request.uri().path(), request.method()) {
        ("/counters", &Method::GET) => Ok(json_response(&control.counters())),
        ("/certificates", &Method::GET) => Ok(json_response(&control.certificates())),
        ("/faults", &Method::GET) => Ok(json_response(&control.faults())),
        ("/faults", &Method::POST) => {
            let faults = match body.trim_ascii_start().first() {
                Some(b'[') => parse::<Vec<Fault>>(body)?,
                _ => vec![parse::<Fault>(body)?],
            };
            faults.into_iter().for_each(|fault| control.fault(fault));
            Ok(json_response(&control.faults()))
        }
        ("/faults", &Method::DELETE) => {
            control.clear_faults();
            Ok(json_response(&control.faults()))
        }
        ("/settings", &Method::GET) => Ok(json_response(&control.settings())),
        ("/settings", &Method::PUT) => {
            control.change(&parse::<SettingsChange>(body)?);
            Ok(json_response(&control.settings()))
        }
        ("/limits", &Method::GET) => Ok(json_response(&control.limits())),
        ("/limits", &Method::PUT) => {
            control.set_limits(parse(body)?);
            Ok(json_response(&control.limits()))
        }
        ("/unpause", &Method::POST) => {
            let Unpause { name } = parse(body)?;
            Ok(json_response(&json!({ "accounts": control.unpause(&name) })))
        }
        ("/renewal-windows", &Method::PUT) => {
            let change: WindowChange = parse(body)?;
            let certificates = match (change.window, change.now) {
                (Some(window), false) if window.start < window.end => control.set_window(&change.chosen, window),
                (None, true) => control.renew_now(&change.chosen),
                _ => return Err(Problem::malformed("give either a `window` whose start is before its end, or `now: true`")),
            };
            Ok(json_response(&json!({ "certificates": certificates })))
        }
        ("/renewal-windows", &Method::DELETE) => Ok(json_response(&json!({ "certificates": control.reset_window(&Chosen::All) }))),
        (path @ ("/counters" | "/certificates" | "/faults" | "/settings" | "/limits" | "/unpause" | "/renewal-windows"), method) => {
            Err(Problem::new(Kind::MethodNotAllowed, format!("{method} is not understood at {path}")))
        }
        (path, _) => Err(Problem::not_found(format!(
            "there is no {path}; try /counters, /certificates, /faults, /settings, /limits, /unpause or /renewal-windows"
        ))),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::malformed(format!("the body is not understood: {error}")))
}

fn json_response(value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("what the control interface shows is plain data");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
