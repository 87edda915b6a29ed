//! What a judge may never say, whatever DNS shows.

#![allow(clippy::unwrap_used, reason = "tests may")]

use domains::{
    Answer, Asked, CaChoice, CaaIssuer, ChainEnd, ClaimId, DelegationSubject, Dnssec, Failure, Further, Hostname, Look, LookSubject,
    Observed, OwnershipToken, Proof, Routing, ServerAnswer, SignedZone, ZoneCut, judge,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

const TARGET: &str = "ours.t.edge.acme-saas.io";
const TOKEN: &str = "np-ours";
const CNAMES: &[&str] = &[
    TARGET,
    "theirs.t.edge.acme-saas.io",
    "third.t.edge.acme-saas.io",
    "www.brand.com",
    "a.b.t.edge.acme-saas.io",
    "t.edge.acme-saas.io",
    "xours.t.edge.acme-saas.io.evil.com",
];
const ANSWERS: &str = "ours.acme.edge.acme-saas.io";
const DELEGATIONS: &[&str] = &[ANSWERS, "theirs.acme.edge.acme-saas.io", "brand.other-acme.net", "acme.edge.acme-saas.io"];
const TXTS: &[&str] = &[TOKEN, "\"np-ours\"", " np-ours ", "np-theirs", "NP-OURS", "np-ours2", "", "\u{fffd}\u{0}\r\n", "v=spf1 -all"];
const CAAS: &[&str] = &[
    "0 issue \"ca.net\"",
    "0 issue \";\"",
    "128 tbs \"?\"",
    "0 issuewild \"other.net\"",
    "0 issue \"ca.net; accounturi=x; accounturi=y\"",
    "0 issue \"ca.net; validationmethods=dns-01\"",
    "x",
    "",
    "0 issue \"\u{0}\u{7}\"",
];
const HTTPS: &[&str] = &["1 .", "0 cdn.rival.net", "1 . 52.1.2.3", "1 . 203.0.113.80", "", "\r\n"];
const DSS: &[&str] = &["7 13 2 aa", "8 13 1 bb", "", "x"];
const KEYS: &[&str] = &["7 13 aa", "8 13 cc", "", "x"];
const ADDRESSES: &[&str] =
    &["52.1.2.3", "104.16.0.1", "10.0.0.7", "52.1.2.4", "203.0.113.80", "2600:1f00::3", "2a00:1450::80", "not an address"];

fn subject(hostname: &str) -> LookSubject {
    LookSubject {
        hostname: Hostname::parse_name(hostname).unwrap(),
        claim_id: ClaimId::parse("ours").unwrap(),
        routing_target: TARGET.into(),
        targets_zone: "t.edge.acme-saas.io".into(),
        txt_name: format!("_nameplate.{}", hostname.trim_start_matches("*.")),
        token: OwnershipToken::parse(TOKEN).unwrap(),
        edge_addresses: ["52.1.2.3", "52.1.2.4", "2600:1f00::3"].map(|address| address.parse().unwrap()).into(),
        issuers: vec![CaaIssuer {
            ca: CaChoice::First,
            identities: vec!["ca.net".into()],
            account_uri: Some("https://ca.net/acct/7".into()),
            methods: vec!["http-01".into()],
        }],
        proved: false,
        delegation: Some(DelegationSubject {
            name: format!("_acme-challenge.{}", hostname.trim_start_matches("*.")),
            target: ANSWERS.into(),
            answers_zone: "acme.edge.acme-saas.io".into(),
            wanted: hostname.starts_with('*'),
        }),
    }
}

fn subjects() -> impl Strategy<Value = LookSubject> {
    select(&["shop.brand.com", "brand.com", "*.brand.com", "brand.co.uk", "a.b.brand.com"][..]).prop_map(subject)
}

fn failures() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::Servfail),
        Just(Failure::Refused),
        Just(Failure::Unreachable),
        "\\PC{0,40}|[\\x00-\\x1f]{0,9}".prop_map(|detail| Failure::Malformed { detail }),
        Just(Failure::NotGlobal),
        Just(Failure::NoAddress),
        Just(Failure::BudgetSpent),
    ]
}

fn answers(values: &'static [&'static str]) -> impl Strategy<Value = Answer> {
    prop_oneof![
        5 => vec(select(values), 1..=2).prop_map(|records| Answer::Records(records.into_iter().map(str::to_owned).collect())),
        2 => Just(Answer::Records(vec![values[0].to_owned()])),
        2 => Just(Answer::NoData),
        1 => Just(Answer::NxDomain),
        2 => failures().prop_map(Answer::Failed),
    ]
}

fn observed(values: &'static [&'static str]) -> impl Strategy<Value = Observed> {
    (vec(answers(values), 0..=3), answers(values)).prop_map(|(authority, resolver)| {
        let authority = authority.into_iter().enumerate().map(|(n, answer)| ServerAnswer { server: format!("ns{n}"), answer });
        Observed { name: "asked".into(), authority: authority.collect(), resolver }
    })
}

fn asked(values: &'static [&'static str]) -> impl Strategy<Value = Asked> {
    answers(values).prop_map(|answer| Asked { name: "asked.brand.com".into(), server: "resolver".into(), answer })
}

fn furthers() -> impl Strategy<Value = Further> {
    let zone = (answers(DSS), answers(KEYS)).prop_map(|(ds, dnskey)| SignedZone { apex: "brand.com".into(), ds, dnskey });
    let dnssec = (answers(CNAMES), vec(0..26_u16, 0..=2), vec(zone, 0..=2)).prop_map(|(unchecked, extended_errors, zones)| Dnssec {
        question: "CNAME asked.brand.com".into(),
        unchecked,
        extended_errors,
        zones,
    });
    let others = (option::of(asked(CNAMES)), option::of(asked(ADDRESSES)), option::of(asked(CNAMES)));
    (vec(asked(CAAS), 0..=3), option::of(asked(HTTPS)), option::of(dnssec), others).prop_map(
        |(caa, https, dnssec, (cname_doubled, wildcard, apex_cname))| Further { caa, https, dnssec, cname_doubled, wildcard, apex_cname },
    )
}

fn looks() -> impl Strategy<Value = Look> {
    let zone = prop_oneof![
        6 => select(&["brand.com", "shop.brand.com"][..]).prop_map(|apex| Ok(ZoneCut { apex: apex.into(), servers: vec!["ns0".into()] })),
        1 => prop_oneof![Just(Answer::NxDomain), Just(Answer::NoData), failures().prop_map(Answer::Failed)].prop_map(Err),
    ];
    let end = select(&[ChainEnd::Complete, ChainEnd::Complete, ChainEnd::Loop, ChainEnd::TooLong, ChainEnd::Unknown][..]);
    let chain = vec(select(CNAMES).prop_map(str::to_owned), 0..=3);
    let (a, aaaa) = (observed(ADDRESSES), observed(ADDRESSES));
    let texts = (observed(TXTS), option::of(observed(TXTS)), option::of(observed(DELEGATIONS)));
    (zone, observed(CNAMES), chain, end, a, aaaa, texts, furthers()).prop_map(
        |(zone, cname, chain, chain_end, a, aaaa, (txt, txt_doubled, delegation), further)| Look {
            zone,
            cname,
            chain,
            chain_end,
            a,
            aaaa,
            txt,
            txt_doubled,
            further,
            delegation,
            queries: 0,
        },
    )
}

/// Every voice that may be heard, and whether it speaks for the claim.
fn speaks(observed: &Observed, shows: impl Fn(&[String]) -> bool) -> bool {
    let mut servers = observed.authority.iter().filter(|said| said.answer.failure().is_none()).peekable();
    servers.peek().is_some() && servers.all(|said| shows(said.answer.records())) && shows(observed.resolver.records())
}

fn speaks_by_cname(look: &Look) -> bool {
    speaks(&look.cname, |records| records == [TARGET])
}

fn speaks_by_delegation(look: &Look) -> bool {
    look.delegation.as_ref().is_some_and(|observed| speaks(observed, |records| records == [ANSWERS]))
}

fn speaks_by_txt(look: &Look) -> bool {
    speaks(&look.txt, |records| records.iter().any(|value| value.trim().trim_matches('"') == TOKEN))
}

fn silenced(observed: &Observed, voice: usize, answer: Answer) -> Observed {
    let mut observed = observed.clone();
    match observed.authority.get_mut(voice) {
        Some(said) => said.answer = answer,
        None => observed.resolver = answer,
    }
    observed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_proof_is_found_while_any_side_lacks_the_record(look in looks(), subject in subjects()) {
        match judge(&look, &subject).proof {
            Some(Proof::Delegation) => prop_assert!(speaks_by_delegation(&look)),
            Some(_) if subject.hostname.is_wildcard() => prop_assert!(false, "only a delegation is of use to a wildcard"),
            Some(Proof::RoutingRecord) => prop_assert!(subject.can_be_alias() && speaks_by_cname(&look)),
            Some(Proof::Txt) => prop_assert!(speaks_by_txt(&look)),
            None => {
                let by_others = speaks_by_txt(&look) || subject.can_be_alias() && speaks_by_cname(&look);
                prop_assert!(!speaks_by_delegation(&look) && (subject.hostname.is_wildcard() || !by_others));
            }
        }
    }

    #[test]
    fn a_proof_ends_when_any_voice_stops_showing_the_record(
        look in looks(),
        subject in subjects(),
        voice in 0..4_usize,
        silence in select(&[Answer::NoData, Answer::NxDomain][..]),
    ) {
        let shown = Answer::Records(vec![TARGET.into()]);
        let token = Answer::Records(vec![TOKEN.into()]);
        let all = |observed: &Observed, answer: &Answer| {
            let server = |n| ServerAnswer { server: format!("ns{n}"), answer: answer.clone() };
            Observed { name: observed.name.clone(), authority: (0..3).map(server).collect(), resolver: answer.clone() }
        };
        let answered = Answer::Records(vec![ANSWERS.into()]);
        let delegation = Some(all(&look.txt, &answered));
        let proved = Look { cname: all(&look.cname, &shown), txt: all(&look.txt, &token), delegation, ..look };
        prop_assert!(judge(&proved, &subject).proof.is_some());
        let lacking = Look {
            cname: silenced(&proved.cname, voice, silence.clone()),
            txt: silenced(&proved.txt, voice, silence.clone()),
            delegation: proved.delegation.as_ref().map(|observed| silenced(observed, voice, silence)),
            ..proved
        };
        prop_assert_eq!(judge(&lacking, &subject).proof, None);
    }

    #[test]
    fn whatever_is_not_proved_and_routed_says_why_and_what_to_do(look in looks(), subject in subjects()) {
        let judged = judge(&look, &subject);
        let fine = judged.proof.is_some() && judged.routing.is_ours();
        prop_assert!(fine || judged.finding.is_some(), "{:?}", &judged);
        prop_assert!(!fine || judged.finding == judged.obstacle.clone().or(judged.advice.clone()), "{:?}", &judged);
        let is_answered = judged.routing.is_ours() || judged.delegation == domains::Delegation::Ours;
        prop_assert_eq!(judged.may_order(), is_answered && judged.obstacle.is_none());
        if let Some(finding) = judged.finding {
            prop_assert!(finding.code.is_of_a_look());
            prop_assert!(finding.action.contains(&finding.about), "{:?}", finding);
            prop_assert!(!finding.expected.is_empty() && !finding.saw.is_empty(), "{:?}", finding);
            prop_assert!(finding.saw.chars().count() < 1100 && !finding.saw.contains(char::is_control), "{:?}", finding);
        }
    }

    #[test]
    fn a_name_that_any_voice_routes_to_another_claim_is_never_ours(look in looks(), subject in subjects()) {
        let theirs = |target: &String| target == "theirs.t.edge.acme-saas.io" || target == "third.t.edge.acme-saas.io";
        let voices = look.cname.authority.iter().map(|said| &said.answer).chain([&look.cname.resolver]);
        let named = voices.flat_map(Answer::records).chain(&look.chain).any(theirs);
        let routing = judge(&look, &subject).routing;
        if named {
            prop_assert!(matches!(routing, Routing::OtherClaim(_) | Routing::Unknown), "{:?}", routing);
        } else {
            prop_assert!(!matches!(routing, Routing::OtherClaim(_)), "{:?}", routing);
        }
    }

    #[test]
    fn a_name_is_at_the_edges_addresses_only_when_the_resolver_leads_nowhere_else(look in looks(), subject in subjects()) {
        if judge(&look, &subject).routing == Routing::EdgeAddresses {
            let edge = |address: &String| address.parse().is_ok_and(|address| subject.edge_addresses.contains(&address));
            prop_assert!(!look.a.resolver.records().is_empty());
            prop_assert!(look.a.resolver.records().iter().chain(look.aaaa.resolver.records()).all(edge));
        }
    }

    #[test]
    fn a_failure_never_reads_as_absence(look in looks(), subject in subjects(), failure in failures()) {
        let fails = |observed: &Observed| {
            let authority = (0..2).map(|n| ServerAnswer { server: format!("ns{n}"), answer: Answer::Failed(failure.clone()) });
            Observed { name: observed.name.clone(), authority: authority.collect(), resolver: Answer::Failed(failure.clone()) }
        };
        let zone = Ok(ZoneCut { apex: "brand.com".into(), servers: vec!["ns0".into()] });
        let unread = Look {
            zone, cname: fails(&look.cname), a: fails(&look.a), aaaa: fails(&look.aaaa), txt: fails(&look.txt), chain: Vec::new(),
            chain_end: ChainEnd::Unknown, delegation: Some(fails(&look.txt)), ..look
        };
        let judged = judge(&unread, &subject);
        prop_assert_eq!(&judged.routing, &Routing::Unknown);
        prop_assert_eq!(judged.proof, None);
        let code = judged.finding.map(|finding| finding.code.as_str()).unwrap_or_default();
        let own = match failure {
            Failure::Servfail => "dns.servfail",
            Failure::Refused => "dns.refused",
            Failure::Unreachable => "dns.unreachable",
            Failure::Malformed { .. } => "dns.malformed",
            Failure::NotGlobal => "dns.server_not_global",
            Failure::NoAddress => "dns.server_missing",
            Failure::BudgetSpent => "dns.too_many_queries",
        };
        prop_assert_eq!(code, own);
    }
}

#[test]
fn a_token_of_one_tenant_never_proves_the_claim_of_another() {
    let b = subject("shop.brand.com");
    let a = LookSubject {
        claim_id: ClaimId::parse("theirs").unwrap(),
        routing_target: "theirs.t.edge.acme-saas.io".into(),
        token: OwnershipToken::parse("np-theirs").unwrap(),
        ..b.clone()
    };
    let answers = |name: &str, value: &str| Observed {
        name: name.into(),
        authority: vec![ServerAnswer { server: "ns1".into(), answer: Answer::Records(vec![value.into()]) }],
        resolver: Answer::Records(vec![value.into()]),
    };
    let none = |name: &str| Observed {
        name: name.into(),
        authority: vec![ServerAnswer { server: "ns1".into(), answer: Answer::NoData }],
        resolver: Answer::NoData,
    };
    let look = Look {
        zone: Ok(ZoneCut { apex: "brand.com".into(), servers: vec!["ns1".into()] }),
        cname: none("shop.brand.com"),
        chain: Vec::new(),
        chain_end: ChainEnd::Complete,
        a: none("shop.brand.com"),
        aaaa: none("shop.brand.com"),
        txt: answers("_nameplate.shop.brand.com", "np-theirs"),
        txt_doubled: None,
        further: Further::default(),
        delegation: None,
        queries: 0,
    };
    assert_eq!(judge(&look, &a).proof, Some(Proof::Txt));
    assert_eq!(judge(&look, &b).proof, None);
    let routed = Look { cname: answers("shop.brand.com", &a.routing_target), txt: none("_nameplate.shop.brand.com"), ..look };
    assert_eq!(judge(&routed, &a).proof, Some(Proof::RoutingRecord));
    let judged = judge(&routed, &b);
    assert_eq!((judged.proof, judged.routing), (None, Routing::OtherClaim(a.claim_id)));
}
