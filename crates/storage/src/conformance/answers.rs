//! The answer zone's contract, for whatever holds one.

use std::{collections::BTreeSet, sync::Arc};

use domains::AnswerZone;

use super::{is_defect, race};

/// How many orders answer at one name at once.
const ORDERS: usize = 8;

/// Checks an answer zone; `values` tells what stands at a name, and `name` is one that has none yet.
///
/// # Panics
/// When the zone does not keep to its contract.
pub async fn answers_stand_side_by_side_and_go_one_by_one<Z: AnswerZone + 'static>(
    zone: Arc<Z>,
    name: &str,
    values: impl AsyncFn(&str) -> Vec<String>,
) {
    let held = async || values(name).await.into_iter().collect::<BTreeSet<_>>();
    let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<_>>();
    zone.withdraw(name, "never-there").await.expect("a value that is not there is no error");
    zone.present(name, "of-the-apex").await.unwrap();
    zone.present(name, "of-the-wildcard").await.unwrap();
    zone.present(&name.to_ascii_uppercase(), "of-the-apex").await.expect("repeating it changes nothing");
    assert_eq!(held().await, set(&["of-the-apex", "of-the-wildcard"]));
    for unfit in [String::new(), "x".repeat(256)] {
        let answer = zone.present(name, &unfit).await;
        assert!(answer.as_ref().is_err_and(is_defect), "{} bytes: {answer:?}", unfit.len());
    }
    zone.withdraw(name, "of-the-apex").await.unwrap();
    zone.withdraw(name, "of-the-apex").await.unwrap();
    assert_eq!(held().await, set(&["of-the-wildcard"]), "the other order's answer stays");

    let (order, shared) = (|number: usize| format!("of-order-{number}"), zone.clone());
    let presented = race(ORDERS, |number| {
        let (zone, name) = (shared.clone(), name.to_owned());
        async move { zone.present(&name, &order(number)).await }
    });
    presented.await.into_iter().collect::<Result<Vec<_>, _>>().expect("whoever is not first comes next");
    let mut all: BTreeSet<String> = (0..ORDERS).map(order).collect();
    all.insert("of-the-wildcard".to_owned());
    assert_eq!(held().await, all, "no answer is lost to another");
    let withdrawn = race(ORDERS, |number| {
        let (zone, name) = (shared.clone(), name.to_owned());
        async move { zone.withdraw(&name, &order(number)).await }
    });
    withdrawn.await.into_iter().collect::<Result<Vec<_>, _>>().expect("whoever is not first comes next");
    zone.withdraw(name, "of-the-wildcard").await.unwrap();
    assert_eq!(held().await, BTreeSet::new());
}
