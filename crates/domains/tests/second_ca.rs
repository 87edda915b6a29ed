//! Two CAs: CAA records, read from a look, say which of them may be asked and how, and what the one says of a name is no news of the other.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use domains::{
    Answer, Asked, CaChoice, CaaIssuer, ChainEnd, Claim, ClaimId, ClaimKey, Failover, Further, Hostname, IssuancePolicy, IssueError,
    Issued, LastLook, Look, LookSchedule, Observed, Owner, OwnershipToken, PreparedKey, ProblemCode, ServerAnswer, SiteVersion, TenantId,
    Timestamp, ZoneCut, ZoneSettings,
    decide::{self, SUSPENDED_AFTER},
    judge,
    ledger::Wait,
};

use CaChoice::{First, Second};

fn at(seconds: u64) -> Timestamp {
    "2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap().checked_add(Duration::from_secs(seconds)).unwrap()
}

fn zone() -> ZoneSettings {
    let issuer = |ca: CaChoice, name: &str| CaaIssuer {
        ca,
        identities: vec![name.into()],
        account_uri: Some(format!("https://{name}/acct/7")),
        methods: vec!["http-01".into(), "dns-01".into()],
    };
    ZoneSettings {
        zone: Hostname::parse_name("edge.saas.net").unwrap(),
        txt_prefix: "_nameplate".into(),
        edge_addresses: Vec::new(),
        issuers: vec![issuer(First, "first.net"), issuer(Second, "second.net")],
    }
}

fn policy() -> IssuancePolicy {
    IssuancePolicy { failover: Some(Failover::default()), ..IssuancePolicy::default() }
}

fn registered() -> Claim {
    let key = ClaimKey { hostname: Hostname::parse_name("shop.brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
    let (id, token) = (ClaimId::parse("k3q9x2").unwrap(), OwnershipToken::parse("np-verify=5f3a").unwrap());
    decide::register(key, id, token, None, &LookSchedule::default(), at(0)).claims[0].item.clone()
}

/// A look that finds the name here or its challenges delegated, or both, and these CAA records.
fn look(claim: &Claim, is_here: bool, is_delegated: bool, caa: &[&str]) -> Look {
    let subject = claim.look_subject(&zone());
    let observed = |name: &str, answer: Answer| Observed {
        name: name.to_owned(),
        authority: vec![ServerAnswer { server: "ns1.dns.net (192.0.2.53)".into(), answer: answer.clone() }],
        resolver: answer,
    };
    let cname = |shown: bool, target: &str| if shown { Answer::Records(vec![target.to_owned()]) } else { Answer::NoData };
    let hostname = subject.hostname.as_str();
    let elsewhere = if is_here { Answer::NoData } else { Answer::Records(vec!["203.0.113.80".into()]) };
    let delegation = subject.delegation.as_ref().unwrap();
    let answer = if caa.is_empty() { Answer::NoData } else { Answer::Records(caa.iter().map(|&record| record.to_owned()).collect()) };
    Look {
        zone: Ok(ZoneCut { apex: "brand.com".into(), servers: vec!["ns1.dns.net".into()] }),
        cname: observed(hostname, cname(is_here, &subject.routing_target)),
        chain: if is_here { vec![subject.routing_target.clone()] } else { Vec::new() },
        chain_end: ChainEnd::Complete,
        a: observed(hostname, elsewhere),
        aaaa: observed(hostname, Answer::NoData),
        txt: observed(&subject.txt_name, Answer::NxDomain),
        txt_doubled: None,
        delegation: Some(observed(&delegation.name, cname(is_delegated, &delegation.target))),
        further: Further { caa: vec![Asked { name: "brand.com".into(), server: "resolver".into(), answer }], ..Further::default() },
        queries: 6,
    }
}

fn seen(claim: &Claim, is_here: bool, is_delegated: bool, caa: &[&str]) -> (LastLook, Option<ProblemCode>) {
    let judgement = judge(&look(claim, is_here, is_delegated, caa), &claim.look_subject(&zone()));
    (LastLook::of(&judgement, at(5)), judgement.obstacle.map(|obstacle| obstacle.code))
}

/// Issuing, after a look that found this, with an order under way at the CA that it was planned for.
fn ordered(is_here: bool, is_delegated: bool, caa: &[&str]) -> Claim {
    let claim = registered();
    let judgement = judge(&look(&claim, is_here, is_delegated, caa), &claim.look_subject(&zone()));
    let looked = decide::after_look(&claim, None, None, &judgement, &LookSchedule::default(), at(5), at(5)).unwrap();
    order(&looked.claims[0].item)
}

fn order(claim: &Claim) -> Claim {
    let plan = decide::plan_order(claim, claim.last_look.as_ref().unwrap(), &zone()).unwrap();
    let key = PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: "ab".into() };
    decide::lease_issuance(claim, Some((key, plan)), &policy(), at(10)).unwrap().claims.remove(0).item
}

fn refused(claim: &Claim, error: &IssueError, now: Timestamp) -> Claim {
    decide::record_refusal(claim, error, &policy(), now).unwrap().claims.remove(0).item
}

fn down() -> IssueError {
    IssueError::Unavailable { retry_after: None, detail: "503".into() }
}

#[test]
fn an_order_is_planned_for_a_ca_and_a_challenge_that_caa_records_allow_and_for_no_other() {
    let (http, dns) = (Some("http-01"), Some("dns-01"));
    for (caa, here, delegated, code, of_first, of_second) in [
        (&[][..], true, false, None, Some((First, http)), Some((Second, http))),
        (&[r#"0 issue "first.net""#], true, false, None, Some((First, http)), Some((First, http))),
        (&[r#"0 issue "second.net""#], true, false, None, Some((Second, http)), Some((Second, http))),
        (&[r#"0 issue "first.net""#, r#"0 issue "second.net""#], true, true, None, Some((First, dns)), Some((Second, dns))),
        (&[r#"0 issue "first.net; validationmethods=http-01""#], true, true, None, Some((First, http)), Some((First, http))),
        (&[r#"0 issue "first.net; validationmethods=dns-01""#], true, false, Some(ProblemCode::CaaForbidsMethod), None, None),
        (&[r#"0 issue "first.net; validationmethods=http-01""#], false, true, Some(ProblemCode::CaaForbidsMethod), None, None),
        (&[r#"0 issue "first.net; accounturi=https://second.net/acct/7""#], true, false, Some(ProblemCode::CaaForbidsAccount), None, None),
        (&[r#"0 issue "second.net; accounturi=https://second.net/acct/7""#], true, false, None, Some((Second, http)), Some((Second, http))),
        (&[r#"0 issue "third.net""#], true, true, Some(ProblemCode::CaaForbids), None, None),
        (&[r#"128 tbs "x""#], true, true, Some(ProblemCode::CaaCriticalUnknown), None, None),
    ] {
        let claim = ordered(true, false, &[]);
        let (seen, found) = seen(&claim, here, delegated, caa);
        assert_eq!(found, code, "{caa:?}, here {here}, delegated {delegated}");
        for (wanted, expected) in [(First, of_first), (Second, of_second)] {
            let mut claim = claim.clone();
            if let domains::State::Issuing { issuance, .. } = &mut claim.state {
                issuance.ca = wanted;
            }
            let plan = decide::plan_order(&claim, &seen, &zone());
            let planned = plan.as_ref().map(|plan| (plan.ca, Some(plan.challenge.kind().as_str())));
            assert_eq!(planned, expected, "{caa:?}, here {here}, delegated {delegated}, when it is the turn of {wanted:?}");
        }
    }
}

#[test]
fn a_second_ca_that_is_not_configured_is_planned_for_by_nobody() {
    let claim = ordered(true, false, &[]);
    let (seen, _) = seen(&claim, true, false, &[r#"0 issue "second.net""#]);
    let mut alone = zone();
    alone.issuers.truncate(1);
    assert_eq!(decide::plan_order(&claim, &seen, &alone), None);
    alone.issuers.clear();
    assert!(decide::plan_order(&claim, &LastLook { forbidden: Vec::new(), ..seen }, &alone).is_some());
}

#[test]
fn an_outage_of_the_first_turns_to_the_second_only_those_names_whose_caa_records_allow_it() {
    for (caa, http_01, delegated, expected) in [
        (&[][..], true, false, Second),
        (&[r#"0 issue "first.net""#][..], true, false, First),
        (&[r#"0 issue "first.net""#, r#"0 issue "second.net""#], true, false, Second),
        (&[r#"0 issue "first.net""#, r#"0 issue "second.net; validationmethods=dns-01""#], true, false, First),
        (&[r#"0 issue "first.net""#, r#"0 issue "second.net; validationmethods=dns-01""#], true, true, Second),
        (&[r#"0 issue "first.net""#, r#"0 issue "second.net; validationmethods=http-01""#], false, true, First),
    ] {
        let mut claim = ordered(true, delegated, caa);
        let policy = IssuancePolicy { failover: Some(Failover { http_01, ..Failover::default() }), ..IssuancePolicy::default() };
        for minute in [0, 20, 40] {
            claim = decide::record_refusal(&claim, &down(), &policy, at(10 + 60 * minute)).unwrap().claims.remove(0).item;
        }
        let issuance = claim.issuance().unwrap();
        assert_eq!((issuance.ca, issuance.attempt.is_none()), (expected, expected == Second), "{caa:?}");
        assert_eq!(claim.problem.as_ref().unwrap().code, ProblemCode::CaUnavailable, "{caa:?}");
    }
}

#[test]
fn where_caa_records_allow_the_second_ca_alone_an_order_there_is_not_given_up_for_the_first() {
    let claim = ordered(true, false, &[r#"0 issue "second.net""#]);
    assert_eq!(claim.issuance().unwrap().at(), Second);
    let after = refused(&claim, &down(), at(60));
    let issuance = after.issuance().unwrap();
    assert!(issuance.ca == Second && issuance.attempt.is_some(), "{issuance:?}");
    let mut failing = claim;
    for _ in 0..SUSPENDED_AFTER {
        failing = order(&refused(&failing, &IssueError::ChallengeFailed { detail: "404".into() }, at(60)));
    }
    assert_eq!(failing.problem.unwrap().code, ProblemCode::CaSuspended, "no other CA is left");
}

#[test]
fn what_the_second_ca_refuses_is_held_against_the_name_there_alone() {
    let mut claim = ordered(true, false, &[]);
    for (hour, error) in [(0, IssueError::CaaForbids { detail: "caa".into() }), (1, IssueError::Paused { detail: "visit us".into() })] {
        // The second time it is known to be down.
        for at_minute in [0, 40].into_iter().skip(usize::from(hour > 0)) {
            claim = refused(&claim, &down(), at(60 * (at_minute + 60 * hour)));
        }
        assert_eq!(claim.issuance().unwrap().ca, Second, "{error}");
        claim = order(&claim);
        let now = at(60 * (41 + 60 * hour));
        claim = refused(&claim, &error, now);
        let issuance = claim.issuance().unwrap();
        assert_eq!((issuance.ca, issuance.name_failures, &issuance.stopped), (First, 0, &None), "{error}");
        assert!(issuance.next_look.duration_since(now).as_secs() <= 86_400, "{error} stopped the first as well");
        claim = order(&claim);
        assert_eq!(claim.issuance().unwrap().at(), First);
    }
    let again = refused(&claim, &down(), at(3 * 3_600));
    assert_eq!(again.issuance().unwrap().ca, First, "a CA that paused the name was asked again");
}

#[test]
fn the_second_cas_wait_is_not_the_first_ones() {
    let mut claim = ordered(true, false, &[]);
    for minute in [0, 40] {
        claim = refused(&claim, &down(), at(60 * minute));
    }
    claim = order(&claim);
    assert_eq!(claim.issuance().unwrap().at(), Second);
    let week = Duration::from_secs(7 * 86_400);
    let limited = refused(&claim, &IssueError::RateLimited { retry_after: Some(week), detail: "429".into() }, at(2_500));
    let issuance = limited.issuance().unwrap();
    assert_eq!(issuance.ca, First);
    assert!(issuance.next_look.duration_since(at(2_500)).as_secs() < 3_600, "the first is asked in {:?}", issuance.next_look);
    let day = 86_400;
    for (now, expected) in [(at(6 * day), First), (at(8 * day), Second)] {
        let wait = Wait { bucket: "ca|orders".into(), until: now.checked_add(week).unwrap(), paused_for: None };
        let waiting = decide::await_turn(&order(&limited), &wait, "new orders", &policy(), now).unwrap().claims.remove(0).item;
        assert_eq!(waiting.issuance().unwrap().ca, expected, "the second asked for a week");
        assert_eq!(waiting.issuance().unwrap().attempt.is_some(), expected == First, "its place in the first one's queue is lost");
    }
}

#[test]
fn without_an_answer_zone_a_delegated_name_is_proved_by_http_01_where_that_would_do() {
    let forbids = r#"0 issue "first.net; validationmethods=dns-01""#;
    for (is_here, caa, expected) in [(true, &[][..], "http-01"), (false, &[], "dns-01"), (true, &[forbids], "dns-01")] {
        let claim = ordered(is_here, true, caa);
        let seen = claim.last_look.as_ref().unwrap();
        let plan = decide::plan_order(&claim, seen, &zone()).unwrap();
        assert_eq!(plan.challenge.kind().as_str(), "dns-01");
        assert_eq!(decide::without_answer_zone(plan, &claim, seen).challenge.kind().as_str(), expected, "here: {is_here}, {caa:?}");
    }
}

#[test]
fn many_short_waits_of_several_kinds_are_one_long_wait_for_the_first_ca() {
    let mut claim = ordered(true, false, &[]);
    let judgement = judge(&look(&claim, false, false, &[]), &claim.look_subject(&zone()));
    let here = claim.last_look.clone().unwrap();
    for round in 0..8 {
        let now = at(600 * round);
        assert_eq!(claim.issuance().unwrap().at(), First, "after {round} waits of ten minutes");
        claim = if round % 3 == 2 {
            decide::postpone_order(&claim, &judgement, &LookSchedule::default(), now).unwrap().claims.remove(0).item
        } else {
            let paused_for = (round % 3 == 1).then(|| "429".to_owned());
            let wait = Wait { bucket: "ca|orders".into(), until: at(600 * (round + 1)), paused_for };
            let plan = decide::plan_order(&claim, &here, &zone()).unwrap();
            let leased = decide::lease_for_order(&claim, None, plan, &here, &policy(), now).unwrap().claims.remove(0).item;
            decide::await_turn(&leased, &wait, "orders", &policy(), now).unwrap().claims.remove(0).item
        };
        if claim.issuance().unwrap().ca == Second {
            assert_eq!(round, 6, "its patience is an hour");
            return;
        }
    }
    panic!("it waits for the first CA for ever: {:?}", claim.issuance());
}

#[test]
fn a_second_ca_that_asks_everybody_to_wait_keeps_no_name_from_the_first() {
    let turned = |caa: &[&str]| {
        let mut claim = ordered(true, false, caa);
        for minute in [0, 40] {
            claim = refused(&claim, &down(), at(60 * minute));
        }
        order(&claim)
    };
    let week = at(7 * 86_400);
    let paused = Wait { bucket: "ca|pace".into(), until: week, paused_for: Some("429".into()) };
    let queued = Wait { paused_for: None, ..paused.clone() };
    let waiting =
        |claim: &Claim, wait: &Wait| decide::await_turn(claim, wait, "orders", &policy(), at(2_500)).unwrap().claims.remove(0).item;
    let claim = turned(&[]);
    assert_eq!(claim.issuance().unwrap().at(), Second);
    let back = waiting(&claim, &paused);
    let issuance = back.issuance().unwrap();
    assert_eq!((issuance.ca, &issuance.attempt, issuance.second_not_before), (First, &None, Some(week)));
    assert!(issuance.next_look.duration_since(at(2_500)).as_secs() < 60, "the first is asked in {:?}", issuance.next_look);
    assert_eq!(waiting(&claim, &queued).issuance().unwrap().at(), Second, "its own queue is waited for");
    let alone = waiting(&order(&ordered(true, false, &[r#"0 issue "second.net""#])), &paused);
    assert_eq!(alone.issuance().unwrap().at(), Second, "CAA records allow the second alone");
}

#[test]
fn a_certificate_that_is_late_is_no_outage_of_the_first_ca() {
    let late = IssueError::CertificateLate { retry_after: None, detail: "not known yet".into() };
    let claim = refused(&ordered(true, false, &[]), &late, at(60));
    assert_eq!(claim.problem.as_ref().unwrap().code, ProblemCode::CaUnavailable);
    let claim = refused(&claim, &down(), at(3 * 3_600));
    assert_eq!(claim.issuance().unwrap().ca, First, "one 503 counts as hours of silence");
    let claim = refused(&claim, &down(), at(3 * 3_600 + 40 * 60));
    assert_eq!(claim.issuance().unwrap().ca, Second);
}

/// Active, with a certificate of so many days from now on, and its renewal's order under way.
fn renewing(days: u64) -> Claim {
    let claim = ordered(true, false, &[]);
    let owner =
        Owner { hostname: claim.key.hostname.clone(), tenant: Some(claim.key.tenant.clone()), site_version: SiteVersion(0), version: 1 };
    let (not_before, not_after) = (at(60), at(60 + days * 86_400));
    let issued = Issued { chain: "chain".into(), serial: "01".into(), not_before, not_after, ari_id: None };
    order(&decide::record_certificate(&claim, &owner, &issued, &LookSchedule::default(), at(60)).unwrap().claims[0].item)
}

#[test]
fn a_limit_of_the_first_ca_turns_no_renewal_away_while_enough_of_its_own_life_is_left() {
    let limited = IssueError::RateLimited { retry_after: Some(Duration::from_secs(3_600)), detail: "429".into() };
    for (days, now, expected) in [(6, 4 * 86_400, First), (6, 5 * 86_400, Second), (90, 80 * 86_400, First), (90, 88 * 86_400, Second)] {
        let claim = refused(&renewing(days), &limited, at(now));
        assert_eq!(claim.issuance().unwrap().ca, expected, "a certificate of {days} days, {} days old", now / 86_400);
    }
}

#[test]
fn a_name_that_the_second_ca_paused_goes_on_being_renewed_at_the_first() {
    let mut claim = renewing(90);
    for minute in [0, 40] {
        claim = refused(&claim, &down(), at(60 * minute));
    }
    claim = order(&claim);
    assert_eq!(claim.issuance().unwrap().at(), Second);
    let paused = refused(&claim, &IssueError::Paused { detail: "visit us".into() }, at(3_000));
    assert_eq!(paused.problem.as_ref().unwrap().code, ProblemCode::CaPaused);
    let judgement = judge(&look(&paused, true, false, &[]), &paused.look_subject(&zone()));
    let looked = decide::after_look(&paused, None, None, &judgement, &LookSchedule::default(), at(3_060), at(3_060)).unwrap();
    assert_eq!(looked.claims[0].item.issuance().unwrap().stopped, None, "what the second said stopped the first");
}
