//! `nameplate doctor`: what goes wrong in practice, each with what to do.
//!
//! Arrives: the configuration, or why it does not read. Leaves: one line a check: fine, worth a look, or failed, and then what to do. Goes
//! wrong: a check that fails, which makes the exit code 1. It changes nothing, and may run beside the product.

mod dns;
mod machine;
mod ports;

use std::sync::Arc;

use domains::{Clock, SystemClock};
use serde_json::json;

use crate::{config::Config, failure::Failure, files::Endpoints, screen::Screen};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// Not wrong yet, or not to be told from here.
    Look,
    Failed,
}

/// One check.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) what: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) saw: String,
    pub(crate) hint: Option<String>,
}

impl Check {
    pub(crate) fn fine(what: &'static str, saw: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Fine, saw: saw.into(), hint: None }
    }

    pub(crate) fn look(what: &'static str, saw: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Look, saw: saw.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn failed(what: &'static str, saw: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Failed, saw: saw.into(), hint: Some(hint.into()) }
    }
}

pub(crate) async fn run(config: Result<Config, Failure>, screen: &Screen) -> Result<(), Failure> {
    let checks = match config {
        Err(failure) => {
            vec![Check::failed("configuration", failure.message, "mend these keys; `nameplate config --serve` prints them all")]
        }
        Ok(config) => examine(&config).await,
    };
    show(&checks, screen);
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!("{failed} of {} checks failed", checks.len()), "each says above what to do"))
}

async fn examine(config: &Config) -> Vec<Check> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut checks = vec![Check::fine("configuration", "every key reads")];
    checks.extend(machine::data_folder(config));
    // What a product says of itself is believed while its process is there.
    let running = Endpoints::load(&config.data).ok().flatten().filter(|endpoints| machine::is_alive(endpoints.pid));
    checks.extend(ports::check(config, running.as_ref()).await);
    checks.extend(machine::accounts(config, &clock).await);
    checks.extend(dns::check(config, running.as_ref()).await);
    checks.extend(machine::edge(config, running.as_ref()).await);
    checks.extend(machine::store(config, clock.now(), running.is_some()));
    checks
}

fn show(checks: &[Check], screen: &Screen) {
    if screen.is_json() {
        let list: Vec<_> = checks
            .iter()
            .map(|check| {
                let verdict = match check.verdict {
                    Verdict::Fine => "fine",
                    Verdict::Look => "look",
                    Verdict::Failed => "failed",
                };
                json!({ "check": check.what, "verdict": verdict, "saw": check.saw, "hint": check.hint })
            })
            .collect();
        screen.json(&json!({ "checks": list }));
        return;
    }
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Fine => screen.good("fine  "),
            Verdict::Look => screen.attention("look  "),
            Verdict::Failed => screen.strong("FAILED"),
        };
        screen.text(&format!("{verdict}  {:<18} {}", check.what, check.saw));
        if let Some(hint) = &check.hint {
            screen.text(&format!("        {:<18} next: {hint}", ""));
        }
    }
}
