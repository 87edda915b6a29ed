//! Whether DNS says of this installation what it must: the resolver, the wildcard of targets, the delegation of the answer zone.

use std::net::{IpAddr, SocketAddr};

use domains::{Answer, Failure};
use lookups::{Asking, Wanted, ask, validates};

use super::Check;
use crate::{
    config::{Config, HomePlace},
    files::Endpoints,
};

pub(super) async fn check(config: &Config, running: Option<&Endpoints>) -> Vec<Check> {
    let Some(resolver) = config.dns_server else {
        return vec![Check::failed("resolver", "none is configured", "set dns.server to a resolver's address, or to system")];
    };
    let zone = &config.zone;
    let here: Vec<String> = zone.edge_addresses.iter().map(ToString::to_string).collect();
    // Nobody has this label, so only the wildcard can answer.
    let target = format!("doctor-looks.{}", zone.targets_zone());
    let mut found = Vec::new();
    for (wanted, is_kind) in [(Wanted::A, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (Wanted::Aaaa, IpAddr::is_ipv6)] {
        match ask(resolver, Asking::Resolver, &target, wanted).await {
            Answer::Failed(failure) => {
                return vec![Check::failed(
                    "resolver",
                    format!("{resolver} does not answer for {target}: {}", words(&failure)),
                    "name another resolver as dns.server, or ask your DNS provider what is wrong with the zone",
                )];
            }
            answer => found.push((is_kind, answer.records().to_vec())),
        }
    }
    let mut checks = vec![Check::fine("resolver", format!("{resolver} answers")), dnssec(resolver, validates(resolver).await)];
    let seen: Vec<String> = found.iter().flat_map(|(_, records)| records.clone()).collect();
    let missing: Vec<String> = here.iter().filter(|address| !seen.contains(address)).cloned().collect();
    let foreign: Vec<String> = seen.iter().filter(|address| !here.contains(address)).cloned().collect();
    checks.push(if missing.is_empty() && foreign.is_empty() {
        Check::fine("targets", format!("*.{} leads to {}", zone.targets_zone(), here.join(", ")))
    } else {
        Check::failed(
            "targets",
            format!("{target} leads to [{}], and zone.addresses is [{}]", seen.join(", "), here.join(", ")),
            format!("create A and AAAA records for *.{} with exactly these addresses, or mend zone.addresses", zone.targets_zone()),
        )
    });
    checks.extend(answers(config, resolver, running).await);
    checks
}

/// Judges whether the resolver would notice what the CA's would: a zone whose signatures are broken.
fn dnssec(resolver: SocketAddr, validates: Result<bool, Failure>) -> Check {
    let hint = "name a validating resolver in dns.server, such as an unbound on this machine: without one no `dns.dnssec_*` problem is seen \
                before the CA refuses the order";
    match validates {
        Ok(true) => Check::fine("DNSSEC", format!("{resolver} checks signatures")),
        Ok(false) => Check::look("DNSSEC", format!("{resolver} does not check signatures, or does not say so"), hint),
        Err(failure) => {
            Check::look("DNSSEC", format!("whether {resolver} checks signatures is not known: {}", words(&failure)), "ask the doctor again")
        }
    }
}

async fn answers(config: &Config, resolver: SocketAddr, running: Option<&Endpoints>) -> Vec<Check> {
    let zone = config.zone.answers_zone();
    if let HomePlace::Aws(places) = &config.home {
        return vec![hosted(&zone, places.answers_hosted_zone.as_deref(), resolver).await];
    }
    if running.is_none() {
        return vec![Check::look(
            "answer zone",
            format!("{zone} is answered for once the product runs"),
            "start it, then ask the doctor again",
        )];
    }
    let mut checks = Vec::new();
    for (asking, over) in [(Asking::AuthorityOverUdp, "UDP"), (Asking::AuthorityOverTcp, "TCP")] {
        for address in &config.zone.edge_addresses {
            let server = SocketAddr::new(*address, config.listen.answers.port());
            let answer = ask(server, asking, &zone, Wanted::Ns).await;
            checks.push(match answer.records() {
                [_, ..] => Check::fine("answer zone", format!("{server} answers for {zone} over {over}")),
                [] => Check::failed(
                    "answer zone",
                    format!("{server} does not answer for {zone} over {over}: {}", told(&answer)),
                    format!("open port {} for {over} in every firewall on the way, and check listen.answers", server.port()),
                ),
            });
        }
    }
    let delegated = ask(resolver, Asking::Resolver, &zone, Wanted::Ns).await;
    let server = format!("ns1.{zone}");
    checks.push(if delegated.records().contains(&server) {
        Check::fine("delegation", format!("{zone} is delegated to this machine"))
    } else {
        Check::failed(
            "delegation",
            format!("{resolver} finds no way to {zone}: {}", told(&delegated)),
            format!("create the records {zone} NS {server} and an address for {server} in the zone above; `nameplate setup` prints them"),
        )
    });
    checks
}

/// A zone in Route 53 only has to be found.
async fn hosted(zone: &str, hosted_zone: Option<&str>, resolver: SocketAddr) -> Check {
    let Some(id) = hosted_zone else {
        return Check::look(
            "answer zone",
            format!("nothing answers for {zone}: names are proved by http-01 alone, and wildcards not at all"),
            "create that zone in Route 53 and name its id as aws.answers_hosted_zone",
        );
    };
    match ask(resolver, Asking::Resolver, zone, Wanted::Ns).await {
        // Where the hosted zone is the one above, there are no name servers at this name, and it need not exist before the first challenge.
        answer @ (Answer::Records(_) | Answer::NoData) => Check::fine("delegation", format!("{resolver} finds {zone}: {}", told(&answer))),
        answer @ Answer::NxDomain => Check::look(
            "delegation",
            format!("{resolver} finds no {zone}: {}", told(&answer)),
            format!("fine if hosted zone {id} is the zone above; otherwise create NS records for {zone} there, as `nameplate setup` says"),
        ),
        answer @ Answer::Failed(_) => Check::failed(
            "delegation",
            format!("{resolver} finds no way to {zone}: {}", told(&answer)),
            format!("create NS records for {zone} with the name servers of hosted zone {id}; `nameplate setup` says how"),
        ),
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Failed(failure) => words(failure),
        Answer::NxDomain => "the name does not exist".to_owned(),
        Answer::NoData => "there is no such record".to_owned(),
        Answer::Records(records) => records.join(", "),
    }
}

fn words(failure: &Failure) -> String {
    match failure {
        Failure::Servfail => "SERVFAIL".to_owned(),
        Failure::Refused => "REFUSED".to_owned(),
        Failure::Unreachable => "no answer".to_owned(),
        Failure::Malformed { detail } => detail.clone(),
        Failure::NotGlobal => "an address that is not on the public internet".to_owned(),
        Failure::NoAddress => "a server without an address".to_owned(),
        Failure::BudgetSpent => "no answer in time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_resolver_that_checks_no_signatures_is_a_hint_that_names_the_key_to_set() {
        let resolver = "192.0.2.53:53".parse().unwrap();
        assert_eq!(dnssec(resolver, Ok(true)).verdict, Verdict::Fine);
        let check = dnssec(resolver, Ok(false));
        assert_eq!(check.verdict, Verdict::Look, "{check:?}");
        assert!(check.hint.is_some_and(|hint| hint.contains("validating resolver in dns.server")));
        assert_eq!(dnssec(resolver, Err(Failure::Servfail)).verdict, Verdict::Look);
    }
}
