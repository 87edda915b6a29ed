//! `nameplate plan`: when an import would be done, before it is begun.
//!
//! Arrives: a CSV file, a hostname a line and, if wanted, its tenant. Leaves: the finish, and by registered domain what holds it up, from
//! the ledger's own rules played through in memory. Goes wrong: a line that is no hostname, told with its number; nothing is registered.

use std::{collections::BTreeMap, path::Path};

use domains::{
    Hostname, TenantId, Timestamp,
    ledger::{CaLimits, Forecast, MemoryLedger, forecast},
};
use http::Method;
use register_domain::LimitsView;
use serde_json::json;

use crate::{config::Config, domain::Remote, failure::Failure, files, screen::Screen};

/// How many registered domains are shown to people.
const SHOWN: usize = 20;

/// How many registered domains the API is asked about at once.
const ASKED: usize = 50;

pub(crate) async fn run(file: &Path, is_fresh: bool, config: &Config, now: Timestamp, screen: &Screen) -> Result<(), Failure> {
    let text = files::read(file).map_err(|error| Failure::failed(error.to_string(), "check the path"))?;
    let text = text.ok_or_else(|| Failure::failed(format!("{} does not exist", file.display()), "name a CSV file"))?;
    let names = read(&text).map_err(|problems| Failure::failed(problems.join("\n  "), "mend these lines; nothing was registered"))?;
    let limits = config.acme_limits.at(config.acme.directory.as_deref());
    let (ledger, is_current) = match is_fresh {
        true => (MemoryLedger::default(), false),
        false => standing_or_fresh(&limits, &names, config, now).await?,
    };
    let told = forecast(&limits, ledger, &names, now).map_err(|error| Failure::failed(error.to_string(), "report this"))?;
    show(&told, &limits, is_current, now, screen);
    Ok(())
}

/// The buckets as the running product has them, and whether there is one.
pub(crate) async fn standing_or_fresh(
    limits: &CaLimits,
    names: &[(Hostname, TenantId)],
    config: &Config,
    now: Timestamp,
) -> Result<(MemoryLedger, bool), Failure> {
    match standing(limits, names, config, now).await {
        Ok(ledger) => Ok((ledger, true)),
        // Without a product running there is nothing that was used up.
        Err(failure) if failure.exit_code == 4 => Ok((MemoryLedger::default(), false)),
        Err(failure) => Err(failure),
    }
}

/// The buckets as the running product has them.
async fn standing(limits: &CaLimits, names: &[(Hostname, TenantId)], config: &Config, now: Timestamp) -> Result<MemoryLedger, Failure> {
    let remote = Remote::find(config)?;
    let of_domains: BTreeMap<&str, &Hostname> =
        names.iter().map(|(hostname, _)| (hostname.registered_domain().unwrap_or(hostname.base()), hostname)).collect();
    let hostnames: Vec<&Hostname> = of_domains.into_values().collect();
    let mut items = Vec::new();
    for part in hostnames.chunks(ASKED) {
        let named = part.iter().map(|hostname| hostname.as_str()).collect::<Vec<_>>().join(",");
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("hostnames", &named).finish();
        let answer = remote.ask(Method::GET, &format!("/v1/limits?{query}"), None).await?;
        let view: LimitsView = serde_json::from_value(answer.body)
            .map_err(|error| Failure::failed(format!("the API's answer does not read: {error}"), "use one version of command and API"))?;
        let known: Vec<_> = view.items.iter().map(|ca| ca.ca.clone()).collect();
        let Some(ca) = view.items.into_iter().find(|ca| ca.ca == limits.ca) else {
            return Err(Failure::configuration(format!(
                "the product that answers orders at {}, and by this configuration it would be {}; use the product's own configuration file",
                known.join(" and "),
                limits.ca
            )));
        };
        items.extend(ca.limits.into_iter().map(|limit| (limit.bucket, limit.level.as_item(now))));
    }
    Ok(MemoryLedger::standing_at(items))
}

/// A line is `hostname` or `hostname,tenant`; a first line that says `hostname` is a heading.
fn read(text: &str) -> Result<Vec<(Hostname, TenantId)>, Vec<String>> {
    let (mut names, mut problems) = (Vec::new(), Vec::new());
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let mut fields = line.split([',', ';', '\t']).map(|field| field.trim().trim_matches('"'));
        let (hostname, tenant) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if hostname.is_empty() || hostname.starts_with('#') || (index == 0 && hostname.eq_ignore_ascii_case("hostname")) {
            continue;
        }
        let tenant = if tenant.is_empty() { "default" } else { tenant };
        match (Hostname::parse_name(hostname), TenantId::parse(tenant)) {
            (Ok(hostname), Ok(tenant)) => names.push((hostname, tenant)),
            (Err(error), _) => problems.push(format!("line {}: {error}", index + 1)),
            (_, Err(error)) => problems.push(format!("line {}: {error}", index + 1)),
        }
    }
    if problems.is_empty() { Ok(names) } else { Err(problems) }
}

pub(crate) fn show(told: &Forecast, limits: &CaLimits, is_current: bool, now: Timestamp, screen: &Screen) {
    let seconds = |at: Timestamp| at.duration_since(now).as_secs().max(0);
    if screen.is_json() {
        screen.json(&json!({ "ca": limits.ca, "starts_at": now, "seconds": seconds(told.done_at), "from_current_levels": is_current, "forecast": told }));
        return;
    }
    screen.text(&format!(
        "{} names are ordered within {}, the last at {}",
        told.names,
        screen.strong(&spelled(seconds(told.done_at))),
        told.done_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
    ));
    screen.text(&match &told.bottleneck {
        Some(limit) => format!("  what holds the last one up: {limit}, at {}", limits.ca),
        None => format!("  nothing holds them up at {}", limits.ca),
    });
    screen.text(&match is_current {
        true => "  from what is left of the limits now".to_owned(),
        false => "  from limits of which nothing is used yet".to_owned(),
    });
    for domain in told.domains.iter().take(SHOWN) {
        let held = domain.bottleneck.as_ref().map_or_else(String::new, |limit| format!("  {limit}"));
        screen.text(&format!("  {:<40} {:>6} names  {:>12}{held}", domain.domain, domain.names, spelled(seconds(domain.done_at))));
    }
    if told.domains.len() > SHOWN {
        screen.note(&format!("{} registered domains more are done before; --json shows all.", told.domains.len() - SHOWN));
    }
}

fn spelled(seconds: i64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{:.1} h", seconds as f64 / 3_600.0),
        _ => format!("{:.1} d", seconds as f64 / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_and_without_heading_tenants_and_empty_lines() {
        let names = read("\u{feff}Hostname,Tenant\nshop.brand.com,acme\n\n# later\n\"www.other.com\"\n*.wide.com;t2\n").unwrap();
        let read: Vec<_> = names.iter().map(|(hostname, tenant)| format!("{hostname} {tenant}")).collect();
        assert_eq!(read, ["shop.brand.com acme", "www.other.com default", "*.wide.com t2"]);
    }

    #[test]
    fn every_bad_line_is_told_with_its_number() {
        let problems = super::read("shop.brand.com\nno hostname\nshop.ok.com,not a tenant!\n").unwrap_err();
        assert!(problems[0].starts_with("line 2: ") && problems[1].starts_with("line 3: "), "{problems:?}");
    }
}
