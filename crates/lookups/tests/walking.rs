//! How a look finds its way, and what it makes of servers that differ, lag or lie.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use dev_dns::{
    Quirk,
    RecordType::{A, Cname, Ns, Txt},
};
use domains::{Actor, Delegation, Proof, Routing};
use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record,
        rdata::{CNAME, TXT},
    },
};
use support::{EDGE, Puppet, World, claim, questions, rcode, reply_to};

#[tokio::test]
async fn a_look_sends_no_query_that_it_could_do_without() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere("brand.test", A, &["192.0.2.80"]);

    // Nothing there yet: CNAME, TXT and delegation from the resolver, the zone's servers (addresses come along), the first two from the
    // server, and the panel's doubled names.
    let waiting = world.look(&subject).await;
    assert_eq!(waiting.queries, 8, "{:?}", questions(&world.resolver));

    // The CNAME hides where the zone begins, and now CAA matters: at the name, at its zone and at the top.
    world.everywhere("shop.brand.test", Cname, &[&subject.routing_target]);
    assert_eq!(world.look(&subject).await.queries, 9);

    // An apex: A and AAAA of both, and of the server whether a CNAME stands where none can.
    let subject = claim("brand.test", "a");
    world.everywhere(&subject.txt_name, Txt, &[subject.token.as_str()]);
    assert_eq!(world.look(&subject).await.queries, 9);
}

#[tokio::test]
async fn a_registered_domain_is_asked_for_a_cname_only_at_its_own_server() {
    let world = World::of_one().await;
    let subject = claim("brand.test", "a");
    world.everywhere("brand.test", A, &[EDGE]);
    let (code, finding) = world.found(&subject).await;
    assert_eq!((code, finding.about.as_str()), ("dns.txt_missing", "TXT _nameplate.brand.test"));
    assert!(!finding.action.contains("CNAME"), "{finding:?}");
    let asked = world.resolver.zone().queries().queries;
    let at_the_apex = asked.iter().filter(|query| query.record_type == "CNAME" && query.name.eq_ignore_ascii_case("brand.test"));
    assert!(at_the_apex.clone().count() > 0 && at_the_apex.clone().all(|query| !query.recursion_desired), "{asked:?}");
}

#[tokio::test]
async fn a_zone_that_nobody_registered_is_told_apart_from_a_name_that_is_missing_in_its_zone() {
    let world = World::of_one().await;
    world.everywhere("www.brand.test", A, &["192.0.2.80"]);
    world.everywhere("x.empty.brand.test", A, &["192.0.2.80"]);
    let (code, finding) = world.found(&claim("shop.unregistered.test", "a")).await;
    assert_eq!((code, finding.about.as_str()), ("dns.zone_missing", "NS unregistered.test"));
    assert_eq!(world.found(&claim("unregistered.test", "a")).await.0, "dns.zone_missing");
    assert_eq!(world.found(&claim("shop.brand.test", "a")).await.0, "dns.name_missing");
    assert_eq!(world.found(&claim("www.brand.test", "a")).await.0, "dns.live_elsewhere");
    assert_eq!(world.found(&claim("empty.brand.test", "a")).await.0, "dns.record_missing", "an empty non-terminal exists");
}

#[tokio::test]
async fn a_zone_delegated_below_the_registered_domain_is_asked_at_its_own_servers() {
    let world = World::with_servers(2).await;
    // ns1 serves brand.test, ns2 serves eu.brand.test: only the second knows the record.
    world.resolver.zone().set("brand.test", Ns, &["ns1.brand.test"]).unwrap();
    world.resolver.zone().set("eu.brand.test", Ns, &["ns2.brand.test"]).unwrap();
    let subject = claim("shop.eu.brand.test", "a");
    for server in [&world.resolver, &world.servers[1]] {
        server.zone().set("shop.eu.brand.test", Cname, &[&subject.routing_target]).unwrap();
    }
    let look = world.look(&subject).await;
    assert_eq!(look.zone.as_ref().unwrap().apex, "eu.brand.test");
    assert_eq!(domains::judge(&look, &subject).proof, Some(Proof::RoutingRecord));
    assert!(questions(&world.servers[0]).is_empty(), "{:?}", questions(&world.servers[0]));
}

#[tokio::test]
async fn a_record_the_resolver_does_not_show_yet_is_propagating_and_nobodys_move() {
    let world = World::with_servers(1).await;
    let subject = claim("shop.brand.test", "a");
    world.servers[0].zone().set("shop.brand.test", Cname, &[&subject.routing_target]).unwrap();
    let judged = world.judged(&subject).await;
    assert_eq!((judged.proof, judged.routing), (None, Routing::Unknown));
    let finding = judged.finding.unwrap();
    assert_eq!((finding.code.as_str(), finding.actor), ("dns.propagating", Actor::Nameplate));

    // Nothing is remembered: the next look sees the resolver's change.
    world.resolver.zone().set("shop.brand.test", Cname, &[&subject.routing_target]).unwrap();
    assert_eq!(world.judged(&subject).await.proof, Some(Proof::RoutingRecord));
    world.servers[0].zone().unset("shop.brand.test", None).unwrap();
    assert_eq!(world.judged(&subject).await.proof, None);
}

#[tokio::test]
async fn servers_of_one_zone_that_differ_are_named_with_what_each_says() {
    let world = World::with_servers(2).await;
    let subject = claim("shop.brand.test", "a");
    for server in [&world.resolver, &world.servers[0]] {
        server.zone().set(&subject.txt_name, Txt, &[subject.token.as_str()]).unwrap();
    }
    let (code, finding) = world.found(&subject).await;
    assert_eq!((code, finding.about.as_str()), ("dns.servers_disagree", "TXT _nameplate.shop.brand.test"));
    assert!(finding.saw.contains("ns1.brand.test (127.0.0.2): np-token-of-a"), "{finding:?}");
    assert!(finding.saw.contains("ns2.brand.test (127.0.0.3): the name does not exist"), "{finding:?}");

    // A server that fails is no vote: the one that answers is enough.
    world.servers[1].zone().quirk(rcode(&subject.txt_name, "SERVFAIL")).unwrap();
    assert_eq!(world.judged(&subject).await.proof, Some(Proof::Txt));
}

#[tokio::test]
async fn a_zone_that_the_resolver_fails_for_is_found_and_no_signature_is_blamed() {
    let world = World::with_servers(1).await;
    let subject = claim("shop.brand.test", "a");
    world.servers[0].zone().set("shop.brand.test", Cname, &[&subject.routing_target]).unwrap();
    // Without checking signatures, too: so it is not they.
    for name in ["shop.brand.test", &subject.txt_name] {
        world.resolver.zone().quirk(rcode(name, "SERVFAIL")).unwrap();
    }
    let (code, finding) = world.found(&subject).await;
    assert_eq!((code, finding.actor, finding.about.as_str()), ("dns.resolver_servfail", Actor::Customer, "CNAME shop.brand.test"));
    assert!(finding.action.contains("not because of DNSSEC"), "{finding:?}");
}

#[tokio::test]
async fn a_server_that_names_no_authority_of_its_own_is_lame_and_proves_nothing() {
    let puppet = Puppet::start(|query| {
        let mut reply = reply_to(&query);
        reply.metadata.authoritative = false;
        let target = Name::from_ascii("claima.t.edge.test.").unwrap();
        reply.add_answer(Record::from_rdata(query.queries[0].name.clone(), 60, RData::CNAME(CNAME(target))));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let world = World::with_puppet(&puppet).await;
    let subject = claim("shop.brand.test", "a");
    world.resolver.zone().set("shop.brand.test", Cname, &[&subject.routing_target]).unwrap();
    assert_eq!(world.found(&subject).await.0, "dns.refused");
}

#[tokio::test]
async fn not_implemented_and_garbage_are_malformed_with_what_was_wrong() {
    let puppet = Puppet::start(|query| {
        let mut reply = reply_to(&query);
        reply.metadata.response_code = ResponseCode::NotImp;
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let subject = claim("shop.brand.test", "a");
    let (code, finding) = World::with_puppet(&puppet).await.found(&subject).await;
    assert_eq!(code, "dns.malformed");
    assert!(finding.saw.contains("response code 4"), "{finding:?}");

    let puppet = Puppet::start(|query| {
        let mut reply = reply_to(&query).to_vec().unwrap();
        reply[6..8].copy_from_slice(&9_u16.to_be_bytes()); // nine answers announced, none there
        vec![reply]
    })
    .await;
    assert_eq!(World::with_puppet(&puppet).await.found(&subject).await.0, "dns.malformed");
}

#[tokio::test]
async fn a_forged_answer_that_does_not_know_the_query_is_passed_over_for_the_true_one() {
    let puppet = Puppet::start(|query| {
        let mut forged = reply_to(&query);
        forged.metadata.id = query.metadata.id.wrapping_add(1);
        forged.add_answer(Record::from_rdata(query.queries[0].name.clone(), 60, RData::TXT(TXT::new(vec!["np-token-of-a".into()]))));
        vec![forged.to_vec().unwrap(), b"".to_vec(), b"\0".to_vec(), reply_to(&query).to_vec().unwrap()]
    })
    .await;
    let world = World::with_puppet(&puppet).await;
    let subject = claim("shop.brand.test", "a");
    let look = world.look(&subject).await;
    assert_eq!(look.txt.authority[0].answer, domains::Answer::NoData);
}

#[tokio::test]
async fn a_question_whose_letters_come_back_changed_is_asked_again_over_tcp() {
    // An answer with the letters all small is what a forger who guessed the number would send, and what some old servers send.
    let puppet = Puppet::start(|query| {
        let mut reply = reply_to(&query);
        let name = query.queries[0].name.to_lowercase();
        reply.queries[0].set_name(name.clone());
        let target = Name::from_ascii("claima.t.edge.test.").unwrap();
        reply.add_answer(Record::from_rdata(name, 60, RData::CNAME(CNAME(target))));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let world = World::with_puppet(&puppet).await;
    let subject = claim("a-long-name-whose-letters-cannot-all-be-small-by-chance.brand.test", "a");
    world.resolver.zone().set(subject.hostname.as_str(), Cname, &[&subject.routing_target]).unwrap();
    let look = world.look(&subject).await;
    assert_eq!(domains::judge(&look, &subject).proof, Some(Proof::RoutingRecord));
    assert_eq!(look.queries, 11, "the two questions to the server went over UDP and over TCP, and CAA was climbed for");
}

#[tokio::test]
async fn an_answer_cut_short_over_udp_is_fetched_over_tcp() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere("shop.brand.test", Cname, &[&subject.routing_target]);
    world.at_servers(&Quirk { name: "shop.brand.test".into(), truncate_udp: true, ..Quirk::default() });
    assert_eq!(world.judged(&subject).await.proof, Some(Proof::RoutingRecord));
    assert!(world.resolver.zone().queries().tcp >= 2);
}

#[tokio::test]
async fn a_token_entered_with_the_zone_repeated_is_found_where_the_panel_put_it() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere("_nameplate.shop.brand.test.brand.test", Txt, &[subject.token.as_str()]);
    let (code, finding) = world.found(&subject).await;
    assert_eq!(code, "dns.txt_doubled");
    assert!(finding.action.contains("`_nameplate.shop`"), "{finding:?}");

    world.everywhere(&subject.txt_name, Txt, &[subject.token.as_str()]);
    assert_eq!(world.judged(&subject).await.proof, Some(Proof::Txt));
}

#[tokio::test]
async fn a_token_behind_an_alias_is_not_the_names_own() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere("tokens.rival.test", Txt, &[subject.token.as_str()]);
    world.everywhere("*.brand.test", Cname, &["tokens.rival.test"]);
    assert_eq!(world.judged(&subject).await.proof, None);
}

#[tokio::test]
async fn a_wildcards_own_record_is_looked_at() {
    let world = World::of_one().await;
    let subject = claim("*.brand.test", "a");
    assert_eq!(subject.txt_name, "_nameplate.brand.test");
    world.everywhere("*.brand.test", Cname, &[&subject.routing_target]);
    let judged = world.judged(&subject).await;
    assert_eq!((judged.proof, judged.routing), (None, Routing::OurTarget), "a wildcard needs dns-01, which its route does not answer");
    assert_eq!(judged.finding.unwrap().code.as_str(), "dns.delegation_missing");

    let delegation = subject.delegation.clone().unwrap();
    world.everywhere(&delegation.name, Cname, &[&delegation.target]);
    let judged = world.judged(&subject).await;
    assert_eq!((judged.proof, judged.routing, judged.finding), (Some(Proof::Delegation), Routing::OurTarget, None));
}

#[tokio::test]
async fn a_delegation_is_a_proof_only_when_the_zones_servers_and_the_resolver_show_it() {
    let world = World::with_servers(2).await;
    let subject = claim("shop.brand.test", "a");
    let delegation = subject.delegation.clone().unwrap();
    world.everywhere("shop.brand.test", A, &["203.0.113.80"]);
    world.everywhere(&delegation.name, Cname, &[&delegation.target]);
    let judged = world.judged(&subject).await;
    assert_eq!((judged.proof, judged.routing, judged.delegation), (Some(Proof::Delegation), Routing::Elsewhere, Delegation::Ours));

    world.servers[1].zone().unset(&delegation.name, None).unwrap();
    assert_eq!(world.judged(&subject).await.proof, None, "one server has lost it");
    world.servers[0].zone().unset(&delegation.name, None).unwrap();
    assert_eq!(world.judged(&subject).await.delegation, Delegation::None, "the zone's word is enough for its absence");

    // Only the resolver is behind: the customer is told to wait, since the delegation is what they were asked for.
    let wanted = domains::LookSubject { delegation: Some(domains::DelegationSubject { wanted: true, ..delegation.clone() }), ..subject };
    world.everywhere(&delegation.name, Cname, &[&delegation.target]);
    world.resolver.zone().unset(&delegation.name, None).unwrap();
    let judged = world.judged(&wanted).await;
    assert_eq!((judged.proof, judged.delegation), (None, Delegation::Unknown));
    assert_eq!(judged.finding.unwrap().code.as_str(), "dns.propagating");

    world.everywhere(&delegation.name, Cname, &["claimb.acme.edge.test"]);
    let judged = world.judged(&wanted).await;
    assert_eq!(judged.delegation, Delegation::OtherClaim(domains::ClaimId::parse("claimb").unwrap()));
    assert_eq!(judged.finding.unwrap().code.as_str(), "dns.delegation_elsewhere");
}

#[tokio::test]
async fn a_wildcard_of_the_customers_own_is_not_taken_for_a_delegation() {
    let world = World::of_one().await;
    world.everywhere("shops.rival.test", A, &["203.0.113.80"]);
    world.everywhere("*.brand.test", Cname, &["shops.rival.test"]);
    let (code, finding) = world.found(&claim("shop.brand.test", "a")).await;
    assert_eq!((code, finding.about.as_str()), ("dns.wildcard_elsewhere", "CNAME shop.brand.test"));
}

#[tokio::test]
async fn a_target_taken_away_is_seen_at_the_zone_though_the_resolver_still_shows_it() {
    let world = World::with_servers(1).await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere("shop.brand.test", Cname, &[&subject.routing_target]);
    assert_eq!(world.judged(&subject).await.routing, Routing::OurTarget);
    world.servers[0].zone().set("elsewhere.brand.test", A, &["203.0.113.80"]).unwrap();
    world.servers[0].zone().unset("shop.brand.test", None).unwrap();
    world.servers[0].zone().set("shop.brand.test", A, &["203.0.113.80"]).unwrap();
    let judged = world.judged(&subject).await;
    assert_eq!((judged.proof, judged.routing), (None, Routing::Elsewhere));
}
