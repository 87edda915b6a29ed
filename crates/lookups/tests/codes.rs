//! Each code that a look can find, found in real DNS over sockets: no code is there that nothing produces, and none is left untried.
//!
//! `NAMEPLATE_RECORD_LOOKS=<folder>` writes each look down as the judge's recorded looks are, to be reviewed and kept beside them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::BTreeSet, fs, path::PathBuf};

use dev_dns::{
    Quirk, Record,
    RecordType::{self, A, Aaaa, Caa, Cname, Dnskey, Ds, Https, Ns, Txt},
};
use domains::{LookSubject, OwnershipLookup, ProblemCode, judge};
use lookups::{LookupConfig, Lookups};
use serde_json::json;
use support::{ACCOUNT, CA, EDGE, World, claim, dropped, rcode};

const ELSEWHERE: &str = "203.0.113.80";
/// A key of no use, and what a parent would say of it; its digest is of a type that is taken at its word.
const KEY: &str = "257 3 13 aabb";
const DS_OF_KEY: &str = "44745 13 4 00";

/// The codes found so far.
#[derive(Default)]
struct Found(BTreeSet<&'static str>);

impl Found {
    async fn finds(&mut self, code: &'static str, world: &World, subject: &LookSubject) {
        self.finds_with(code, world.config(), subject).await;
    }

    async fn finds_with(&mut self, code: &'static str, config: LookupConfig, subject: &LookSubject) {
        let look = Lookups::new(config).look(subject).await;
        let judged = judge(&look, subject);
        let finding = judged.finding.clone().unwrap_or_else(|| panic!("{code} is not found: {judged:?} in {look:?}"));
        assert_eq!(finding.code.as_str(), code, "{finding:?} in {look:?}");
        assert!(finding.action.contains(&finding.about), "{finding:?}");
        assert!(look.queries <= 30, "{code}: {} queries", look.queries);
        self.0.insert(code);
        if let Some(folder) = std::env::var_os("NAMEPLATE_RECORD_LOOKS") {
            let expect = json!({
                "code": finding.code, "actor": finding.actor, "record": finding.about, "proof": judged.proof, "routing": judged.routing,
            });
            let name = code.strip_prefix("dns.").map_or_else(|| code.replace('.', "_"), str::to_owned);
            let text = serde_json::to_string_pretty(&json!({ "expect": expect, "subject": subject, "look": look })).unwrap();
            fs::write(PathBuf::from(folder).join(format!("{name}.over_sockets.json")), text + "\n").unwrap();
        }
    }
}

/// A world of one server where the zone is there, and the claim on a name in it.
async fn plain() -> (World, LookSubject) {
    let world = World::of_one().await;
    world.everywhere("mail.brand.test", A, &["192.0.2.25"]);
    (world, claim("shop.brand.test", "a"))
}

/// The same, with the proof by TXT in place.
async fn proved() -> (World, LookSubject) {
    let (world, subject) = plain().await;
    world.everywhere(&subject.txt_name, Txt, &[subject.token.as_str()]);
    (world, subject)
}

/// The same, with the proof by delegation in place.
async fn delegated() -> (World, LookSubject) {
    let (world, mut subject) = plain().await;
    let delegation = subject.delegation.as_mut().unwrap();
    delegation.wanted = true;
    world.everywhere(&delegation.name, Cname, &[&delegation.target]);
    (world, subject)
}

/// Servers and a resolver of their own, with the CNAME in place.
async fn routed(servers: u8) -> (World, LookSubject) {
    let (world, subject) = (World::with_servers(servers).await, claim("shop.brand.test", "a"));
    world.everywhere("shop.brand.test", Cname, &[&subject.routing_target]);
    (world, subject)
}

#[tokio::test]
async fn every_code_that_a_look_can_find_is_found_in_real_dns() {
    let mut found = Found::default();
    missing(&mut found).await;
    aliases(&mut found).await;
    addresses(&mut found).await;
    servers(&mut found).await;
    resolver(&mut found).await;
    dnssec(&mut found).await;
    caa(&mut found).await;
    let all: BTreeSet<&str> = ProblemCode::ALL.iter().filter(|code| code.is_of_a_look()).map(|code| code.as_str()).collect();
    assert_eq!(found.0, all);
}

async fn missing(found: &mut Found) {
    let (world, subject) = plain().await;
    found.finds("dns.name_missing", &world, &subject).await;
    found.finds("dns.zone_missing", &world, &claim("shop.unregistered.test", "a")).await;
    world.everywhere("shop.brand.test", Txt, &["v=spf1 -all"]);
    found.finds("dns.record_missing", &world, &subject).await;
    world.everywhere("shop.brand.test", A, &[ELSEWHERE]);
    found.finds("dns.live_elsewhere", &world, &subject).await;
    let sandbox = claim("*.brand.test", "a");
    found.finds("dns.delegation_missing", &world, &sandbox).await;
    world.everywhere("_acme-challenge.brand.test", Cname, &["validation.another.net"]);
    found.finds("dns.delegation_elsewhere", &world, &sandbox).await;
    world.everywhere(&subject.txt_name, Txt, &["another value"]);
    found.finds("dns.txt_mismatch", &world, &subject).await;

    let (world, subject) = plain().await;
    world.everywhere("_nameplate.shop.brand.test.brand.test", Txt, &[subject.token.as_str()]);
    found.finds("dns.txt_doubled", &world, &subject).await;
    let (world, subject) = plain().await;
    world.everywhere("shop.brand.test.brand.test", Cname, &[&subject.routing_target]);
    found.finds("dns.cname_doubled", &world, &subject).await;

    let (world, _) = plain().await;
    world.everywhere("brand.test", A, &[EDGE]);
    found.finds("dns.txt_missing", &world, &claim("brand.test", "a")).await;
}

async fn aliases(found: &mut Found) {
    let (world, subject) = delegated().await;
    world.everywhere("shop.brand.test", Cname, &["shops.rival.test"]);
    world.everywhere("shops.rival.test", A, &[ELSEWHERE]);
    found.finds("dns.cname_elsewhere", &world, &subject).await;

    let (world, subject) = plain().await;
    let alias = |target: &str| world.everywhere("shop.brand.test", Cname, &[target]);
    alias("shops.rival.test");
    for record_type in [A, Aaaa] {
        world.at_servers(&Quirk { record_type: Some(record_type), ..rcode("shops.rival.test", "SERVFAIL") });
    }
    found.finds("dns.cname_target_fails", &world, &subject).await;
    alias("nothing.rival.test");
    found.finds("dns.cname_dangling", &world, &subject).await;
    alias("claimb.t.edge.test");
    found.finds("dns.cname_other_claim", &world, &subject).await;
    alias("one.brand.test");
    world.everywhere("one.brand.test", Cname, &["shop.brand.test"]);
    found.finds("dns.cname_loop", &world, &subject).await;
    for n in 0..12 {
        world.everywhere(&format!("h{n}.brand.test"), Cname, &[&format!("h{}.brand.test", n + 1)]);
    }
    alias("h0.brand.test");
    found.finds("dns.cname_too_long", &world, &subject).await;

    let (world, subject) = plain().await;
    world.everywhere("*.brand.test", A, &[ELSEWHERE]);
    found.finds("dns.wildcard_elsewhere", &world, &subject).await;
    world.everywhere(&subject.txt_name, Txt, &[subject.token.as_str()]);
    found.finds("dns.wildcard_switched_off", &world, &subject).await;

    let (world, _) = plain().await;
    let alias = Record { name: "brand.test".into(), record_type: Cname, ttl: None, data: vec!["claima.t.edge.test".into()] };
    for record_type in [Cname, A, Aaaa] {
        world.at_servers(&Quirk {
            name: "brand.test".into(),
            record_type: Some(record_type),
            answer: vec![alias.clone()],
            ..Quirk::default()
        });
    }
    found.finds("dns.cname_at_apex", &world, &claim("brand.test", "a")).await;
}

async fn addresses(found: &mut Found) {
    let (world, subject) = plain().await;
    world.everywhere("shop.brand.test", A, &[EDGE]);
    found.finds("dns.cname_flattened", &world, &subject).await;

    let (world, subject) = delegated().await;
    world.everywhere("shop.brand.test", A, &[ELSEWHERE]);
    found.finds("dns.address_elsewhere", &world, &subject).await;

    let (world, subject) = proved().await;
    found.finds("dns.routing_missing", &world, &subject).await;
    for (code, addresses) in [
        ("dns.address_mixed", &[EDGE, ELSEWHERE][..]),
        ("dns.address_private", &["10.0.0.7"]),
        ("dns.proxied", &["104.21.7.9", "172.67.1.2"]),
    ] {
        world.everywhere("shop.brand.test", A, addresses);
        found.finds(code, &world, &subject).await;
    }
    world.everywhere("shop.brand.test", A, &[EDGE]);
    world.everywhere("shop.brand.test", Aaaa, &["2001:db8:bad::1"]);
    found.finds("dns.aaaa_elsewhere", &world, &subject).await;
    world.resolver.zone().unset("shop.brand.test", Some(Aaaa)).unwrap();
    assert_eq!(world.judged(&subject).await.finding, None);

    world.everywhere("shop.brand.test", Https, &[&format!("1 . alpn=h2 ipv4hint={EDGE}")]);
    assert_eq!(world.judged(&subject).await.finding, None, "an HTTPS record that leads here is no trouble");
    for stray in ["1 . alpn=h2 ipv4hint=203.0.113.9", "0 cdn.rival.test", "1 cdn.rival.test alpn=h2"] {
        world.everywhere("shop.brand.test", Https, &[stray]);
        found.finds("dns.https_elsewhere", &world, &subject).await;
        assert!(world.judged(&subject).await.may_order(), "CAs do not follow HTTPS records");
    }
}

async fn servers(found: &mut Found) {
    for (code, quirk) in [
        ("dns.servfail", rcode("shop.brand.test", "SERVFAIL")),
        ("dns.refused", rcode("shop.brand.test", "REFUSED")),
        ("dns.malformed", rcode("shop.brand.test", "FORMERR")),
        ("dns.unreachable", dropped("shop.brand.test")),
    ] {
        let (world, subject) = routed(1).await;
        world.at_servers(&quirk);
        found.finds(code, &world, &subject).await;
    }
    let (world, subject) = routed(1).await;
    found.finds_with("dns.server_not_global", LookupConfig { allow_non_global: false, ..world.config() }, &subject).await;

    let (world, subject) = plain().await;
    world.everywhere("shop.brand.test", Cname, &[&subject.routing_target]);
    world.everywhere("brand.test", Ns, &["ns1.nowhere.test"]);
    found.finds("dns.server_missing", &world, &subject).await;

    let (world, subject) = routed(2).await;
    assert_eq!(world.judged(&subject).await.finding, None);
    for name in ["shop.brand.test", &subject.txt_name] {
        world.servers[1].zone().quirk(Quirk { name: name.into(), lame: true, ..Quirk::default() }).unwrap();
    }
    found.finds("dns.server_lame", &world, &subject).await;
    assert!(world.judged(&subject).await.may_order(), "resolvers ask the next server");

    let (world, subject) = routed(2).await;
    world.servers[1].zone().unset("shop.brand.test", None).unwrap();
    found.finds("dns.servers_disagree", &world, &subject).await;
}

async fn resolver(found: &mut Found) {
    let (world, subject) = routed(1).await;
    world.resolver.zone().unset("shop.brand.test", None).unwrap();
    found.finds("dns.propagating", &world, &subject).await;

    let (world, subject) = routed(1).await;
    world.servers[0].zone().unset("shop.brand.test", None).unwrap();
    found.finds("dns.record_withdrawn", &world, &subject).await;

    let (world, subject) = routed(1).await;
    world.resolver.zone().quirk(rcode("shop.brand.test", "SERVFAIL")).unwrap();
    found.finds("dns.resolver_servfail", &world, &subject).await;
    world.resolver.zone().quirk(dropped("shop.brand.test")).unwrap();
    found.finds("dns.resolver_unreachable", &world, &subject).await;

    let (world, subject) = routed(1).await;
    found.finds_with("dns.too_many_queries", LookupConfig { max_queries: 3, ..world.config() }, &subject).await;
}

async fn dnssec(found: &mut Found) {
    for (code, ds, ede) in [
        ("dns.dnssec_bogus", DS_OF_KEY, None),
        ("dns.dnssec_bogus", DS_OF_KEY, Some(6)),
        ("dns.dnssec_expired", DS_OF_KEY, Some(7)),
        ("dns.dnssec_unsigned", DS_OF_KEY, Some(10)),
        ("dns.dnssec_key_mismatch", "1 13 4 00", None),
        // The digest differs, though tag and algorithm are the key's.
        ("dns.dnssec_key_mismatch", "44745 13 2 00", Some(6)),
    ] {
        let (world, subject) = routed(1).await;
        let resolver = world.resolver.zone();
        resolver.set("brand.test", Ds, &[ds]).unwrap();
        resolver.set("brand.test", Dnskey, &[KEY]).unwrap();
        resolver.quirk(Quirk { name: "shop.brand.test".into(), bogus: true, ede, ..Quirk::default() }).unwrap();
        found.finds(code, &world, &subject).await;
        let finding = world.judged(&subject).await.finding.unwrap();
        assert!(finding.action.contains("brand.test at its") || finding.action.contains("DNS provider of brand.test"), "{finding:?}");
    }
    // A signed zone whose alias leads into one that is broken: the other zone is named.
    let (world, subject) = plain().await;
    world.everywhere("shop.brand.test", Cname, &["shops.rival.test"]);
    world.everywhere("shops.rival.test", A, &[ELSEWHERE]);
    world.everywhere("rival.test", Ds, &["1 13 2 00"]);
    for record_type in [A, Aaaa] {
        let bogus = Quirk { name: "shops.rival.test".into(), record_type: Some(record_type), bogus: true, ..Quirk::default() };
        world.resolver.zone().quirk(bogus).unwrap();
    }
    found.finds("dns.dnssec_key_mismatch", &world, &subject).await;
    assert!(world.judged(&subject).await.finding.unwrap().action.contains("DS records of rival.test"));
}

async fn caa(found: &mut Found) {
    let (world, subject) = plain().await;
    world.everywhere("shop.brand.test", Cname, &[&subject.routing_target]);
    let allow = |values: &[&str]| world.everywhere("brand.test", Caa, values);
    for allowed in [
        &[r#"0 issue "ca.test""#][..],
        &[r#"0 issue "other.net""#, r#"0 issue "CA.test""#],
        &[&format!(r#"0 issue "{CA}; accounturi={ACCOUNT}; validationmethods=dns-01,http-01""#)],
        &[r#"0 issuewild ";""#],
        &[r#"0 iodef "mailto:a@brand.test""#, r#"0 tbs "unknown""#],
    ] {
        allow(allowed);
        let judged = world.judged(&subject).await;
        assert_eq!((judged.finding.clone(), judged.may_order()), (None, true), "{allowed:?}: {judged:?}");
    }
    for (code, forbidden) in [
        ("caa.forbids", &[r#"0 issue "other.net""#][..]),
        ("caa.forbids", &[r#"0 issue ";""#]),
        ("caa.forbids_account", &[r#"0 issue "ca.test; accounturi=https://ca.test/acct/8""#]),
        ("caa.forbids_method", &[r#"0 issue "ca.test; validationmethods=dns-01""#]),
        ("caa.critical_unknown", &[r#"0 issue "ca.test""#, r#"128 tbs "unknown""#]),
    ] {
        allow(forbidden);
        found.finds(code, &world, &subject).await;
        assert!(!world.judged(&subject).await.may_order());
    }
    // The nearest set decides: the hostname's alias has one of its own, and what lies above the alias's target is nobody's concern.
    world.everywhere("t.edge.test", Caa, &[r#"0 issue "other.net""#]);
    allow(&[r#"0 issue "ca.test""#]);
    assert!(world.judged(&subject).await.may_order(), "the parents of a CNAME's target are not climbed");
    world.everywhere("claima.t.edge.test", Caa, &[r#"0 issue "other.net""#]);
    found.finds("caa.forbids", &world, &subject).await;
    world.everywhere("claima.t.edge.test", Caa, &[r#"0 issue "ca.test""#]);
    allow(&[r#"0 issue "other.net""#]);
    assert!(world.judged(&subject).await.may_order(), "the nearest set decides");

    world.resolver.zone().unset("claima.t.edge.test", None).unwrap();
    for quirk in [rcode("brand.test", "SERVFAIL"), rcode("brand.test", "NOTIMP"), dropped("brand.test")] {
        world.resolver.zone().quirk(Quirk { record_type: Some(Caa), ..quirk }).unwrap();
        found.finds("caa.unreadable", &world, &subject).await;
    }

    let (world, _) = plain().await;
    let subject = claim("*.brand.test", "a");
    let delegation = subject.delegation.as_ref().unwrap();
    world.everywhere(&delegation.name, Cname, &[&delegation.target]);
    world.everywhere("brand.test", Caa, &[r#"0 issue "ca.test""#, r#"0 issuewild ";""#]);
    found.finds("caa.forbids_wildcard", &world, &subject).await;
    world.everywhere("brand.test", Caa, &[r#"0 issue "other.net""#, r#"0 issuewild "ca.test""#]);
    assert!(world.judged(&subject).await.may_order());
}

#[tokio::test]
async fn caa_is_asked_for_a_name_at_the_edge_whose_token_was_taken_away_after_it_was_proved() {
    let world = World::of_one().await;
    world.everywhere("brand.test", A, &[EDGE]);
    world.everywhere("brand.test", Caa, &[r#"0 issue "other.net""#]);
    let served = LookSubject { proved: true, ..claim("brand.test", "a") };
    let judged = world.judged(&served).await;
    assert_eq!(judged.obstacle.map(|obstacle| obstacle.code.as_str()), Some("caa.forbids"), "the renewal is ordered for nothing");
    let stranger = LookSubject { proved: false, ..served };
    assert_eq!(world.judged(&stranger).await.obstacle, None, "a name that nobody proved is asked about");
}

/// A name whose servers are named without addresses, deep below its zone, proved and routed the costliest way.
#[tokio::test]
async fn the_costliest_name_that_may_be_ordered_stays_within_thirty_queries() {
    for (hostname, types) in [("shop.brand.test", 4), ("a.b.c.d.e.f.brand.test", 4), ("brand.test", 4)] {
        let world = World::with_servers(types).await;
        for n in 1..=4 {
            // Of another zone than the one asked about, so that no address comes along.
            world.resolver.zone().set(&format!("ns{n}.host.test"), A, &[&format!("127.0.0.{}", n + 1)]).unwrap();
        }
        world.resolver.zone().set("brand.test", Ns, &["ns1.host.test", "ns2.host.test", "ns3.host.test", "ns4.host.test"]).unwrap();
        let subject = claim(hostname, "a");
        world.everywhere(&subject.txt_name, Txt, &[subject.token.as_str()]);
        world.everywhere(hostname, A, &[EDGE]);
        let look = world.look(&subject).await;
        let judged = judge(&look, &subject);
        assert_eq!((judged.finding.clone(), judged.may_order()), (None, true), "{hostname}: {judged:?}");
        assert!(look.queries <= 30, "{hostname}: {} queries", look.queries);
        assert!(!look.further.caa.is_empty() && look.further.https.is_some());
    }
}

/// Keeps the list of types that the zone's own records need in use.
#[test]
fn the_demo_dns_knows_every_type_a_look_asks_for() {
    for name in ["A", "AAAA", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "NS", "TXT"] {
        assert_eq!(name.parse::<RecordType>().unwrap().as_str(), name);
    }
}
