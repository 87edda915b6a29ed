//! The answer zone in Route 53: its contract on a stand-in and on an account, and what Route 53 says on a bad day.
//!
//! What the stand-in does not check: that a name lies in the zone, how a TXT value is quoted, how many requests a second an account may
//! make, one change at a time; and a change is everywhere at the second look. The quoting has its own test, the rest is played here.

use std::{sync::Arc, time::Duration};

use domains::{AnswerZone, SystemClock};
use storage::{
    aws::{Access, Route53Zone},
    conformance::answers::answers_stand_side_by_side_and_go_one_by_one,
};

use crate::{
    played::{Played, sdk},
    stand_in,
};

const NAME: &str = "c1.acme.edge.saas.net";
const SOON: Duration = Duration::from_millis(20);

async fn keeps_to_its_contract(access: &Access, pace: Duration, patience: Duration) {
    let route53 = aws_sdk_route53::Client::new(&sdk(access).await);
    use domains::Clock;
    let moment = SystemClock.now().as_microsecond();
    let created = route53.create_hosted_zone().name("acme.edge.saas.net").caller_reference(format!("nameplate-test-{moment}"));
    let id = created.send().await.unwrap().hosted_zone.unwrap().id;
    let zone = Arc::new(Route53Zone::open(access, &id).await.paced(pace, patience));
    answers_stand_side_by_side_and_go_one_by_one(zone.clone(), NAME, async |name| zone.values(name).await.unwrap()).await;
    // Neither a name beside it nor another type is taken for it.
    assert_eq!(zone.values("b.acme.edge.saas.net").await.unwrap(), Vec::<String>::new());
    assert_eq!(zone.values("acme.edge.saas.net").await.unwrap(), Vec::<String>::new());
    route53.delete_hosted_zone().id(id).send().await.expect("nothing is left in the zone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_keep_to_their_contract_on_a_stand_in() {
    let (_folder, ministack, access) = stand_in();
    keeps_to_its_contract(&access, SOON, Duration::from_secs(5)).await;

    let nowhere = Route53Zone::open(&access, "ZNOSUCHZONE").await;
    let answer = nowhere.present(NAME, "a").await;
    assert!(matches!(answer, Err(domains::StoreError::Defect { .. })), "a zone that is not there is ours to mend: {answer:?}");
    drop(ministack);
    let answer = nowhere.withdraw(NAME, "a").await;
    assert!(matches!(answer, Err(domains::StoreError::Unavailable { .. })), "nobody answers: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "not run: NAMEPLATE_AWS_TEST=1 scripts/test -p storage --features aws --test aws makes and deletes a hosted zone in that account"]
async fn answers_keep_to_their_contract_on_an_account() {
    keeps_to_its_contract(&Access::Ambient, Duration::from_secs(5), Duration::from_secs(180)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_answers_that_nobody_took_away_make_room_for_new_ones() {
    let (_folder, _ministack, access) = stand_in();
    let route53 = aws_sdk_route53::Client::new(&sdk(&access).await);
    let created = route53.create_hosted_zone().name("acme.edge.saas.net").caller_reference("crowd").send().await.unwrap();
    let zone = Route53Zone::open(&access, created.hosted_zone.unwrap().id).await.paced(SOON, Duration::from_secs(5));
    for number in 0..40 {
        zone.present(NAME, &format!("value-{number}")).await.unwrap();
    }
    let held = zone.values(NAME).await.unwrap();
    assert_eq!(held.len(), 32);
    assert!(held.contains(&"value-39".to_owned()) && !held.contains(&"value-7".to_owned()), "{held:?}");
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>in Route 53's words</Message></Error>");
    (status, format!("<ErrorResponse>{error}<RequestId>r</RequestId></ErrorResponse>"))
}

fn nothing_there() -> (u16, String) {
    let name = "ListResourceRecordSetsResponse";
    (200, format!("<{name}><ResourceRecordSets/><IsTruncated>false</IsTruncated><MaxItems>1</MaxItems></{name}>"))
}

fn change(answer: &str, id: &str, status: &str) -> (u16, String) {
    let told = format!("<Id>/change/{id}</Id><Status>{status}</Status><SubmittedAt>2026-11-26T00:00:00Z</SubmittedAt>");
    (200, format!("<{answer}><ChangeInfo>{told}</ChangeInfo></{answer}>"))
}

const CHANGED: &str = "ChangeResourceRecordSetsResponse";
const ASKED: &str = "GetChangeResponse";

async fn zone(played: &Played, patience: Duration) -> Route53Zone {
    Route53Zone::open(&Access::StandIn { endpoint: played.endpoint.clone() }, "Z1").await.paced(SOON, patience)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_route_53_has_no_time_for_is_asked_again_and_a_change_waited_for_until_it_is_everywhere() {
    let played = Played::start(vec![
        refusal(400, "Throttling"),
        nothing_there(),
        refusal(400, "PriorRequestNotComplete"),
        refusal(400, "Throttling"),
        change(CHANGED, "C1", "PENDING"),
        change(ASKED, "C1", "PENDING"),
        refusal(400, "Throttling"),
        change(ASKED, "C1", "INSYNC"),
    ]);
    zone(&played, Duration::from_secs(5)).await.present(NAME, "a \"quoted\" value").await.unwrap();
    let asked = played.asked();
    assert_eq!(asked.len(), 8, "{asked:?}");
    assert!(
        asked[4].contains(r#"&quot;a \&quot;quoted\&quot; value&quot;"#) || asked[4].contains(r#""a \"quoted\" value""#),
        "{}",
        asked[4]
    );
    assert!(asked[7].starts_with("GET /2013-04-01/change/C1"), "{}", asked[7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_again_waits_for_the_same_change() {
    let mut says = vec![nothing_there(), change(CHANGED, "C1", "PENDING")];
    says.extend((0..200).map(|_| change(ASKED, "C1", "PENDING")));
    let played = Played::start(says);
    let zone = zone(&played, Duration::from_millis(200)).await;
    let answer = zone.present(NAME, "a").await;
    assert!(matches!(answer, Err(domains::StoreError::Unavailable { .. })), "{answer:?}");
    let before = played.asked().len();
    let answer = zone.present(NAME, "a").await;
    assert!(matches!(answer, Err(domains::StoreError::Unavailable { .. })), "{answer:?}");
    let asked = played.asked();
    assert!(asked.len() > before && asked[2..].iter().all(|line| line.starts_with("GET /2013-04-01/change/C1")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_a_defect_and_no_time_for_too_long_is_not() {
    for (says, is_defect) in [
        (vec![refusal(403, "AccessDenied")], true),
        (vec![nothing_there(), refusal(403, "AccessDenied")], true),
        // Nobody was first, so it is the batch that is wrong.
        (vec![nothing_there(), refusal(400, "InvalidChangeBatch"), nothing_there()], true),
        (vec![nothing_there(), change(CHANGED, "C1", "PENDING"), refusal(404, "NoSuchChange")], true),
        (vec![refusal(500, "InternalError"); 10], false),
    ] {
        let played = Played::start(says);
        let answer = zone(&played, Duration::from_secs(5)).await.present(NAME, "a").await;
        match &answer {
            Err(domains::StoreError::Defect { detail }) => assert!(is_defect && detail.contains("Route 53's words"), "{detail}"),
            Err(domains::StoreError::Unavailable { .. }) => assert!(!is_defect, "{answer:?}"),
            Ok(()) => panic!("it was refused"),
        }
    }
}
