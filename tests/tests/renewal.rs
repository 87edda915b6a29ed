//! Certificates that are renewed while visitors come and stay.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use system_tests::{
    product::Product,
    sizes::size,
    visitor::{Visitor, get_h2, read},
    waiting::until,
};
use tokio::{task::JoinSet, time::sleep};

const NAME: &str = "shop.brand.test";
/// How many renewals are waited for.
const RENEWALS: usize = 2;
/// How soon a recorded certificate is served.
const SERVED: Duration = Duration::from_secs(5);
/// The pause of one visitor between two requests.
const PACE: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Tally {
    is_over: AtomicBool,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => self.failed.lock().unwrap().push(failure),
        }
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }
}

async fn keep_coming(visitor: Visitor, tally: Arc<Tally>) {
    while tally.goes_on() {
        let outcome = match visitor.get(NAME, "/").await {
            Ok(visit) if visit.answer.status == 200 => Ok(()),
            Ok(visit) => Err(format!("status {}", visit.answer.status)),
            Err(error) => Err(error),
        };
        tally.count(outcome);
        sleep(PACE).await;
    }
}

async fn stay(visitor: Visitor, tally: Arc<Tally>) {
    let mut connection = visitor.h2(NAME).await.expect("an HTTP/2 connection");
    while tally.goes_on() {
        let outcome = async {
            let answer = connection.send_request(get_h2(NAME, "/")).await.map_err(|error| format!("h2: {error}"))?;
            let answer = read(answer).await?;
            if answer.status == 200 { Ok(()) } else { Err(format!("h2: status {}", answer.status)) }
        };
        tally.count(outcome.await);
        sleep(PACE).await;
    }
}

async fn recorded_serial(product: &Product) -> String {
    plain(product.domain(NAME, "brand").await["certificate"]["serial"].as_str().expect("an active domain has a certificate"))
}

/// Without the leading zeros that one side writes and the other does not.
fn plain(serial: &str) -> String {
    serial.trim_start_matches('0').to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_under_load_and_no_request_fails() {
    let lifetime = size(Duration::from_secs(30), Duration::from_secs(180));
    let product = Product::start(&[("NAMEPLATE_ACME_LIFETIME", &format!("{}s", lifetime.as_secs()))]).await;
    let records = product.register(NAME, "brand").await;
    product.set_dns(&records).await;
    product.served(NAME, Duration::from_secs(15)).await;

    let tally = Arc::new(Tally::default());
    let visitor = product.visitor();
    let mut visitors = JoinSet::new();
    for _ in 0..2 {
        visitors.spawn(keep_coming(visitor.clone(), tally.clone()));
    }
    visitors.spawn(stay(visitor.clone(), tally.clone()));

    let mut serial = recorded_serial(&product).await;
    for renewal in 1..=RENEWALS {
        let began = Instant::now();
        let recorded = until("the next certificate is recorded", lifetime * 2, async || {
            sleep(Duration::from_millis(100)).await;
            Some(recorded_serial(&product).await).filter(|now| *now != serial)
        });
        serial = recorded.await;
        let after = began.elapsed();
        let recorded = Instant::now();
        until("the recorded certificate is served", SERVED, async || {
            let visit = visitor.get(NAME, "/").await.expect("a visitor is served throughout");
            (plain(&visit.serial) == serial).then_some(())
        })
        .await;
        println!("renewal {renewal}: recorded after {after:?}, served {:?} later", recorded.elapsed());
    }
    tally.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = visitors.join_next().await {
        ended.expect("a visitor does not panic");
    }
    let failed = tally.failed.lock().unwrap().clone();
    let answered = tally.answered.load(Ordering::Relaxed);
    println!("{answered} requests answered, {} failed", failed.len());
    assert!(
        failed.is_empty(),
        "{} failed, first {:?}; logs in {}",
        failed.len(),
        &failed[..failed.len().min(5)],
        product.folder().display()
    );
    assert!(answered > 200, "only {answered} requests were made: no load");
    let issued = product.ca_counters().await["finalized_orders"].as_u64().unwrap();
    assert!((RENEWALS as u64 + 1..=RENEWALS as u64 + 2).contains(&issued), "{issued} certificates for {RENEWALS} renewals");
}
