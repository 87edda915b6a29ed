//! `nameplate domains explain`: a look at DNS, replayed.
//!
//! Arrives: the looks that the API kept. Leaves: question by question who said what, then what follows, judged here from the same facts. Goes
//! wrong: an answer that does not read.

use domains::{Answer, Asked, Failure, Look, Observed, StoredLook};
use register_domain::LooksPage;
use serde_json::Value;

use crate::{failure::Failure as CommandFailure, screen::Screen};

pub(crate) fn show(body: Value, all: bool, screen: &Screen) -> Result<(), CommandFailure> {
    if screen.is_json() {
        screen.json(&body);
        return Ok(());
    }
    let page: LooksPage = serde_json::from_value(body)
        .map_err(|error| CommandFailure::failed(format!("the looks do not read: {error}"), "use one version of command and API"))?;
    if page.items.is_empty() {
        screen.note("DNS was not looked at yet; `nameplate domains check HOSTNAME` looks now.");
    }
    for explained in page.items.iter().take(if all { usize::MAX } else { 1 }) {
        one(&explained.stored, screen);
    }
    if !all && page.items.len() > 1 {
        screen.note(&format!("{} earlier looks were kept; --all shows them.", page.items.len() - 1));
    }
    Ok(())
}

fn one(stored: &StoredLook, screen: &Screen) {
    let StoredLook { first, last, subject, look, is_cut } = stored;
    screen.text(&format!("{}  looked at {first}, still so at {last}", screen.strong(subject.hostname.as_str())));
    match &look.zone {
        Ok(zone) => screen.text(&format!("  zone      {} at {}", zone.apex, zone.servers.join(", "))),
        Err(answer) => screen.text(&format!("  zone      not found: {}", words(answer))),
    }
    for line in questions(look) {
        screen.text(&format!("  {line}"));
    }
    if *is_cut {
        screen.text("  (long answers are cut)");
    }
    let judged = stored.judge();
    screen.text(&format!("  proof     {}", judged.proof.map_or_else(|| "none".to_owned(), |proof| format!("{proof:?}"))));
    screen.text(&format!("  routing   {:?}", judged.routing));
    match &judged.finding {
        None => screen.text(&format!("  verdict   {}", screen.good("nothing stands in the way"))),
        Some(finding) => screen.text(&format!(
            "  verdict   {}  {:?} must act: {}\n    about     {}\n    expected  {}\n    saw       {}",
            screen.attention(finding.code.as_str()),
            finding.actor,
            finding.action,
            finding.about,
            finding.expected,
            finding.saw
        )),
    }
}

/// Each question with every answer to it, in the order in which they were asked.
fn questions(look: &Look) -> Vec<String> {
    let mut lines = Vec::new();
    let first = [("CNAME", Some(&look.cname)), ("TXT", Some(&look.txt)), ("A", Some(&look.a)), ("AAAA", Some(&look.aaaa))];
    for (kind, observed) in first.into_iter().chain([("TXT", look.txt_doubled.as_ref())]) {
        // What no server was asked and the resolver "denied" was not asked at all: a target of ours says where the name leads.
        let asked = observed.filter(|observed| !observed.authority.is_empty() || observed.resolver != Answer::NoData);
        lines.extend(asked.into_iter().flat_map(|observed| answers(kind, observed)));
    }
    if look.chain.len() > 1 {
        lines.push(format!("chain     {} ({:?})", look.chain.join(" → "), look.chain_end));
    }
    let further = &look.further;
    let asked = further.caa.iter().map(|asked| ("CAA", asked)).chain(further.https.iter().map(|asked| ("HTTPS", asked)));
    let probes = further.cname_doubled.iter().chain(&further.apex_cname).map(|asked| ("CNAME", asked));
    let probes = probes.chain(further.wildcard.iter().map(|asked| ("A", asked)));
    lines.extend(asked.chain(probes).map(|(kind, Asked { name, server, answer })| format!("{kind} {name}  {server}: {}", words(answer))));
    if let Some(dnssec) = &further.dnssec {
        lines.push(format!("{}  resolver without checking DNSSEC: {}", dnssec.question, words(&dnssec.unchecked)));
        for zone in &dnssec.zones {
            lines.push(format!("DS {}  resolver: {}; DNSKEY: {}", zone.apex, words(&zone.ds), words(&zone.dnskey)));
        }
    }
    lines
}

fn answers(kind: &str, observed: &Observed) -> Vec<String> {
    let each = observed.authority.iter().map(|said| (said.server.as_str(), &said.answer)).chain([("resolver", &observed.resolver)]);
    each.map(|(server, answer)| format!("{kind} {}  {server}: {}", observed.name, words(answer))).collect()
}

/// A stranger's answer on a terminal: without control characters.
fn words(answer: &Answer) -> String {
    let text = match answer {
        Answer::Records(records) => records.join(", "),
        Answer::NoData => "no such record".to_owned(),
        Answer::NxDomain => "no such name".to_owned(),
        Answer::Failed(Failure::Malformed { detail }) => format!("unusable ({detail})"),
        Answer::Failed(failure) => format!("{failure:?}").to_uppercase(),
    };
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
