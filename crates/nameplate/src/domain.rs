//! `nameplate domains`: the API from a terminal.
//!
//! Arrives: a hostname and what to do. Leaves: what the API says, as people read it or as JSON. Goes wrong: whatever the API refuses, with
//! its code and a next step; a wait that takes too long.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use register_domain::{DomainView, Due};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    client::{self, Answer, ClientError},
    config::Config,
    explain,
    failure::Failure,
    files::{self, Endpoints},
    screen::Screen,
};

/// How often a waiting command asks.
const ASK_EVERY: Duration = Duration::from_millis(300);

#[derive(Subcommand)]
pub(crate) enum DomainCommand {
    /// Registers a hostname for a tenant and prints the DNS records to create.
    Add {
        /// The hostname, such as shop.customer-brand.com.
        hostname: String,
        /// The tenant the domain is for.
        #[arg(long, default_value = "default")]
        tenant: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Lists domains.
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        /// Only those in this state.
        #[arg(long)]
        state: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Shows one domain: state, records, what stands in its way.
    Show {
        /// The hostname.
        hostname: String,
        /// Its tenant, where several claim it.
        #[arg(long)]
        tenant: Option<String>,
        /// Show what happened to it, too.
        #[arg(long)]
        history: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Replays the last looks at the domain's DNS: every question, every server's answer, and what follows from them.
    Explain {
        /// The hostname.
        hostname: String,
        /// Its tenant, where several claim it.
        #[arg(long)]
        tenant: Option<String>,
        /// Every look that was kept, not only the last.
        #[arg(long)]
        all: bool,
    },
    /// Looks at the domain's DNS now.
    Check {
        /// The hostname.
        hostname: String,
        /// Its tenant, where several claim it.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Takes a domain out of service; its proof and certificate are kept.
    Suspend {
        /// The hostname.
        hostname: String,
        /// Its tenant, where several claim it.
        #[arg(long)]
        tenant: Option<String>,
        /// Why; shown with the domain and in its history.
        #[arg(long)]
        reason: String,
    },
    /// Brings a suspended domain back into service.
    Resume {
        /// The hostname.
        hostname: String,
        /// Its tenant, where several claim it.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Sends a domain's requests to one of the origins that the settings name.
    Origin {
        /// The hostname.
        hostname: String,
        /// The origin's name; leave it out for the usual one.
        origin: Option<String>,
        /// Its tenant, where several claim it.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Removes a domain: route, certificate and key.
    Remove {
        /// The hostname.
        hostname: String,
        /// Its tenant, where several claim it.
        #[arg(long)]
        tenant: Option<String>,
        /// Wait until it is gone.
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Args)]
pub(crate) struct Wait {
    /// Wait until the domain is served.
    #[arg(long)]
    wait: bool,
    /// How many seconds to wait at most.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

/// The API and who we are to it.
pub(crate) struct Remote {
    url: String,
    key: String,
}

impl Remote {
    /// From `NAMEPLATE_API` and `NAMEPLATE_API_KEY`, or from the data folder of a `nameplate dev`.
    pub(crate) fn find(config: &Config) -> Result<Self, Failure> {
        let unreadable = |error: files::FileError| Failure::failed(error.to_string(), "check the folder's permissions");
        let url = match std::env::var("NAMEPLATE_API") {
            Ok(url) => url,
            Err(_) => Endpoints::load(&config.data)
                .map_err(unreadable)?
                .map_or_else(|| format!("http://{}", config.listen.api), |known| known.api),
        };
        let key = match std::env::var("NAMEPLATE_API_KEY") {
            Ok(key) => key,
            Err(_) => files::read(&files::operator_key_path(&config.data)).map_err(unreadable)?.ok_or_else(|| {
                Failure::unreachable(
                    format!("there is no API key in {}", config.data.display()),
                    "start `nameplate dev` here first, or set NAMEPLATE_API and NAMEPLATE_API_KEY",
                )
            })?,
        };
        Ok(Self { url: url.trim_end_matches('/').to_owned(), key: key.trim().to_owned() })
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let answer = client::exchange(method, &format!("{}{path}", self.url), Some(&self.key), body).await.map_err(unreachable)?;
        if answer.status.is_success() { Ok(answer) } else { Err(refused(&answer)) }
    }

    /// Where the API is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Asks and reads the answer.
    pub(crate) async fn read<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Failure> {
        read(self.ask(method, path, None).await?.body)
    }

    pub(crate) async fn domain(&self, method: Method, hostname: &str, tenant: Option<&str>, tail: &str) -> Result<DomainView, Failure> {
        let answer = self.ask(method, &path(hostname, tenant, tail), None).await?;
        read_domain(answer.body)
    }
}

pub(crate) fn unreachable(error: ClientError) -> Failure {
    Failure::unreachable(error.to_string(), "start it with `nameplate dev`, or check NAMEPLATE_API")
}

fn refused(answer: &Answer) -> Failure {
    let text = |name: &str| answer.body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let hint = match (answer.status, text("code").as_str()) {
        (StatusCode::UNAUTHORIZED, _) => Some("check NAMEPLATE_API_KEY, or the operator.key in the data folder".to_owned()),
        (_, "domain.not_found") => Some("`nameplate domains list` shows what is registered".to_owned()),
        (_, "webhook.not_found") => Some("`nameplate webhooks list` shows them".to_owned()),
        (_, "domain.removed") => Some("`nameplate domains add` registers it anew".to_owned()),
        (_, "request.tenant_missing") => Some("add --tenant".to_owned()),
        (_, "request.invalid_cursor") => Some("leave --after out, or give the cursor with the same --tenant as before".to_owned()),
        (StatusCode::FORBIDDEN, _) => Some("use an operator's API key".to_owned()),
        (StatusCode::TOO_MANY_REQUESTS, _) => Some("wait a few seconds; the domain is looked at by itself, too".to_owned()),
        (StatusCode::SERVICE_UNAVAILABLE, _) => Some("try again; the log of `nameplate dev` says more".to_owned()),
        _ => None,
    };
    Failure::refused(&text("code"), format!("{} ({})", text("detail"), text("code")), hint)
}

fn read_domain(body: Value) -> Result<DomainView, Failure> {
    read(body)
}

pub(crate) fn read<T: DeserializeOwned>(body: Value) -> Result<T, Failure> {
    serde_json::from_value(body)
        .map_err(|error| Failure::failed(format!("the API's answer does not read: {error}"), "use one version of command and API"))
}

fn path(hostname: &str, tenant: Option<&str>, tail: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let query = tenant.map(|tenant| format!("?tenant={}", encode(tenant))).unwrap_or_default();
    format!("/v1/domains/{}{tail}{query}", encode(hostname))
}

pub(crate) async fn run(command: DomainCommand, config: &Config, screen: &Screen) -> Result<(), Failure> {
    let remote = Remote::find(config)?;
    match command {
        DomainCommand::Add { hostname, tenant, wait } => {
            let answer = remote.ask(Method::POST, "/v1/domains", Some(&json!({ "hostname": hostname, "tenant": tenant }))).await?;
            let known = answer.status == StatusCode::OK;
            let domain = read_domain(answer.body)?;
            if !screen.is_json() {
                let word = if known { "Already registered:" } else { "Registered" };
                screen.text(&format!("{} {} for tenant {}", screen.good(word), domain.hostname, domain.tenant));
                screen.text(&to_do(&domain, screen));
            }
            finish(&remote, domain, &wait, screen, !wait.wait).await
        }
        DomainCommand::Show { hostname, tenant, history, wait } => {
            let domain = remote.domain(Method::GET, &hostname, tenant.as_deref(), "").await?;
            let entries = if history {
                Some(remote.ask(Method::GET, &path(&hostname, tenant.as_deref(), "/history"), None).await?.body)
            } else {
                None
            };
            if let (Some(entries), true) = (&entries, screen.is_json()) {
                screen.json(&json!({ "domain": domain, "history": entries.get("items") }));
                return Ok(());
            }
            if !wait.wait {
                show(&domain, screen);
            }
            for entry in entries.as_ref().and_then(|body| body.get("items")).and_then(Value::as_array).into_iter().flatten() {
                let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
                screen.text(&format!("  {}  {:<24} {} {}", text("at"), text("event"), text("code"), text("detail")));
            }
            finish(&remote, domain, &wait, screen, false).await
        }
        DomainCommand::Explain { hostname, tenant, all } => {
            let answer = remote.ask(Method::GET, &path(&hostname, tenant.as_deref(), "/looks"), None).await?;
            explain::show(answer.body, all, screen)
        }
        DomainCommand::Check { hostname, tenant, wait } => {
            let domain = remote.domain(Method::POST, &hostname, tenant.as_deref(), "/check").await?;
            screen.note("DNS is being looked at now.");
            finish(&remote, domain, &wait, screen, screen.is_json()).await
        }
        DomainCommand::Suspend { hostname, tenant, reason } => {
            let path = path(&hostname, tenant.as_deref(), "/suspend");
            let domain = read_domain(remote.ask(Method::POST, &path, Some(&json!({ "reason": reason }))).await?.body)?;
            if screen.is_json() {
                screen.json(&json!(domain));
            } else {
                screen.text(&format!("{} {}; the edge refuses it within seconds", screen.attention("Suspended"), domain.hostname));
                screen.note(&format!("Next: `nameplate domains resume {}` brings it back with the certificate it has.", domain.hostname));
            }
            Ok(())
        }
        DomainCommand::Resume { hostname, tenant, wait } => {
            let domain = remote.domain(Method::POST, &hostname, tenant.as_deref(), "/resume").await?;
            screen.note("It is on its way back into service.");
            finish(&remote, domain, &wait, screen, true).await
        }
        DomainCommand::Origin { hostname, origin, tenant } => {
            let path = path(&hostname, tenant.as_deref(), "/origin");
            let domain = read_domain(remote.ask(Method::PUT, &path, Some(&json!({ "origin": origin }))).await?.body)?;
            if screen.is_json() {
                screen.json(&json!(domain));
            } else {
                let to = domain.origin.as_deref().map_or_else(|| "the usual origin".to_owned(), |origin| format!("the origin {origin}"));
                screen.text(&format!("{} {} go to {to} within seconds", screen.good("Requests for"), domain.hostname));
            }
            Ok(())
        }
        DomainCommand::Remove { hostname, tenant, wait } => {
            let mut domain = remote.domain(Method::DELETE, &hostname, tenant.as_deref(), "").await?;
            let started = Instant::now();
            while wait && domain.state != domains::StateName::Removed {
                if started.elapsed() > Duration::from_secs(60) {
                    return Err(Failure::gave_up("the domain is still being taken down", "`nameplate domains show` tells when it is gone"));
                }
                tokio::time::sleep(ASK_EVERY).await;
                domain = remote.domain(Method::GET, &domain.hostname, Some(&domain.tenant), "").await?;
            }
            if screen.is_json() {
                screen.json(&json!(domain));
            } else {
                let gone = domain.state == domains::StateName::Removed;
                let word = if gone { "Removed" } else { "Removal has begun:" };
                screen.text(&format!("{} {}; its DNS records may go now", screen.good(word), domain.hostname));
            }
            Ok(())
        }
        DomainCommand::List { tenant, state, limit } => list(&remote, tenant, state, limit, screen).await,
    }
}

async fn list(remote: &Remote, tenant: Option<String>, state: Option<String>, limit: usize, screen: &Screen) -> Result<(), Failure> {
    let mut found: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    while found.len() < limit {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &(limit - found.len()).min(200).to_string());
        for (name, value) in [("tenant", &tenant), ("state", &state), ("cursor", &cursor)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let answer = remote.ask(Method::GET, &format!("/v1/domains?{}", query.finish()), None).await?;
        found.extend(answer.body.get("items").and_then(Value::as_array).into_iter().flatten().cloned());
        cursor = answer.body.get("cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if screen.is_json() {
        screen.json(&json!({ "items": found, "more": cursor.is_some() }));
        return Ok(());
    }
    if found.is_empty() {
        screen.note("No domains. `nameplate domains add HOSTNAME` registers one.");
    }
    for item in found {
        let domain = read_domain(item)?;
        let problem = domain.problem.as_ref().map(|problem| problem.code.as_str()).unwrap_or_default();
        screen.text(&format!("{:<40} {:<16} {:<18} {problem}", domain.hostname, domain.tenant, state_word(&domain, screen)));
    }
    if cursor.is_some() {
        screen.note("There are more; raise --limit.");
    }
    Ok(())
}

async fn finish(remote: &Remote, domain: DomainView, wait: &Wait, screen: &Screen, print: bool) -> Result<(), Failure> {
    if !wait.wait {
        if print && screen.is_json() {
            screen.json(&json!(domain));
        }
        return Ok(());
    }
    let started = Instant::now();
    let mut domain = domain;
    let mut said = String::new();
    while !domain.ready {
        if domain.state == domains::StateName::Removed {
            return Err(Failure::failed(
                format!("{} was removed meanwhile", domain.hostname),
                "`nameplate domains show --history` tells why",
            ));
        }
        if started.elapsed().as_secs() >= wait.timeout {
            let hint =
                domain.problem.as_ref().map_or_else(|| "`nameplate domains show` tells more".to_owned(), |problem| problem.action.clone());
            return Err(Failure::gave_up(format!("{} is not served after {} s", domain.hostname, wait.timeout), hint));
        }
        let line = match &domain.problem {
            Some(problem) => format!("{}: {} (saw: {})", domain.state.as_str(), problem.action, problem.saw),
            None => domain.state.as_str().to_owned(),
        };
        if line != said {
            screen.progress(&line);
            said = line;
        }
        tokio::time::sleep(ASK_EVERY).await;
        domain = remote.domain(Method::GET, &domain.hostname, Some(&domain.tenant), "").await?;
    }
    screen.end_progress();
    if screen.is_json() {
        screen.json(&json!(domain));
    } else {
        screen.text(&format!("{} {} after {:.1} s", screen.good("Served:"), domain.hostname, started.elapsed().as_secs_f64()));
    }
    Ok(())
}

fn state_word(domain: &DomainView, screen: &Screen) -> String {
    let word = domain.state.as_str();
    match (domain.ready, &domain.problem) {
        (_, Some(_)) => screen.attention(word),
        (true, None) => screen.good(word),
        (false, None) => word.to_owned(),
    }
}

fn show(domain: &DomainView, screen: &Screen) {
    if screen.is_json() {
        screen.json(&json!(domain));
        return;
    }
    screen.text(&format!(
        "{}  {} (tenant {}, since {})",
        screen.strong(&domain.hostname),
        state_word(domain, screen),
        domain.tenant,
        domain.since
    ));
    if let Some(problem) = &domain.problem {
        screen.text(&format!(
            "  {}  {:?} must act: {}\n    about     {}\n    expected  {}\n    saw       {}\n    since {}{}, next look {}",
            screen.attention(problem.code.as_str()),
            problem.actor,
            problem.action,
            problem.about,
            problem.expected,
            problem.saw,
            problem.since,
            problem.waits_since.filter(|waits| *waits < problem.since).map_or_else(String::new, |waits| format!(", waiting since {waits}")),
            problem.next_look
        ));
    }
    if let Some(suspension) = &domain.suspension {
        screen.text(&format!("  {} since {}: {}", screen.attention("suspended"), suspension.since, suspension.reason));
    }
    if let Some(origin) = &domain.origin {
        screen.text(&format!("  origin {origin}"));
    }
    if let Some(at_risk) = &domain.at_risk {
        screen.text(&format!(
            "  at risk since {}, looked at often until {}; served until its certificate ends",
            at_risk.since, at_risk.grace_ends
        ));
    }
    if let Some(certificate) = &domain.certificate {
        screen.text(&format!(
            "  certificate {} until {}, renewed from {}",
            certificate.serial, certificate.not_after, certificate.renewal_due
        ));
    }
    if !domain.records.is_empty() {
        screen.text(&to_do(domain, screen));
    }
}

fn to_do(domain: &DomainView, screen: &Screen) -> String {
    let mut lines = vec!["  DNS records:".to_owned()];
    for record in &domain.records {
        let seen = match record.seen {
            Some(true) => screen.good("seen"),
            _ if record.due == Due::OnceServed => "not yet: once the edge serves it".to_owned(),
            Some(false) => screen.attention("not seen"),
            None => "not looked yet".to_owned(),
        };
        lines.push(format!("    {}  {:<5} {}   ({seen})", record.name, record.record_type, record.value));
    }
    if domain.records.iter().any(|record| record.due == Due::Now && record.seen != Some(true)) {
        lines.push(format!("  next: create them at the DNS provider; for `nameplate dev`: nameplate dns set {}", domain.hostname));
    }
    lines.join("\n")
}
