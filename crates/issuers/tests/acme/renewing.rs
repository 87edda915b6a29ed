//! When the CA would like a certificate to be renewed.

use std::time::Duration;

use dev_ca::{Answer, Chosen, Endpoint, Fault};
use domains::{Attempt, CaChoice, IssueError, Issuer, OrderPlan};
use issuers::acme::{AcmeAccount, AcmeIssuer};

use crate::world::{World, attempt, config_for, hostname, issue};

const NAME: &str = "shop.brand.test";

#[tokio::test]
async fn the_window_is_the_cas_and_so_is_the_time_until_the_next_look() {
    let world = World::start().await;
    let issuer = world.issuer();
    let issued = issue(&issuer, "shop.brand.test").await.unwrap().1;
    let ari_id = issued.ari_id.unwrap();
    world.control().set_ari_retry_after(Duration::from_secs(4_000));

    let window = issuer.renewal_window(CaChoice::First, &ari_id).await.unwrap().unwrap();
    let told = world.control().certificates()[0].window;
    assert_eq!((window.start.as_second(), window.end.as_second()), (told.start.as_second(), told.end.as_second()));
    assert!(window.start > issued.not_before && window.end < issued.not_after);
    // `instant-acme` gives it as what is left of a moment that has begun to pass.
    assert!((3_990..=4_000).contains(&window.retry_after.as_secs()), "{:?}", window.retry_after);

    world.control().renew_now(&Chosen::Certificate(ari_id.clone()));
    let window = issuer.renewal_window(CaChoice::First, &ari_id).await.unwrap().unwrap();
    assert!(window.end < domains::Clock::now(&domains::SystemClock), "an incident moves it into the past");
}

#[tokio::test]
async fn a_ca_without_renewal_information_has_no_window() {
    let world = World::start().await;
    let base = world.ca.directory_url().replace("/directory", "");
    let body = format!(r#"{{"newNonce":"{base}/a","newAccount":"{base}/b","newOrder":"{base}/c"}}"#);
    world.control().fault(Fault::new(Endpoint::Directory, Answer::Page { status: 200, content_type: "application/json".into(), body }));
    assert_eq!(world.issuer().renewal_window(CaChoice::First, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE").await.unwrap(), None);
}

#[tokio::test]
async fn a_certificate_that_the_ca_does_not_know_has_no_window() {
    let world = World::start().await;
    assert_eq!(world.issuer().renewal_window(CaChoice::First, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE").await.unwrap(), None);
}

#[tokio::test]
async fn trouble_with_renewal_information_is_never_mistaken_for_none() {
    let world = World::start().await;
    let issuer = world.issuer();
    let ari_id = issue(&issuer, "shop.brand.test").await.unwrap().1.ari_id.unwrap();
    world.control().fault(Fault::page(Endpoint::RenewalInfo, 503, "<html>busy</html>").retry_after("45"));
    let error = issuer.renewal_window(CaChoice::First, &ari_id).await.unwrap_err();
    assert!(matches!(error, IssueError::Unavailable { retry_after: Some(wait), .. } if wait.as_secs() == 45), "{error:?}");
    world.control().fault(Fault::page(Endpoint::RenewalInfo, 404, "<html>not here</html>"));
    assert!(matches!(issuer.renewal_window(CaChoice::First, &ari_id).await, Err(IssueError::Unavailable { .. })));

    let page = |start: &str, end: &str| {
        let body = format!(r#"{{"suggestedWindow":{{"start":"{start}","end":"{end}"}}}}"#);
        Answer::Page { status: 200, content_type: "application/json".into(), body }
    };
    let (first, second) = ("2027-01-02T04:00:00Z", "2027-01-03T04:00:00Z");
    for (start, end) in [(second, first), (first, first), ("soon", second)] {
        world.control().fault(Fault::new(Endpoint::RenewalInfo, page(start, end)));
        assert!(matches!(issuer.renewal_window(CaChoice::First, &ari_id).await, Err(IssueError::Unavailable { .. })), "{start} to {end}");
    }

    // Without a Retry-After the RFC's own interval is kept.
    world.control().fault(Fault::new(Endpoint::RenewalInfo, page(first, second)));
    let window = issuer.renewal_window(CaChoice::First, &ari_id).await.unwrap().unwrap();
    assert_eq!(window.start.to_string(), "2027-01-02T04:00:00Z");
    assert!((21_590..=21_600).contains(&window.retry_after.as_secs()), "{:?}", window.retry_after);
}

#[tokio::test]
async fn what_does_not_identify_a_certificate_is_not_put_into_a_url() {
    let world = World::start().await;
    for bad in ["", "a", "a.b.c", "a.", ".b", "../x.y", "a.b?c=d", "a b.c"] {
        let error = world.issuer().renewal_window(CaChoice::First, bad).await.unwrap_err();
        assert!(matches!(error, IssueError::Refused { .. }), "{bad:?}: {error:?}");
    }
}

#[tokio::test]
async fn an_order_that_a_crash_lost_is_found_again_although_its_certificate_counts_as_replaced() {
    let world = World::start().await;
    let issuer = world.issuer();
    let ari_id = issue(&issuer, NAME).await.unwrap().1.ari_id.unwrap();
    let plan = OrderPlan { replaces: Some(ari_id), ..OrderPlan::default() };
    let first = issuer.order(&hostname(NAME), &plan).await.unwrap();
    assert_eq!(world.ca.counters().new_orders, 2);
    // The URL was not stored. The CA says that the certificate is replaced already, and hands out the very order that replaces it.
    let again = world.issuer().order(&hostname(NAME), &plan).await.unwrap();
    assert_eq!(again, first);
    assert_eq!((world.ca.counters().new_orders, world.ca.counters().reused_orders), (2, 1));
}

#[tokio::test]
async fn a_certificate_of_another_account_or_another_ca_is_replaced_by_a_plain_order() {
    let world = World::start().await;
    let theirs = issue(&world.issuer(), NAME).await.unwrap().1.ari_id.unwrap();
    let account = AcmeAccount::create(&config_for(&world.ca, &world.seal)).await.unwrap();
    world.answer_for(&account);
    let issuer = AcmeIssuer::open(config_for(&world.ca, &world.seal), account.to_json()).unwrap();
    for replaces in [theirs.as_str(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", "not an identifier"] {
        let plan = OrderPlan { replaces: Some(replaces.to_owned()), ..OrderPlan::default() };
        let url = issuer.order(&hostname(NAME), &plan).await.unwrap_or_else(|error| panic!("{replaces}: {error}"));
        let attempt = Attempt { order_url: Some(url.clone()), ..attempt(&issuer, NAME) };
        issuer.complete(&hostname(NAME), &url, &attempt).await.unwrap();
    }
    // Whatever else stands in the way is not the certificate's fault, and is said.
    world.control().fault(Fault::problem(Endpoint::NewOrder, "rateLimited", 429).retry_after("60"));
    let plan = OrderPlan { replaces: Some(theirs), ..OrderPlan::default() };
    assert!(matches!(issuer.order(&hostname(NAME), &plan).await, Err(IssueError::RateLimited { .. })));
}

#[tokio::test]
async fn a_second_account_may_share_the_first_ones_key_so_that_one_edge_answers_for_both() {
    let world = World::start().await;
    let other = dev_ca::DevCa::start(world.around()).await.unwrap();
    let shared = AcmeAccount::create_sharing_key(&config_for(&other, &world.seal), &world.account).await.unwrap();
    assert_eq!(shared.thumbprint(), world.account.thumbprint());
    assert_ne!(shared.url(), world.account.url());
    let issuer = AcmeIssuer::open(config_for(&other, &world.seal), shared.to_json()).unwrap();
    issue(&issuer, NAME).await.unwrap();
    assert_eq!(other.counters().finalized_orders, 1);
}
