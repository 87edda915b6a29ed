//! When the CA would like a certificate to be renewed.

use std::time::Duration;

use dev_ca::{Answer, Chosen, Endpoint, Fault};
use domains::{IssueError, Issuer};

use crate::world::{World, issue};

#[tokio::test]
async fn the_window_is_the_cas_and_so_is_the_time_until_the_next_look() {
    let world = World::start().await;
    let issuer = world.issuer();
    let issued = issue(&issuer, "shop.brand.test").await.unwrap().1;
    let ari_id = issued.ari_id.unwrap();
    world.control().set_ari_retry_after(Duration::from_secs(4_000));

    let window = issuer.renewal_window(&ari_id).await.unwrap().unwrap();
    let told = world.control().certificates()[0].window;
    assert_eq!((window.start.as_second(), window.end.as_second()), (told.start.as_second(), told.end.as_second()));
    assert!(window.start > issued.not_before && window.end < issued.not_after);
    // `instant-acme` gives it as what is left of a moment that has begun to pass.
    assert!((3_990..=4_000).contains(&window.retry_after.as_secs()), "{:?}", window.retry_after);

    world.control().renew_now(&Chosen::Certificate(ari_id.clone()));
    let window = issuer.renewal_window(&ari_id).await.unwrap().unwrap();
    assert!(window.end < domains::Clock::now(&domains::SystemClock), "an incident moves it into the past");
}

#[tokio::test]
async fn a_ca_without_renewal_information_has_no_window() {
    let world = World::start().await;
    let base = world.ca.directory_url().replace("/directory", "");
    let body = format!(r#"{{"newNonce":"{base}/a","newAccount":"{base}/b","newOrder":"{base}/c"}}"#);
    world.control().fault(Fault::new(Endpoint::Directory, Answer::Page { status: 200, content_type: "application/json".into(), body }));
    assert_eq!(world.issuer().renewal_window("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE").await.unwrap(), None);
}

#[tokio::test]
async fn a_certificate_that_the_ca_does_not_know_has_no_window() {
    let world = World::start().await;
    assert_eq!(world.issuer().renewal_window("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE").await.unwrap(), None);
}

#[tokio::test]
async fn trouble_with_renewal_information_is_never_mistaken_for_none() {
    let world = World::start().await;
    let issuer = world.issuer();
    let ari_id = issue(&issuer, "shop.brand.test").await.unwrap().1.ari_id.unwrap();
    world.control().fault(Fault::page(Endpoint::RenewalInfo, 503, "<html>busy</html>").retry_after("45"));
    let error = issuer.renewal_window(&ari_id).await.unwrap_err();
    assert!(matches!(error, IssueError::Unavailable { retry_after: Some(wait), .. } if wait.as_secs() == 45), "{error:?}");
    world.control().fault(Fault::page(Endpoint::RenewalInfo, 404, "<html>not here</html>"));
    assert!(matches!(issuer.renewal_window(&ari_id).await, Err(IssueError::Unavailable { .. })));

    let page = |start: &str, end: &str| {
        let body = format!(r#"{{"suggestedWindow":{{"start":"{start}","end":"{end}"}}}}"#);
        Answer::Page { status: 200, content_type: "application/json".into(), body }
    };
    let (first, second) = ("2027-01-02T04:00:00Z", "2027-01-03T04:00:00Z");
    for (start, end) in [(second, first), (first, first), ("soon", second)] {
        world.control().fault(Fault::new(Endpoint::RenewalInfo, page(start, end)));
        assert!(matches!(issuer.renewal_window(&ari_id).await, Err(IssueError::Unavailable { .. })), "{start} to {end}");
    }

    // Without a Retry-After the RFC's own interval is kept.
    world.control().fault(Fault::new(Endpoint::RenewalInfo, page(first, second)));
    let window = issuer.renewal_window(&ari_id).await.unwrap().unwrap();
    assert_eq!(window.start.to_string(), "2027-01-02T04:00:00Z");
    assert!((21_590..=21_600).contains(&window.retry_after.as_secs()), "{:?}", window.retry_after);
}

#[tokio::test]
async fn what_does_not_identify_a_certificate_is_not_put_into_a_url() {
    let world = World::start().await;
    for bad in ["", "a", "a.b.c", "a.", ".b", "../x.y", "a.b?c=d", "a b.c"] {
        let error = world.issuer().renewal_window(bad).await.unwrap_err();
        assert!(matches!(error, IssueError::Refused { .. }), "{bad:?}: {error:?}");
    }
}
