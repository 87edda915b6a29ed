//! `nameplate import`: many hostnames at once, from a file or from a Caddy.
//!
//! Arrives: CSV, one JSON object a line, or the folder in which a Caddy keeps its certificates, of which the names are taken and nothing
//! else. Leaves: imports at the API, followed until every line was taken; repeating it does no harm. Goes wrong: lines that are refused,
//! each told with its number in the file; the exit code says whether there were any.

use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use domains::{Hostname, TenantId, Timestamp, ledger::forecast};
use http::Method;
use register_domain::{ImportSummary, ImportView, Line, MAX_IMPORT_LINES, Refusal, RefusedLine};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    client::Answer,
    config::Config,
    domain::{self, Remote},
    failure::Failure,
    files, plan,
    screen::Screen,
};

/// How often a waiting command asks.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// How long one part may wait for a place among the open imports.
const OPEN_PATIENCE: Duration = Duration::from_secs(3600);
/// How many bytes of lines one request carries; the API takes more, and writes some of it longer.
const REQUEST_BYTES: usize = 128 * 1024;
/// How many refused lines people are shown.
const SHOWN: usize = 50;

#[derive(Args)]
pub(crate) struct ImportCommand {
    /// A CSV file (hostname,tenant), NDJSON ({"hostname": …, "tenant": …} a line), or - for standard input.
    #[arg(required_unless_present = "from_caddy", conflicts_with = "from_caddy")]
    file: Option<PathBuf>,
    /// A Caddy's storage folder: the names it has certificates for are imported, not the certificates.
    #[arg(long, value_name = "FOLDER")]
    from_caddy: Option<PathBuf>,
    /// The tenant of lines that name none.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Only say what would be refused, and when the rest would be done; register nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A line and where it stood.
struct Numbered {
    number: usize,
    line: Line,
}

pub(crate) async fn run(command: ImportCommand, config: &Config, now: Timestamp, screen: &Screen) -> Result<(), Failure> {
    let (lines, unreadable) = match (&command.from_caddy, &command.file) {
        (Some(folder), _) => (names_of_caddy(folder, &command.tenant)?, Vec::new()),
        (None, Some(file)) => read(&load(file)?, &command.tenant),
        (None, None) => (Vec::new(), Vec::new()),
    };
    if lines.is_empty() && unreadable.is_empty() {
        return Err(Failure::failed("there is nothing to import", "name a file with a hostname a line"));
    }
    match command.dry_run {
        true => dry_run(&lines, unreadable, config, now, screen).await,
        false => import(&lines, unreadable, config, screen).await,
    }
}

fn load(file: &Path) -> Result<String, Failure> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        return read.map(|_| text).map_err(|error| Failure::failed(format!("standard input: {error}"), "send UTF-8 text"));
    }
    let text = files::read(file).map_err(|error| Failure::failed(error.to_string(), "check the path"))?;
    text.ok_or_else(|| Failure::failed(format!("{} does not exist", file.display()), "name a CSV or NDJSON file"))
}

/// Reads lines of CSV or NDJSON, told apart line by line; a first line that says `hostname` is a heading. Lines that are neither come back
/// as refused.
fn read(text: &str, tenant: &str) -> (Vec<Numbered>, Vec<RefusedLine>) {
    let (mut lines, mut refused) = (Vec::new(), Vec::new());
    for (index, text) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (text, number) = (text.trim(), index + 1);
        let found = match text.starts_with('{') {
            true => match serde_json::from_str::<Line>(text) {
                Ok(line) => line,
                Err(error) => {
                    let (hostname, code) = (text.chars().take(60).collect(), "request.invalid_body".to_owned());
                    refused.push(RefusedLine { line: number, hostname, code, detail: format!("this is no line of NDJSON: {error}") });
                    continue;
                }
            },
            false => {
                let mut fields = text.split([',', ';', '\t']).map(|field| field.trim().trim_matches('"'));
                let (hostname, tenant) = (fields.next().unwrap_or_default(), fields.next().filter(|tenant| !tenant.is_empty()));
                if hostname.is_empty() || hostname.starts_with('#') || (index == 0 && hostname.eq_ignore_ascii_case("hostname")) {
                    continue;
                }
                Line { hostname: hostname.to_owned(), tenant: tenant.map(str::to_owned) }
            }
        };
        let tenant = found.tenant.or_else(|| Some(tenant.to_owned()));
        lines.push(Numbered { number, line: Line { tenant, ..found } });
    }
    (lines, refused)
}

/// The names a Caddy has certificates for: `certificates/<issuer>/<name>/<name>.crt`, a wildcard written as `wildcard_.`.
fn names_of_caddy(folder: &Path, tenant: &str) -> Result<Vec<Numbered>, Failure> {
    let root = folder.join("certificates");
    let failed = |error: std::io::Error| {
        let hint = "name the folder that Caddy's `storage file_system` names, often /var/lib/caddy/.local/share/caddy";
        Failure::failed(format!("{}: {error}", root.display()), hint)
    };
    let mut names = BTreeSet::new();
    for issuer in std::fs::read_dir(&root).map_err(failed)? {
        let issuer = issuer.map_err(failed)?.path();
        if !issuer.is_dir() {
            continue;
        }
        for site in std::fs::read_dir(&issuer).map_err(failed)? {
            let site = site.map_err(failed)?;
            let name = site.file_name().to_string_lossy().into_owned();
            if site.path().join(format!("{name}.crt")).is_file() {
                names.insert(name.replacen("wildcard_.", "*.", 1));
            }
        }
    }
    let line = |hostname| Line { hostname, tenant: Some(tenant.to_owned()) };
    Ok(names.into_iter().enumerate().map(|(index, name)| Numbered { number: index + 1, line: line(name) }).collect())
}

async fn dry_run(
    lines: &[Numbered],
    mut refused: Vec<RefusedLine>,
    config: &Config,
    now: Timestamp,
    screen: &Screen,
) -> Result<(), Failure> {
    let mut names: Vec<(Hostname, TenantId)> = Vec::new();
    for Numbered { number, line } in lines {
        let hostname = Hostname::parse_for_operator(&line.hostname, &config.policy);
        match (hostname, TenantId::parse(line.tenant.as_deref().unwrap_or_default())) {
            (Ok(hostname), Ok(tenant)) => names.push((hostname, tenant)),
            (Err(error), _) => {
                let refusal = Refusal::from(error);
                let code = refusal.code.as_str().to_owned();
                refused.push(RefusedLine { line: *number, hostname: line.hostname.clone(), code, detail: refusal.detail });
            }
            (_, Err(error)) => {
                let (hostname, code) = (line.hostname.clone(), "request.invalid_tenant".to_owned());
                refused.push(RefusedLine { line: *number, hostname, code, detail: error.to_string() });
            }
        }
    }
    names.sort();
    names.dedup();
    refused.sort_by_key(|refusal| refusal.line);
    let limits = config.acme_limits.at(config.acme.directory.as_deref());
    let (ledger, is_current) = plan::standing_or_fresh(&limits, &names, config, now).await?;
    let told = forecast(&limits, ledger, &names, now).map_err(|error| Failure::failed(error.to_string(), "report this"))?;
    if screen.is_json() {
        screen.json(
            &json!({ "dry_run": true, "lines": lines.len(), "refusals": refused, "forecast": told, "from_current_levels": is_current }),
        );
    } else {
        plan::show(&told, &limits, is_current, now, screen);
        show_refused(&refused, screen);
    }
    ended(&refused)
}

async fn import(lines: &[Numbered], unreadable: Vec<RefusedLine>, config: &Config, screen: &Screen) -> Result<(), Failure> {
    let remote = Remote::find(config)?;
    let mut begun: Vec<(ImportSummary, &[Numbered])> = Vec::new();
    let mut from = 0;
    while from < lines.len() {
        let part = part(&lines[from..]);
        from += part.len();
        let domains: Vec<&Line> = part.iter().map(|numbered| &numbered.line).collect();
        let answer = send(&remote, &json!({ "domains": domains }), from, lines.len(), screen).await?;
        begun.push((domain::read(answer.body)?, part));
        screen.progress(&format!("{from} of {} lines sent", lines.len()));
    }
    let mut refused = unreadable;
    let mut done: Vec<ImportView> = Vec::new();
    for (import, part) in &begun {
        let view = finished(&remote, &import.id, lines.len(), &done, screen).await?;
        // Their numbers count from the part's first line; people look for them in the file.
        let of_file = |refusal: &RefusedLine| {
            let number = part.get(refusal.line.saturating_sub(1)).map_or(refusal.line, |numbered| numbered.number);
            RefusedLine { line: number, ..refusal.clone() }
        };
        refused.extend(view.refusals.iter().map(of_file));
        done.push(view);
    }
    screen.end_progress();
    refused.sort_by_key(|refusal| refusal.line);
    report(&done, lines.len(), &refused, screen);
    ended(&refused)
}

/// Sends one part; where as many imports are open as may be, once one of them is finished.
async fn send(remote: &Remote, body: &Value, sent: usize, total: usize, screen: &Screen) -> Result<Answer, Failure> {
    let deadline = Instant::now() + OPEN_PATIENCE;
    loop {
        match remote.ask(Method::POST, "/v1/imports", Some(body)).await {
            Err(failure) if failure.code.as_deref() == Some("limits.too_many_imports") && Instant::now() < deadline => {
                screen.progress(&format!("{sent} of {total} lines; many imports are open, waits for one to finish"));
                tokio::time::sleep(ASK_EVERY).await;
            }
            answer => return answer,
        }
    }
}

/// As many lines as one request may carry.
fn part(lines: &[Numbered]) -> &[Numbered] {
    let mut bytes = 0;
    let fits = lines.iter().take(MAX_IMPORT_LINES).take_while(|numbered| {
        bytes += numbered.line.hostname.len() + 128;
        bytes <= REQUEST_BYTES
    });
    let count = fits.count().max(1);
    &lines[..count]
}

async fn finished(remote: &Remote, id: &str, total: usize, done: &[ImportView], screen: &Screen) -> Result<ImportView, Failure> {
    let before: usize = done.iter().map(|view| view.import.lines).sum();
    loop {
        let view: ImportView = remote.read(Method::GET, &format!("/v1/imports/{id}")).await?;
        let import = &view.import;
        if import.finished_at.is_some() {
            return Ok(view);
        }
        let refused = done.iter().map(|view| view.import.refused).sum::<usize>() + import.refused;
        let waits = import.waits_for.as_ref().map_or_else(String::new, |why| format!("; waits: {why}"));
        screen.progress(&format!("{} of {total} lines taken, {refused} refused{waits}", before + import.lines - import.left));
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn report(done: &[ImportView], lines: usize, refused: &[RefusedLine], screen: &Screen) {
    let sum = |count: fn(&ImportView) -> usize| done.iter().map(count).sum::<usize>();
    let (accepted, already_there) = (sum(|view| view.import.accepted), sum(|view| view.import.already_there));
    let (active, waiting) = (sum(|view| view.active), sum(|view| view.waiting));
    let ordered_by = done.iter().filter_map(|view| view.ordered_by).max();
    if screen.is_json() {
        let imports: Vec<&str> = done.iter().map(|view| view.import.id.as_str()).collect();
        screen.json(&json!({
            "lines": lines, "accepted": accepted, "already_there": already_there, "refused": refused.len(), "active": active,
            "waiting": waiting, "ordered_by": ordered_by, "refusals": refused, "imports": imports,
        }));
        return;
    }
    screen.text(&format!("{} {accepted} registered, {already_there} there already, {} refused", screen.good("Imported:"), refused.len()));
    screen.text(&format!("  {active} active, {waiting} wait for their DNS records or their turn"));
    if let Some(at) = ordered_by {
        screen.text(&format!("  if all records stood now, the last would be ordered by {}", at.strftime("%Y-%m-%d %H:%M:%S UTC")));
    }
    show_refused(refused, screen);
    screen.note("`nameplate domains show HOSTNAME` prints the records to create.");
}

fn show_refused(refused: &[RefusedLine], screen: &Screen) {
    for refusal in refused.iter().take(SHOWN) {
        screen.text(&format!("  line {}: {} {}: {}", refusal.line, screen.attention(&refusal.code), refusal.hostname, refusal.detail));
    }
    if refused.len() > SHOWN {
        screen.note(&format!("{} refused lines more; --json shows all.", refused.len() - SHOWN));
    }
}

fn ended(refused: &[RefusedLine]) -> Result<(), Failure> {
    match refused.first() {
        None => Ok(()),
        Some(first) => {
            let hint = "mend these lines and repeat the import; what is registered stays as it is";
            Err(Failure::refused(&first.code, format!("{} lines were refused", refused.len()), Some(hint.to_owned())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_ndjson_are_read_and_what_is_neither_is_told_with_its_number() {
        let text = "\u{feff}hostname,tenant\nshop.brand.com,acme\n\n# later\nwww.other.com\n{\"hostname\":\"a.b.com\",\"tenant\":\"t\"}\n{\"hostname\":\"c.d.com\"}\n{\"host\":1}\n";
        let (lines, refused) = read(text, "default");
        let told: Vec<_> = lines
            .iter()
            .map(|numbered| format!("{} {} {}", numbered.number, numbered.line.hostname, numbered.line.tenant.as_deref().unwrap()))
            .collect();
        assert_eq!(told, ["2 shop.brand.com acme", "5 www.other.com default", "6 a.b.com t", "7 c.d.com default"]);
        assert_eq!(refused.iter().map(|refusal| refusal.line).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn a_caddys_folder_gives_the_names_it_has_certificates_for() {
        let folder = tempfile::tempdir().unwrap();
        for (issuer, name) in
            [("acme-v02.api.letsencrypt.org-directory", "shop.brand.com"), ("local", "wildcard_.wide.com"), ("local", "shop.brand.com")]
        {
            let site = folder.path().join("certificates").join(issuer).join(name);
            std::fs::create_dir_all(&site).unwrap();
            std::fs::write(site.join(format!("{name}.crt")), "").unwrap();
        }
        std::fs::create_dir_all(folder.path().join("certificates/local/no-certificate.com")).unwrap();
        let names = names_of_caddy(folder.path(), "t").unwrap();
        assert_eq!(names.iter().map(|numbered| numbered.line.hostname.as_str()).collect::<Vec<_>>(), ["*.wide.com", "shop.brand.com"]);
        assert!(names_of_caddy(&folder.path().join("nowhere"), "t").is_err());
    }

    #[test]
    fn a_long_file_is_sent_in_parts_that_fit() {
        let line = |hostname: &str| Numbered { number: 1, line: Line { hostname: hostname.into(), tenant: None } };
        let short: Vec<_> = (0..MAX_IMPORT_LINES + 1).map(|_| line("a.com")).collect();
        assert_eq!(part(&short).len(), MAX_IMPORT_LINES);
        let long: Vec<_> = (0..5).map(|_| line(&"a".repeat(50_000))).collect();
        assert_eq!(part(&long).len(), 2);
        assert_eq!(part(&[line(&"a".repeat(500_000))]).len(), 1, "the API says what is wrong with it");
    }
}
