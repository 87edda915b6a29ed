//! What a look may not exceed, whatever strangers' zones do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use dev_dns::RecordType::{A, Cname, Ns, Txt};
use domains::{ChainEnd, OwnershipLookup, Routing, judge};
use lookups::{LookupConfig, Lookups};
use support::{Puppet, World, claim, dropped, questions, rcode};

/// How late a look may end on a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_zone_whose_servers_never_answer_ends_within_the_budget_and_is_named() {
    let world = World::with_servers(4).await;
    let subject = claim("shop.brand.test", "a");
    world.at_servers(&dropped("shop.brand.test"));
    world.at_servers(&dropped(&subject.txt_name));
    let config = LookupConfig { query_timeout: Duration::from_secs(60), look_budget: Duration::from_millis(700), ..world.config() };
    let started = Instant::now();
    let look = Lookups::new(config).look(&subject).await;
    assert!(started.elapsed() < Duration::from_millis(700) + SLACK, "{:?}", started.elapsed());
    assert_eq!(judge(&look, &subject).finding.unwrap().code.as_str(), "dns.unreachable");

    let look = world.look(&subject).await;
    assert!(look.queries <= 30, "{}", look.queries);
    assert_eq!(judge(&look, &subject).finding.unwrap().code.as_str(), "dns.unreachable");
}

#[tokio::test]
async fn a_resolver_that_never_answers_ends_within_the_budget_and_is_the_operators_to_mend() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = LookupConfig { resolver: silent.local_addr().unwrap(), look_budget: Duration::from_secs(1), ..world.config() };
    let started = Instant::now();
    let look = Lookups::new(config).look(&subject).await;
    assert!(started.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", started.elapsed());
    let finding = judge(&look, &subject).finding.unwrap();
    assert_eq!((finding.code.as_str(), finding.actor), ("dns.resolver_unreachable", domains::Actor::Operator));
}

#[tokio::test]
async fn a_look_that_would_need_more_queries_than_it_has_says_so() {
    let world = World::with_servers(4).await;
    let subject = claim("shop.brand.test", "a");
    for max_queries in [0, 1, 2, 3, 5, 8] {
        let look = Lookups::new(LookupConfig { max_queries, ..world.config() }).look(&subject).await;
        assert!(look.queries <= max_queries, "{} of {max_queries}", look.queries);
        let judged = judge(&look, &subject);
        assert_eq!(judged.proof, None);
        if max_queries <= 3 {
            assert_eq!(judged.finding.unwrap().code.as_str(), "dns.too_many_queries", "{max_queries}: {look:?}");
        }
    }
}

#[tokio::test]
async fn the_worst_a_normal_zone_can_ask_for_stays_within_thirty_queries() {
    let world = World::with_servers(4).await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere("shop.brand.test", A, &["203.0.113.80"]);
    let look = world.look(&subject).await;
    assert!(look.queries <= 30, "{}", look.queries);
    assert_eq!(judge(&look, &subject).finding.unwrap().code.as_str(), "dns.live_elsewhere");
    assert_eq!(look.a.authority.len(), 4);
}

#[tokio::test]
async fn of_many_servers_four_are_asked_and_all_are_listed() {
    let world = World::with_servers(6).await;
    let subject = claim("shop.brand.test", "a");
    let look = world.look(&subject).await;
    assert_eq!(look.zone.unwrap().servers.len(), 6);
    let asked: Vec<&str> = look.txt.authority.iter().map(|said| said.server.as_str()).collect();
    assert_eq!(
        asked,
        ["ns1.brand.test (127.0.0.2)", "ns2.brand.test (127.0.0.3)", "ns3.brand.test (127.0.0.4)", "ns4.brand.test (127.0.0.5)"]
    );
    assert!(questions(&world.servers[4]).is_empty() && questions(&world.servers[5]).is_empty());
}

#[tokio::test]
async fn a_cname_loop_is_found_and_followed_no_further() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere("shop.brand.test", Cname, &["one.brand.test"]);
    world.everywhere("one.brand.test", Cname, &["two.brand.test"]);
    world.everywhere("two.brand.test", Cname, &["shop.brand.test"]);
    let look = world.look(&subject).await;
    assert_eq!(
        (look.chain_end, look.chain.as_slice()),
        (ChainEnd::Loop, &["one", "two", "shop"].map(|label| format!("{label}.brand.test"))[..])
    );
    let judged = judge(&look, &subject);
    assert_eq!(judged.routing, Routing::Elsewhere);
    let finding = judged.finding.unwrap();
    assert_eq!(finding.code.as_str(), "dns.cname_loop");
    assert!(finding.saw.contains("one.brand.test → two.brand.test"), "{finding:?}");
}

#[tokio::test]
async fn a_cname_chain_is_followed_to_a_bounded_depth() {
    let world = World::of_one().await;
    let subject = claim("h0.brand.test", "a");
    for n in 0..100 {
        world.everywhere(&format!("h{n}.brand.test"), Cname, &[&format!("h{}.brand.test", n + 1)]);
    }
    world.everywhere("h100.brand.test", A, &["203.0.113.80"]);
    let look = world.look(&subject).await;
    assert_eq!((look.chain_end, look.chain.len()), (ChainEnd::TooLong, 8));
    assert!(look.queries <= 30, "{}", look.queries);
    assert_eq!(judge(&look, &subject).finding.unwrap().code.as_str(), "dns.cname_too_long");

    // Eight links still resolve.
    let subject = claim("h92.brand.test", "a");
    let look = world.look(&subject).await;
    assert_eq!((look.chain_end, look.chain.len()), (ChainEnd::Complete, 8));
    assert_eq!(judge(&look, &subject).finding.unwrap().code.as_str(), "dns.live_elsewhere");
}

#[tokio::test]
async fn a_name_server_inside_our_own_network_is_never_sent_anything() {
    let world = World::with_servers(1).await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere("shop.brand.test", Cname, &[&subject.routing_target]);
    let strict = LookupConfig { allow_non_global: false, ..world.config() };
    for inside in ["127.0.0.2", "10.0.0.7", "169.254.169.254", "192.168.1.1"] {
        world.resolver.zone().set("ns1.brand.test", A, &[inside]).unwrap();
        let judged = judge(&Lookups::new(strict.clone()).look(&subject).await, &subject);
        assert_eq!(judged.proof, None);
        let finding = judged.finding.unwrap();
        assert_eq!(finding.code.as_str(), "dns.server_not_global");
        assert!(finding.saw.contains("public internet"), "{finding:?}");
    }
    assert!(questions(&world.servers[0]).is_empty(), "{:?}", questions(&world.servers[0]));
}

#[tokio::test]
async fn a_public_suffix_is_never_asked_about() {
    let world = World::of_one().await;
    world.everywhere("a.b.brand.test", Txt, &["so that the zone is there"]);
    for hostname in ["a.b.brand.test", "x.y.z.brand.test", "brand.test", "shop.unregistered.test", "unregistered.test"] {
        world.look(&claim(hostname, "a")).await;
    }
    let asked = questions(&world.resolver);
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|question| question.contains(".test")), "{asked:?}");
    assert!(asked.iter().all(|question| !question.ends_with(" test")), "{asked:?}");
}

#[tokio::test]
async fn a_server_that_floods_with_foreign_datagrams_delays_nothing_past_the_deadline() {
    let puppet = Puppet::start(|mut query| {
        query.metadata.id = query.metadata.id.wrapping_add(1);
        vec![support::reply_to(&query).to_vec().unwrap(); 50]
    })
    .await;
    let world = World::with_puppet(&puppet).await;
    let subject = claim("shop.brand.test", "a");
    let started = Instant::now();
    let (code, _) = world.found(&subject).await;
    assert_eq!(code, "dns.unreachable");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn sixty_kilobytes_of_txt_are_read_over_tcp_and_repeated_only_in_part() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    let values: Vec<String> = (0..220).map(|n| format!("{n:03}{}", "x".repeat(240))).collect();
    let mut data: Vec<&str> = values.iter().map(String::as_str).collect();
    world.everywhere(&subject.txt_name, Txt, &data);
    let (code, finding) = world.found(&subject).await;
    assert_eq!(code, "dns.txt_mismatch");
    assert!(finding.saw.chars().count() <= 501, "{}", finding.saw.len());
    assert!(world.resolver.zone().queries().tcp >= 2);

    data.push(subject.token.as_str());
    world.everywhere(&subject.txt_name, Txt, &data);
    assert_eq!(world.judged(&subject).await.proof, Some(domains::Proof::Txt));
}

#[tokio::test]
async fn looks_at_once_share_a_bounded_number_of_sockets_and_all_end() {
    let world = World::of_one().await;
    world.everywhere("brand.test", Ns, &["ns1.brand.test"]);
    world.everywhere("ns1.brand.test", A, &["127.0.0.1"]);
    world.everywhere("*.brand.test", Cname, &["claima.t.edge.test"]);
    world.resolver.zone().quirk(rcode("unrelated.test", "SERVFAIL")).unwrap();
    let lookups = Lookups::new(LookupConfig { max_in_flight: 2, query_timeout: Duration::from_secs(2), ..world.config() });
    let looks = (0..50).map(|n| {
        let lookups = lookups.clone();
        tokio::spawn(async move {
            let subject = claim(&format!("h{n}.brand.test"), "a");
            judge(&lookups.look(&subject).await, &subject)
        })
    });
    for look in looks.collect::<Vec<_>>() {
        assert_eq!(look.await.unwrap().routing, Routing::OurTarget);
    }
}

/// Prints how many looks one core does, with the demo DNS server on the same core.
#[tokio::test]
#[ignore = "a measurement: run it alone, with --nocapture"]
async fn looks_per_second() {
    let world = World::of_one().await;
    world.everywhere("brand.test", A, &["192.0.2.80"]);
    let lookups = Lookups::new(LookupConfig { query_timeout: Duration::from_secs(2), ..world.config() });
    let subject = claim("shop.brand.test", "a");
    let (started, mut looks, mut queries) = (Instant::now(), 0_u32, 0);
    while started.elapsed() < Duration::from_secs(5) {
        for look in futures_util::future::join_all((0..20).map(|_| lookups.look(&subject))).await {
            assert_eq!(judge(&look, &subject).finding.unwrap().code.as_str(), "dns.name_missing");
            looks += 1;
            queries += look.queries;
        }
    }
    let rate = f64::from(looks) / started.elapsed().as_secs_f64();
    println!("{rate:.0} looks a second, {:.1} queries each", f64::from(queries) / f64::from(looks));
}
