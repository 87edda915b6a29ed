//! `nameplate webhooks`: who is told what happens, from a terminal.
//!
//! Arrives: an endpoint's URL, or the id it was given. Leaves: the endpoint, its secret this once, how far it was told. Goes wrong: what the
//! API refuses; a test message that the endpoint does not take.

use std::time::{Duration, Instant};

use clap::Subcommand;
use http::Method;
use register_domain::{WebhookPage, WebhookSecretView, WebhookStatus, WebhookView};
use serde_json::json;

use crate::{config::Config, domain::Remote, failure::Failure, screen::Screen};

/// How often a waiting command asks, and how long a test waits: an endpoint may take a quarter of a minute to answer.
const ASK_EVERY: Duration = Duration::from_millis(300);
const TEST_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Subcommand)]
pub(crate) enum WebhooksCommand {
    /// Registers an endpoint and prints its secret, which is not shown again.
    Add {
        /// Where events are sent: https, a host on the public internet.
        url: String,
        /// Only this event; repeat it for more.
        #[arg(long = "event", value_name = "EVENT")]
        events: Vec<String>,
        /// Only this tenant's events.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Lists the endpoints.
    List,
    /// Shows an endpoint: last success, backlog, dead letters.
    Show {
        /// Its id.
        id: String,
    },
    /// Removes an endpoint and its dead letters.
    Remove {
        /// Its id.
        id: String,
    },
    /// Makes a new secret and prints it; for a day deliveries carry the signatures of both.
    Rotate {
        /// Its id.
        id: String,
    },
    /// Sends a test message and says what came of it.
    Test {
        /// Its id.
        id: String,
    },
    /// Enables an endpoint, and sends it dead letters and whatever waits at once.
    Redeliver {
        /// Its id.
        id: String,
    },
}

pub(crate) async fn run(command: WebhooksCommand, config: &Config, screen: &Screen) -> Result<(), Failure> {
    let remote = Remote::find(config)?;
    match command {
        WebhooksCommand::Add { url, events, tenant } => {
            let body = json!({ "url": url, "events": events, "tenant": tenant });
            let answer = remote.ask(Method::POST, "/v1/webhooks", Some(&body)).await?;
            show_secret(&crate::domain::read(answer.body)?, screen);
        }
        WebhooksCommand::List => {
            let page: WebhookPage = remote.read(Method::GET, "/v1/webhooks").await?;
            if screen.is_json() {
                screen.json(&json!(page));
                return Ok(());
            }
            if page.items.is_empty() {
                screen.note("No webhooks. `nameplate webhooks add URL` registers one.");
            }
            page.items.iter().for_each(|webhook| screen.text(&line(webhook)));
        }
        WebhooksCommand::Show { id } => show(&remote.read(Method::GET, &path(&id, "")).await?, screen),
        WebhooksCommand::Remove { id } => {
            remote.ask(Method::DELETE, &path(&id, ""), None).await?;
            screen.note("Removed.");
        }
        WebhooksCommand::Rotate { id } => show_secret(&remote.read(Method::POST, &path(&id, "/rotate")).await?, screen),
        WebhooksCommand::Test { id } => return test(&remote, &id, screen).await,
        WebhooksCommand::Redeliver { id } => {
            let status: WebhookStatus = remote.read(Method::POST, &path(&id, "/redeliver")).await?;
            show(&status, screen);
            screen.note("What waits and what was given up is sent within seconds; `nameplate webhooks show` says how it went.");
        }
    }
    Ok(())
}

fn path(id: &str, tail: &str) -> String {
    format!("/v1/webhooks/{}{tail}", form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>())
}

fn line(webhook: &WebhookView) -> String {
    let events = if webhook.events.is_empty() { "all events".to_owned() } else { webhook.events.join(",") };
    format!("{}  {}  {}  {events}", webhook.id, webhook.url, webhook.tenant.as_deref().unwrap_or("every tenant"))
}

fn show_secret(made: &WebhookSecretView, screen: &Screen) {
    if screen.is_json() {
        screen.json(&json!(made));
        return;
    }
    screen.text(&line(&made.webhook));
    screen.text(&format!("  secret  {}", screen.strong(&made.secret)));
    screen.note("Give the secret to the receiver now; it is not shown again. Any Standard Webhooks library verifies with it.");
}

fn show(status: &WebhookStatus, screen: &Screen) {
    if screen.is_json() {
        screen.json(&json!(status));
        return;
    }
    screen.text(&line(&status.webhook));
    let taken = status.last_success.map_or_else(|| "nothing was taken yet".to_owned(), |at| format!("last taken {at}"));
    screen.text(&format!("  {} events done with, {taken}", status.sequence));
    let more = if status.backlog_more { " or more" } else { "" };
    let next = status.next_attempt.map_or_else(String::new, |at| format!(", next attempt ({}) {at}", status.attempts + 1));
    screen.text(&format!("  {}{more} wait{next}", status.backlog));
    if let Some(disabled) = &status.disabled {
        screen.text(&format!("  {} since {}: {}", screen.attention("disabled"), disabled.at, disabled.why));
        screen.note("`nameplate webhooks redeliver` enables it.");
    } else if let Some(failure) = &status.last_failure {
        screen.text(&format!("  last failure {}: {}", failure.at, failure.why));
    }
    for letter in &status.dead_letters {
        screen.text(&format!(
            "  dead letter {:>6}  {} {}  after {} attempts: {}",
            letter.sequence, letter.event, letter.hostname, letter.attempts, letter.failure.why
        ));
    }
    if status.dead_letters_more {
        screen.note("There are more dead letters; `nameplate webhooks redeliver` sends all of them again.");
    }
}

async fn test(remote: &Remote, id: &str, screen: &Screen) -> Result<(), Failure> {
    let before: WebhookStatus = remote.read(Method::POST, &path(id, "/test")).await?;
    let started = Instant::now();
    loop {
        let status: WebhookStatus = remote.read(Method::GET, &path(id, "")).await?;
        if let Some(tested) = status.last_test.filter(|tested| before.last_test.as_ref() != Some(tested)) {
            if screen.is_json() {
                screen.json(&json!({ "id": id, "last_test": tested }));
            }
            return match tested.failure {
                None => {
                    screen.note("The endpoint took the test message.");
                    Ok(())
                }
                Some(why) => Err(Failure::failed(format!("the endpoint did not take the test message: {why}"), "mend it and test again")),
            };
        }
        if started.elapsed() > TEST_PATIENCE {
            return Err(Failure::gave_up(
                "the test message was not sent",
                "the log of the deliverer says more; is `webhooks.interval` set?",
            ));
        }
        screen.progress("The test message is on its way…");
        tokio::time::sleep(ASK_EVERY).await;
    }
}
