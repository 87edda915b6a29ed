//! `nameplate ask`: the secret path for a Caddy that still serves some of the names.
//!
//! Arrives: nothing, or the wish for a new secret. Leaves: the path, and the lines of a Caddyfile. Goes wrong: whatever the API refuses.

use clap::Args;
use http::Method;
use register_domain::AskView;
use serde_json::json;

use crate::{config::Config, domain::Remote, failure::Failure, screen::Screen};

#[derive(Args)]
pub(crate) struct AskCommand {
    /// Make a new secret; the old path answers for a few seconds more.
    #[arg(long)]
    rotate: bool,
}

pub(crate) async fn run(command: AskCommand, config: &Config, screen: &Screen) -> Result<(), Failure> {
    let remote = Remote::find(config)?;
    let view: AskView = match command.rotate {
        true => remote.read(Method::POST, "/v1/ask/rotate").await?,
        false => remote.read(Method::GET, "/v1/ask").await?,
    };
    let url = format!("{}{}", remote.url(), view.path);
    if screen.is_json() {
        screen.json(&json!({ "url": url, "path": view.path, "secret": view.secret, "made_at": view.made_at }));
        return Ok(());
    }
    screen.text(&format!("{{\n\ton_demand_tls {{\n\t\task {url}\n\t}}\n}}"));
    screen
        .note("Next: put this at the top of the Caddyfile and reload Caddy. It then gets certificates for names that are owned here only.");
    Ok(())
}
