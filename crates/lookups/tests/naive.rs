//! The nine inputs on which a naive verifier fails, each over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use dev_dns::RecordType::{A, Aaaa, Cname, Txt};
use domains::{Actor, Hostname, HostnameError, HostnamePolicy, MAX_HOSTNAME_BYTES, Proof, Routing};
use support::{EDGE, World, claim, questions, rcode};

#[tokio::test]
async fn one_what_only_the_resolver_says_is_no_proof_since_the_zones_own_servers_are_asked() {
    let world = World::with_servers(1).await;
    let subject = claim("shop.brand.test", "a");
    // A resolver that is lied to, or remembers what is gone: it alone must never be believed.
    world.resolver.zone().set("shop.brand.test", Cname, &[&subject.routing_target]).unwrap();
    world.resolver.zone().set(&subject.txt_name, Txt, &[subject.token.as_str()]).unwrap();

    let judged = world.judged(&subject).await;
    assert_eq!(judged.proof, None, "{judged:?}");
    assert!(!judged.routing.is_ours(), "{judged:?}");
    let asked = &world.servers[0].zone().queries().queries;
    assert!(asked.iter().any(|query| query.record_type == "CNAME" && !query.recursion_desired), "{asked:?}");
    assert!(asked.iter().any(|query| query.record_type == "TXT" && !query.recursion_desired), "{asked:?}");
}

#[tokio::test]
async fn two_servfail_is_named_and_is_nobodys_crash() {
    let world = World::with_servers(1).await;
    let subject = claim("shop.brand.test", "a");
    world.at_servers(&rcode("shop.brand.test", "SERVFAIL"));
    let (code, finding) = world.found(&subject).await;
    assert_eq!((code, finding.actor, finding.about.as_str()), ("dns.servfail", Actor::Customer, "CNAME shop.brand.test"));
    assert!(finding.saw.contains("SERVFAIL"), "{finding:?}");
}

#[tokio::test]
async fn three_refused_is_named_and_is_nobodys_crash() {
    let world = World::with_servers(1).await;
    let subject = claim("shop.brand.test", "a");
    world.at_servers(&rcode("shop.brand.test", "REFUSED"));
    let (code, finding) = world.found(&subject).await;
    assert_eq!((code, finding.actor, finding.about.as_str()), ("dns.refused", Actor::Customer, "CNAME shop.brand.test"));
}

#[tokio::test]
async fn four_a_txt_value_that_is_not_utf_8_is_read_and_does_not_hide_the_token_beside_it() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere(&subject.txt_name, Txt, &[r#""\255\254 not text \000""#]);
    let (code, finding) = world.found(&subject).await;
    assert_eq!(code, "dns.txt_mismatch");
    assert!(finding.saw.contains('\u{fffd}') && !finding.saw.contains('\0'), "{finding:?}");

    world.everywhere(&subject.txt_name, Txt, &[r#""\255\254 not text \000""#, subject.token.as_str()]);
    assert_eq!(world.judged(&subject).await.proof, Some(Proof::Txt));
}

#[test]
fn five_names_that_dns_cannot_hold_are_refused_before_anything_is_asked() {
    let policy = HostnamePolicy::default();
    for bad in ["a..b", "a..brand.com", ".brand.com", "shop.brand.com.."] {
        assert!(matches!(Hostname::parse(bad, &policy), Err(HostnameError::Invalid(_))), "{bad}");
    }
    let label = format!("{}.brand.com", "a".repeat(64));
    assert!(matches!(Hostname::parse(&label, &policy), Err(HostnameError::Invalid(_))));
    let name = format!("{}com", "a.".repeat(MAX_HOSTNAME_BYTES / 2));
    assert!(matches!(Hostname::parse(&name, &policy), Err(HostnameError::TooLong(_))));
}

#[tokio::test]
async fn five_the_longest_name_that_is_accepted_can_be_looked_at() {
    let world = World::of_one().await;
    let room = MAX_HOSTNAME_BYTES - ".brand.test".len();
    let hostname = format!("{}{}.brand.test", "a.".repeat(room / 2 - 1), "a".repeat(room - 2 * (room / 2 - 1)));
    let mut subject = claim(&hostname, "a");
    world.everywhere(&subject.txt_name, Txt, &[subject.token.as_str()]);
    assert_eq!(world.judged(&subject).await.proof, Some(Proof::Txt));

    // An operator's prefix may be too long for such a name; the look says so instead of failing.
    subject.txt_name = format!("{}.{hostname}", "p".repeat(40));
    let (code, finding) = world.found(&subject).await;
    assert_eq!(code, "dns.malformed", "{finding:?}");
}

#[tokio::test]
async fn six_a_token_split_over_the_strings_of_one_record_is_one_value() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    let (one, two) = subject.token.as_str().split_at(5);
    world.everywhere(&subject.txt_name, Txt, &[&format!(r#""{one}" "{two}""#)]);
    let judged = world.judged(&subject).await;
    assert_eq!((judged.proof, judged.txt_values), (Some(Proof::Txt), vec![subject.token.to_string()]));

    // Two records are two values: halves that stand apart prove nothing.
    world.everywhere(&subject.txt_name, Txt, &[one, two]);
    assert_eq!(world.found(&subject).await.0, "dns.txt_mismatch");
}

#[tokio::test]
async fn seven_the_cname_is_looked_at_so_that_a_proved_name_that_leads_elsewhere_is_told() {
    let world = World::of_one().await;
    let subject = claim("shop.brand.test", "a");
    world.everywhere(&subject.txt_name, Txt, &[subject.token.as_str()]);
    world.everywhere("shop.brand.test", Cname, &["shops.rival.test"]);
    world.everywhere("shops.rival.test", A, &["203.0.113.80"]);
    let judged = world.judged(&subject).await;
    assert_eq!((judged.proof, &judged.routing), (Some(Proof::Txt), &Routing::Elsewhere));
    let finding = judged.finding.unwrap();
    assert_eq!((finding.code.as_str(), finding.about.as_str()), ("dns.live_elsewhere", "CNAME _acme-challenge.shop.brand.test"));
    assert!(finding.action.contains(&subject.routing_target) && finding.saw.contains("shops.rival.test"), "{finding:?}");

    world.everywhere("shop.brand.test", Cname, &[&subject.routing_target]);
    let judged = world.judged(&subject).await;
    assert_eq!((judged.proof, judged.routing, judged.finding), (Some(Proof::RoutingRecord), Routing::OurTarget, None));
}

#[tokio::test]
async fn eight_an_aaaa_record_that_leads_elsewhere_is_found_beside_right_a_records() {
    let world = World::of_one().await;
    let subject = claim("brand.test", "a");
    world.everywhere(&subject.txt_name, Txt, &[subject.token.as_str()]);
    world.everywhere("brand.test", A, &[EDGE]);
    assert_eq!(world.judged(&subject).await.routing, Routing::EdgeAddresses);

    world.everywhere("brand.test", Aaaa, &["2001:db8:bad::1"]);
    let (code, finding) = world.found(&subject).await;
    assert_eq!((code, finding.about.as_str()), ("dns.aaaa_elsewhere", "AAAA brand.test"));
    assert!(finding.action.contains("2001:db8:bad::1"), "{finding:?}");

    world.everywhere("brand.test", Aaaa, &["2001:db8::10"]);
    assert_eq!(world.judged(&subject).await.routing, Routing::EdgeAddresses);
}

#[tokio::test]
async fn nine_two_tenants_claims_on_one_name_are_kept_apart() {
    let world = World::of_one().await;
    let (a, b) = (claim("shop.brand.test", "a"), claim("shop.brand.test", "b"));
    world.everywhere(&a.txt_name, Txt, &[a.token.as_str()]);
    let (for_a, for_b) = (world.judged(&a).await, world.judged(&b).await);
    assert_eq!((for_a.proof, for_b.proof), (Some(Proof::Txt), None));
    assert_eq!(for_b.txt_values, [a.token.to_string()], "that A's token still stands must be seen by who judges B");

    world.everywhere("shop.brand.test", Cname, &[&a.routing_target]);
    let (for_a, for_b) = (world.judged(&a).await, world.judged(&b).await);
    assert_eq!((for_a.proof, for_a.routing), (Some(Proof::RoutingRecord), Routing::OurTarget));
    assert_eq!((for_b.proof, for_b.routing), (None, Routing::OtherClaim(a.claim_id.clone())));
    assert_eq!(for_b.finding.unwrap().code.as_str(), "dns.cname_other_claim");

    // B proves by TXT while the name still leads to A: a proof, and A's routing seen with it.
    world.everywhere(&b.txt_name, Txt, &[b.token.as_str()]);
    let for_b = world.judged(&b).await;
    assert_eq!((for_b.proof, for_b.routing), (Some(Proof::Txt), Routing::OtherClaim(a.claim_id)));
    assert!(questions(&world.resolver).iter().all(|question| question != "CNAME claima.t.edge.test"), "a target's own zone is not asked");
}
