//! `nameplate events`: what happened, from a terminal.
//!
//! Arrives: a cursor, or none. Leaves: events, and the cursor to go on from. Goes wrong: a cursor of another feed, an API that does not
//! answer.

use std::time::Duration;

use clap::Args;
use http::Method;
use register_domain::EventPageView;
use serde_json::json;

use crate::{config::Config, domain::Remote, failure::Failure, screen::Screen};

/// How often a following command asks.
const ASK_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct EventsCommand {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<String>,
    /// Only what came after this cursor, which an earlier call printed.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// At most this many; with --follow, no end.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Go on waiting for more, until Ctrl-C. With --json, one event a line.
    #[arg(long)]
    follow: bool,
}

pub(crate) async fn run(command: EventsCommand, config: &Config, screen: &Screen) -> Result<(), Failure> {
    let remote = Remote::find(config)?;
    let EventsCommand { tenant, after, limit, follow } = command;
    let mut cursor = after;
    let mut found = Vec::new();
    loop {
        let left = if follow { 200 } else { limit - found.len() };
        let page = page(&remote, tenant.as_deref(), cursor.as_deref(), left.clamp(1, 200)).await?;
        for event in &page.items {
            if !screen.is_json() {
                let code = event.code.as_deref().unwrap_or_default();
                let detail = event.detail.as_deref().unwrap_or_default();
                screen.text(&format!(
                    "{}  {:<32} {:<12} {:<24} {code} {detail}",
                    event.at, event.key.hostname, event.key.tenant, event.event
                ));
            } else if follow {
                screen.json(&json!(event));
            }
        }
        cursor = Some(page.cursor);
        if follow {
            if !page.more {
                tokio::time::sleep(ASK_EVERY).await;
            }
            continue;
        }
        found.extend(page.items);
        if !page.more || found.len() >= limit {
            let cursor = cursor.unwrap_or_default();
            if screen.is_json() {
                screen.json(&json!({ "items": found, "cursor": cursor, "more": page.more }));
            } else {
                let nothing = if found.is_empty() { "Nothing happened yet. " } else { "" };
                screen.note(&format!("{nothing}What comes next: nameplate events --after {cursor}"));
            }
            return Ok(());
        }
    }
}

async fn page(remote: &Remote, tenant: Option<&str>, after: Option<&str>, limit: usize) -> Result<EventPageView, Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    for (name, value) in [("tenant", tenant), ("after", after)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    remote.read(Method::GET, &format!("/v1/events?{}", query.finish())).await
}
