//! The corpus: zones composed of what is right or wrong with them, how deep the name lies, and what else stands in the zone.
//!
//! No address outside this machine is ever fetched from: where a name leads elsewhere, it leads to an address that nothing can be sent to.

use dev_dns::{
    Quirk, Record,
    RecordType::{self, A, Aaaa, Caa, Cname, Dnskey, Ds, Https, Mx, Ns, Txt},
    Zone,
};
use domains::{CaChoice, CaaIssuer, ClaimId, Hostname, HostnamePolicy, LookSubject, OwnershipToken};

/// Where the edge is.
pub(crate) const EDGE: &str = "127.0.0.1";
/// An address that no packet is sent to, and that is nobody's: the system refuses to connect.
const NOWHERE: &str = "255.255.255.255";
/// The CA as CAA records name it.
const CA: &str = "ca.test";
const KEY: &str = "257 3 13 aabb";
const DS_OF_KEY: &str = "44745 13 4 00";

/// What the CA makes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtTheCa {
    Accepts,
    Refuses,
    /// Its answer would depend on chance, or its fetch would leave this machine.
    NotAsked,
}

/// One zone with one claimed name in it.
pub(crate) struct Case {
    /// What is special about it.
    pub(crate) name: &'static str,
    pub(crate) subject: LookSubject,
    /// The code we must find; `None` for none.
    pub(crate) code: Option<&'static str>,
    pub(crate) at_the_ca: AtTheCa,
    records: Vec<Record>,
    quirks: Vec<Quirk>,
}

/// What a zone is made with.
struct Making {
    zone: String,
    hostname: String,
    subject: LookSubject,
    records: Vec<Record>,
    quirks: Vec<Quirk>,
}

/// One thing that may be right or wrong with a zone.
struct Kind {
    name: &'static str,
    code: Option<&'static str>,
    at_the_ca: AtTheCa,
    at_the_apex: bool,
    make: fn(&mut Making),
}

/// Repeatable chance: SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Makes so many zones from a seed, every kind about equally often.
pub(crate) fn corpus(count: usize, seed: u64) -> Vec<Case> {
    let mut chance = Chance(seed);
    (0..count).map(|n| case(n, &KINDS[n % KINDS.len()], &mut chance)).collect()
}

fn case(n: usize, kind: &Kind, chance: &mut Chance) -> Case {
    let zone = format!("z{n}.test");
    let below = ["shop", "a.b", "www", "xn--bcher-kva", "one.two.three", "very-long-label-as-some-people-choose-for-their-shops"];
    let hostname = match kind.at_the_apex {
        true => zone.clone(),
        false => format!("{}.{zone}", below[usize::try_from(chance.below(below.len() as u64)).unwrap()]),
    };
    let mut making = Making { subject: subject(&hostname, n), zone, hostname, records: Vec::new(), quirks: Vec::new() };
    if kind.code != Some("dns.zone_missing") {
        // So that the zone is there whatever becomes of the name.
        making.set(&format!("mail.{}", making.zone), A, &["192.0.2.25"]);
        making.noise(kind, chance);
    }
    (kind.make)(&mut making);
    let Making { subject, records, quirks, .. } = making;
    Case { name: kind.name, subject, code: kind.code, at_the_ca: kind.at_the_ca, records, quirks }
}

fn subject(hostname: &str, n: usize) -> LookSubject {
    let policy = HostnamePolicy { allowed_special_use: vec!["test".into()], ..HostnamePolicy::default() };
    LookSubject {
        hostname: Hostname::parse(hostname, &policy).unwrap(),
        claim_id: ClaimId::parse(&format!("claim{n}")).unwrap(),
        routing_target: format!("claim{n}.t.edge.test"),
        targets_zone: "t.edge.test".into(),
        txt_name: format!("_nameplate.{hostname}"),
        token: OwnershipToken::parse(&format!("np-token-{n}")).unwrap(),
        edge_addresses: vec![EDGE.parse().unwrap()],
        delegation: None,
        proved: false,
        issuers: vec![CaaIssuer {
            ca: CaChoice::First,
            identities: vec![CA.into()],
            account_uri: Some("https://ca.test/acct/7".into()),
            methods: vec!["http-01".into()],
        }],
    }
}

impl Case {
    /// Puts the zone into DNS.
    pub(crate) fn install(&self, zone: &Zone) {
        zone.set_all(self.records.clone()).unwrap();
        for quirk in &self.quirks {
            zone.quirk(quirk.clone()).unwrap();
        }
    }
}

impl Making {
    fn set(&mut self, name: &str, record_type: RecordType, data: &[&str]) {
        let data = data.iter().map(|&text| text.to_owned()).collect();
        self.records.push(Record { name: name.to_owned(), record_type, ttl: None, data });
    }

    fn here(&mut self, record_type: RecordType, data: &[&str]) {
        self.set(&self.hostname.clone(), record_type, data);
    }

    /// CNAME to the claim's target.
    fn alias(&mut self) {
        self.here(Cname, &[&self.subject.routing_target.clone()]);
    }

    /// TXT with the claim's token.
    fn token(&mut self) {
        self.set(&self.subject.txt_name.clone(), Txt, &[self.subject.token.clone().as_str()]);
    }

    fn fails(&mut self, name: &str, record_type: Option<RecordType>, rcode: &str) {
        self.quirks.push(Quirk { name: name.to_owned(), record_type, rcode: Some(rcode.into()), ..Quirk::default() });
    }

    fn bogus(&mut self, ds: &str, ede: Option<u16>) {
        self.alias();
        self.set(&self.zone.clone(), Ds, &[ds]);
        self.set(&self.zone.clone(), Dnskey, &[KEY]);
        self.quirks.push(Quirk { name: self.hostname.clone(), bogus: true, ede, ..Quirk::default() });
    }

    fn caa(&mut self, values: &[&str]) {
        self.alias();
        self.set(&self.zone.clone(), Caa, values);
    }

    /// What stands in many zones and must change nothing.
    fn noise(&mut self, kind: &Kind, chance: &mut Chance) {
        let zone = self.zone.clone();
        if chance.below(2) == 0 {
            self.set(&zone, Mx, &["10 mail.example.test"]);
        }
        if chance.below(2) == 0 {
            self.set(&zone, Txt, &["v=spf1 -all"]);
        }
        if chance.below(3) == 0 && kind.code.is_none_or(|code| !code.starts_with("caa.")) && !kind.name.starts_with("CAA") {
            self.set(&zone, Caa, &[r#"0 issue "other.test""#, r#"0 issue "ca.test""#]);
        }
        if chance.below(3) == 0 {
            self.set(&format!("_dmarc.{zone}"), Txt, &["v=DMARC1; p=none"]);
        }
        if chance.below(3) == 0 && kind.code.is_none() && !kind.at_the_apex {
            // A wildcard beside a name that has its own records changes nothing for it.
            self.set(&format!("*.{zone}"), A, &[NOWHERE]);
        }
    }
}

const fn kind(name: &'static str, code: Option<&'static str>, at_the_ca: AtTheCa, make: fn(&mut Making)) -> Kind {
    Kind { name, code, at_the_ca, at_the_apex: false, make }
}

const fn at_the_apex(name: &'static str, code: Option<&'static str>, at_the_ca: AtTheCa, make: fn(&mut Making)) -> Kind {
    Kind { name, code, at_the_ca, at_the_apex: true, make }
}

use AtTheCa::{Accepts, NotAsked, Refuses};

const KINDS: &[Kind] = &[
    // Healthy, each in its own way.
    kind("routed by CNAME", None, Accepts, Making::alias),
    kind("TXT and A", None, Accepts, |zone| {
        zone.token();
        zone.here(A, &[EDGE]);
    }),
    at_the_apex("TXT and A at the apex", None, Accepts, |zone| {
        zone.token();
        zone.here(A, &[EDGE]);
    }),
    kind("CNAME over a name of one's own, and TXT", None, Accepts, |zone| {
        let between = format!("edge.{}", zone.zone);
        zone.token();
        zone.here(Cname, &[&between]);
        zone.set(&between, A, &[EDGE]);
    }),
    kind("CAA that allows", None, Accepts, |zone| zone.caa(&[r#"0 issue "ca.test; validationmethods=http-01""#])),
    kind("token among other values", None, Accepts, |zone| {
        let token = zone.subject.token.to_string();
        zone.set(&zone.subject.txt_name.clone(), Txt, &["something else", &token]);
        zone.here(A, &[EDGE]);
    }),
    kind("routed by CNAME, in small letters or not", None, Accepts, |zone| {
        let shouted = zone.subject.routing_target.to_ascii_uppercase();
        zone.here(Cname, &[&shouted]);
    }),
    kind("HTTPS that stays here", None, Accepts, |zone| {
        zone.token();
        zone.here(A, &[EDGE]);
        zone.here(Https, &["1 . alpn=h2"]);
    }),
    at_the_apex("CAA for wildcards only", None, Accepts, |zone| {
        zone.token();
        zone.here(A, &[EDGE]);
        zone.set(&zone.zone.clone(), Caa, &[r#"0 issuewild ";""#]);
    }),
    kind("a chain of three", None, Accepts, |zone| {
        zone.token();
        let link = |n: usize, zone: &Making| format!("link{n}.{}", zone.zone);
        zone.here(Cname, &[&link(1, zone)]);
        zone.set(&link(1, zone), Cname, &[&link(2, zone)]);
        zone.set(&link(2, zone), A, &[EDGE]);
    }),
    // Nothing there, or not where it should be.
    kind("no such name", Some("dns.name_missing"), Refuses, |_| {}),
    kind("no such domain", Some("dns.zone_missing"), Refuses, |_| {}),
    kind("addresses elsewhere, no proof", Some("dns.record_missing"), Refuses, |zone| zone.here(A, &[NOWHERE])),
    kind("TXT doubled", Some("dns.txt_doubled"), Refuses, |zone| {
        let name = format!("{}.{}", zone.subject.txt_name, zone.zone);
        let token = zone.subject.token.to_string();
        zone.set(&name, Txt, &[&token]);
    }),
    kind("CNAME doubled", Some("dns.cname_doubled"), Refuses, |zone| {
        let (name, target) = (format!("{}.{}", zone.hostname, zone.zone), zone.subject.routing_target.clone());
        zone.set(&name, Cname, &[&target]);
    }),
    kind("proved, not routed", Some("dns.routing_missing"), Refuses, Making::token),
    // Here, without a proof: no concern of a CA's.
    at_the_apex("no TXT at the apex", Some("dns.txt_missing"), Accepts, |zone| zone.here(A, &[EDGE])),
    kind("another TXT", Some("dns.txt_mismatch"), Accepts, |zone| {
        zone.set(&zone.subject.txt_name.clone(), Txt, &["np-token-of-another"]);
        zone.here(A, &[EDGE]);
    }),
    kind("flattened", Some("dns.cname_flattened"), Accepts, |zone| zone.here(A, &[EDGE])),
    kind("another claim's target", Some("dns.cname_other_claim"), Accepts, |zone| zone.here(Cname, &["another.t.edge.test"])),
    // Elsewhere.
    kind("CNAME elsewhere", Some("dns.cname_elsewhere"), Refuses, |zone| {
        let shops = format!("shops.rival-of-{}", zone.zone);
        zone.here(Cname, &[&shops]);
        zone.set(&shops, A, &[NOWHERE]);
    }),
    kind("CNAME to nothing", Some("dns.cname_dangling"), Refuses, |zone| zone.here(Cname, &["nothing.nowhere.test"])),
    kind("CNAME loop", Some("dns.cname_loop"), Refuses, |zone| {
        let (between, hostname) = (format!("between.{}", zone.zone), zone.hostname.clone());
        zone.here(Cname, &[&between]);
        zone.set(&between, Cname, &[&hostname]);
    }),
    kind("CNAME chain without end", Some("dns.cname_too_long"), Refuses, |zone| {
        let link = |n: usize, zone: &Making| format!("link{n}.{}", zone.zone);
        zone.here(Cname, &[&link(0, zone)]);
        for n in 0..20 {
            zone.set(&link(n, zone), Cname, &[&link(n + 1, zone)]);
        }
        zone.set(&link(20, zone), A, &[EDGE]);
    }),
    kind("CNAME into a failing zone", Some("dns.cname_target_fails"), Refuses, |zone| {
        let shops = format!("shops.rival-of-{}", zone.zone);
        zone.here(Cname, &[&shops]);
        for record_type in [A, Aaaa] {
            zone.fails(&shops, Some(record_type), "SERVFAIL");
        }
    }),
    at_the_apex("CNAME at the apex", Some("dns.cname_at_apex"), Refuses, |zone| {
        let alias = Record { name: zone.zone.clone(), record_type: Cname, ttl: None, data: vec!["nothing.nowhere.test".into()] };
        for record_type in [Cname, A, Aaaa] {
            let quirk = Quirk { name: zone.zone.clone(), record_type: Some(record_type), answer: vec![alias.clone()], ..Quirk::default() };
            zone.quirks.push(quirk);
        }
    }),
    kind("a wildcard elsewhere", Some("dns.wildcard_elsewhere"), Refuses, |zone| zone.set(&format!("*.{}", zone.zone), A, &[NOWHERE])),
    kind("a wildcard switched off by the TXT", Some("dns.wildcard_switched_off"), Refuses, |zone| {
        zone.token();
        // Right above the name, so that it would answer for it.
        let above = zone.hostname.split_once('.').unwrap().1.to_owned();
        zone.set(&format!("*.{above}"), A, &[NOWHERE]);
    }),
    kind("addresses elsewhere", Some("dns.address_elsewhere"), Refuses, |zone| {
        zone.token();
        zone.here(A, &[NOWHERE]);
    }),
    kind("some addresses elsewhere", Some("dns.address_mixed"), NotAsked, |zone| {
        zone.token();
        zone.here(A, &[EDGE, NOWHERE]);
    }),
    kind("a private address", Some("dns.address_private"), Refuses, |zone| {
        zone.token();
        zone.here(A, &["127.0.0.66"]);
    }),
    kind("a proxy", Some("dns.proxied"), NotAsked, |zone| {
        zone.token();
        zone.here(A, &["104.21.7.9"]);
    }),
    kind("AAAA elsewhere", Some("dns.aaaa_elsewhere"), Refuses, |zone| {
        zone.token();
        zone.here(A, &[EDGE]);
        zone.here(Aaaa, &["::1"]);
    }),
    kind("HTTPS elsewhere", Some("dns.https_elsewhere"), Accepts, |zone| {
        zone.token();
        zone.here(A, &[EDGE]);
        zone.here(Https, &["1 cdn.rival.test alpn=h2"]);
    }),
    // Servers that fail.
    kind("SERVFAIL", Some("dns.servfail"), Refuses, |zone| {
        zone.alias();
        zone.fails(&zone.hostname.clone(), None, "SERVFAIL");
    }),
    kind("REFUSED", Some("dns.refused"), Refuses, |zone| {
        zone.alias();
        zone.fails(&zone.hostname.clone(), None, "REFUSED");
    }),
    kind("a malformed answer", Some("dns.malformed"), Refuses, |zone| {
        zone.alias();
        zone.fails(&zone.hostname.clone(), None, "FORMERR");
    }),
    kind("no answer", Some("dns.unreachable"), Refuses, |zone| {
        zone.alias();
        for record_type in [Cname, A, Aaaa] {
            let silent = Quirk { name: zone.hostname.clone(), record_type: Some(record_type), drop: true, ..Quirk::default() };
            zone.quirks.push(silent);
        }
    }),
    kind("a server without address", Some("dns.server_missing"), Accepts, |zone| {
        zone.alias();
        zone.set(&zone.zone.clone(), Ns, &["ns1.nowhere.test"]);
    }),
    // Signatures: Pebble checks none, and its resolver does.
    kind("bogus", Some("dns.dnssec_bogus"), Refuses, |zone| zone.bogus(DS_OF_KEY, Some(6))),
    kind("expired", Some("dns.dnssec_expired"), Refuses, |zone| zone.bogus(DS_OF_KEY, Some(7))),
    kind("unsigned", Some("dns.dnssec_unsigned"), Refuses, |zone| zone.bogus(DS_OF_KEY, Some(10))),
    kind("another key", Some("dns.dnssec_key_mismatch"), Refuses, |zone| zone.bogus("1 13 2 00", None)),
    // CAA, which Pebble does not look at.
    kind("CAA for another CA", Some("caa.forbids"), Accepts, |zone| zone.caa(&[r#"0 issue "other.test""#])),
    kind("CAA for another account", Some("caa.forbids_account"), Accepts, |zone| {
        zone.caa(&[r#"0 issue "ca.test; accounturi=https://ca.test/acct/8""#]);
    }),
    kind("CAA for another challenge", Some("caa.forbids_method"), Accepts, |zone| {
        zone.caa(&[r#"0 issue "ca.test; validationmethods=dns-01""#]);
    }),
    kind("CAA with a critical unknown", Some("caa.critical_unknown"), Accepts, |zone| {
        zone.caa(&[r#"0 issue "ca.test""#, r#"128 tbs "unknown""#]);
    }),
    kind("CAA that fails", Some("caa.unreadable"), Accepts, |zone| {
        zone.alias();
        zone.fails(&zone.zone.clone(), Some(Caa), "SERVFAIL");
    }),
];
