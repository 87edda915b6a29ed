//! A restore from a backup that is one day old, on virtual time: nothing is issued again, nothing comes back.
//!
//! A fleet lives for two days, a backup is taken, and then a day passes on which everything happens that happens to names. Then the store is
//! lost, or the machine. The judge is outside the product: the CA's book, which holds orders to Let's Encrypt's limits, and the bucket as a new
//! edge reads it, hour by hour.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use domains::{Claim, Clock, Timestamp, ledger::CaLimits};
use http::Method;
use serde_json::{Value, json};
use system_tests::{
    simulation::{Loss, Simulation, later},
    sizes::size,
};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3_600);
/// Let's Encrypt's `shortlived` profile, renewed at half of its life at the latest: the first cohort on the day after the backup.
const LIFETIME: Duration = Duration::from_secs(6 * 86_400);
/// No certificate of that life is renewed before.
const TOO_EARLY: Duration = Duration::from_secs(60 * 3_600);
/// The registered domain that comes near the CA's limit of 50 certificates a week.
const BUSY: &str = "busy.com";

type Served = BTreeMap<String, (u64, Option<String>)>;

/// A fleet, the backup, and what happened on the day after it.
struct Day {
    world: Simulation,
    _place: TempDir,
    backup: PathBuf,
    webhook: String,
    import: String,
    /// Whose each name is, in the end.
    tenants: BTreeMap<String, String>,
    /// Removed by their customers, the records of some still there.
    removed: Vec<String>,
    still_pointing: Vec<String>,
    /// Moved, with the tenant before.
    moved: BTreeMap<String, String>,
    suspended: Vec<String>,
    /// Suspended before the backup and resumed after it, and the other way round within the day.
    resumed: Vec<String>,
    /// Registered after the backup, or without a record until then, and served.
    new: Vec<String>,
    /// Removed after the backup, and registered once more by the same tenant.
    came_back: Vec<String>,
    /// Ordered before the backup, issued after it.
    under_way: Vec<String>,
    /// Registered after the backup, with an order at the CA that nobody finalized.
    lost: Vec<String>,
    /// When the certificate was issued that each name had when the backup was taken, or was about to have.
    before: BTreeMap<String, Timestamp>,
    /// What was served when everything was lost.
    served: Served,
    /// When that was.
    at: Timestamp,
}

fn tenant_of(n: usize) -> String {
    format!("t{}", n % 7)
}

async fn act(world: &Simulation, name: &str, tenant: &str, what: &str) {
    let body = json!({ "reason": "unpaid" });
    let (method, body) = if what.is_empty() { (Method::DELETE, None) } else { (Method::POST, Some(&body)) };
    let path = format!("/v1/domains/{name}{what}?tenant={tenant}");
    world.ask(method, &path, body.filter(|_| what == "/suspend")).await;
}

/// Whether the claim knows of its order.
fn is_ordered(claim: &Claim) -> bool {
    let attempt = claim.issuance().and_then(|issuance| issuance.attempt.as_ref());
    attempt.is_some_and(|attempt| attempt.order_url.is_some())
}

/// A fleet of two days, a backup of it, and a day on which everything happens.
async fn a_day_after_the_backup() -> Day {
    let mut world = Simulation::new("restoring", LIFETIME).await;
    world.ca.hold_to(dev_ca::Limits::lets_encrypt(1));
    world.tick = Duration::from_secs(600);
    world.grain = Duration::from_secs(1);
    world.work_under(&CaLimits::lets_encrypt("ca.simulated.test"), 2);
    let count = size(96, 800);
    let fleet: Vec<(String, String)> = (0..count).map(|n| (format!("shop{n}.brand{}.com", n % 40), tenant_of(n))).collect();
    let mut tenants: BTreeMap<String, String> = fleet.iter().cloned().collect();
    let webhook = world.ask(Method::POST, "/v1/webhooks", Some(&json!({ "url": "https://hooks.saas.net/" }))).await["id"].clone();
    for cohort in fleet.chunks(count.div_ceil(3)) {
        for (name, tenant) in cohort {
            world.onboard(name, tenant).await;
        }
        world.run_for(16 * HOUR).await;
    }
    world.ca.fail("shop.fails.com");
    world.onboard("shop.fails.com", "t0").await;
    // From the younger cohorts, whose certificates are not renewed on the day that follows.
    let young: Vec<(String, String)> = fleet[count / 2..].to_vec();
    let mut take = young.iter().map(|(name, tenant)| (name.clone(), tenant.clone()));
    let mut some = |many: usize| take.by_ref().take(many).collect::<Vec<_>>();
    let resumed = some(4);
    for (name, tenant) in &resumed[..2] {
        act(&world, name, tenant, "/suspend").await;
    }
    // Registered, with no record yet.
    let pending = ["late0.pending.com", "late1.pending.com"];
    for name in pending {
        world.ask(Method::POST, "/v1/domains", Some(&json!({ "hostname": name, "tenant": "t4" }))).await;
        tenants.insert(name.to_owned(), "t4".into());
    }
    let import: Vec<Value> = fleet[..10].iter().map(|(name, tenant)| json!({ "hostname": name, "tenant": tenant })).collect();
    let import = world.ask(Method::POST, "/v1/imports", Some(&json!({ "domains": import }))).await["id"].clone();
    world.run_for(HOUR).await;
    world.ca.keep_orders_open(true);
    let under_way: Vec<String> = (0..4).map(|n| format!("order{n}.way.com")).collect();
    for name in &under_way {
        world.onboard(name, "t1").await;
        tenants.insert(name.clone(), "t1".into());
    }
    for minutes in 1.. {
        world.run_for(Duration::from_secs(60)).await;
        let claims = world.claims().await;
        if under_way.iter().all(|name| claims.iter().any(|claim| claim.key.hostname.as_str() == name && is_ordered(claim))) {
            break;
        }
        assert!(minutes < 30, "no order is under way");
    }
    let place = TempDir::new().unwrap();
    let backup = place.path().join("backup");
    world.back_up(&backup);
    let of_backup = world.ca.issued();

    // The day. The oldest cohort is renewed by itself.
    world.ca.keep_orders_open(false);
    world.run_for(2 * HOUR).await;
    // A tenth of the fleet goes, some of the oldest too, whatever was renewed of them.
    let mut removed: Vec<String> = some(8).into_iter().map(|(name, _)| name).collect();
    removed.extend(fleet[..4].iter().map(|(name, _)| name.clone()));
    let came_back = some(2);
    for name in removed.iter().chain(came_back.iter().map(|(name, _)| name)) {
        act(&world, name, &tenants[name], "").await;
    }
    let mut still_pointing: Vec<String> = removed.iter().step_by(2).cloned().collect();
    for name in removed.iter().filter(|name| !still_pointing.contains(name)) {
        world.dns.forget(name);
    }
    let (suspended, moving) = (some(5), some(6));
    for (name, tenant) in suspended.iter().chain(&resumed[2..]) {
        act(&world, name, tenant, "/suspend").await;
    }
    let mut moved = BTreeMap::new();
    for (name, tenant) in &moving {
        world.onboard(name, "mover").await;
        moved.insert(name.clone(), tenant.clone());
        tenants.insert(name.clone(), "mover".into());
    }
    let mut new: Vec<String> = (0..30).map(|n| format!("new{n}.{BUSY}")).collect();
    new.extend((0..10).map(|n| format!("shop.fresh{n}.com")));
    for name in &new {
        world.onboard(name, "t2").await;
        tenants.insert(name.clone(), "t2".into());
    }
    for name in pending {
        world.onboard(name, "t4").await;
    }
    new.push(pending[0].to_owned());
    world.run_for(HOUR).await;
    for (name, tenant) in &resumed {
        act(&world, name, tenant, "/resume").await;
    }
    for (name, tenant) in &came_back {
        world.onboard(name, tenant).await;
    }
    world.run_for(21 * HOUR - Duration::from_secs(60)).await;
    for (name, tenant) in &fleet[4..6] {
        act(&world, name, tenant, "").await;
        world.dns.forget(name);
        removed.push(name.clone());
    }
    assert_eq!(world.edge_view().await[pending[1]].1.as_deref(), Some("t4"));
    act(&world, pending[1], "t4", "").await;
    removed.push(pending[1].to_owned());
    still_pointing.push(pending[1].to_owned());
    world.ca.keep_orders_open(true);
    let lost: Vec<String> = (0..3).map(|n| format!("order{n}.lost.com")).collect();
    for name in &lost {
        world.onboard(name, "t3").await;
        tenants.insert(name.clone(), "t3".into());
    }
    world.run_for(Duration::from_secs(60)).await;
    world.ca.keep_orders_open(false);
    let mut before: BTreeMap<String, Timestamp> = of_backup.into_iter().map(|(name, list)| (name, list.last().unwrap().0)).collect();
    let issued = world.ca.issued();
    before.extend(under_way.iter().map(|name| (name.clone(), issued[name][0].0)));
    let names = |list: Vec<(String, String)>| list.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let (served, at) = (world.edge_view().await, world.clock.now());
    let day = Day {
        world,
        _place: place,
        backup,
        webhook: webhook.as_str().unwrap().to_owned(),
        import: import.as_str().unwrap().to_owned(),
        tenants,
        removed,
        still_pointing,
        moved,
        suspended: names(suspended),
        resumed: names(resumed),
        new,
        came_back: names(came_back),
        under_way,
        lost,
        before,
        served,
        at,
    };
    day.is_as_it_was_meant(&fleet);
    day
}

impl Day {
    /// The day did what it was to do, before anything is judged by it.
    fn is_as_it_was_meant(&self, fleet: &[(String, String)]) {
        let serves = |name: &String| self.served.get(name).and_then(|(_, tenant)| tenant.as_ref());
        let gone: BTreeSet<&String> = self.removed.iter().chain(&self.suspended).collect();
        for (name, _) in fleet {
            let expected = (!gone.contains(name)).then_some(&self.tenants[name]);
            assert_eq!(serves(name), expected, "{name}");
        }
        for name in self.new.iter().chain(&self.under_way) {
            assert_eq!(serves(name), Some(&self.tenants[name]), "{name}");
        }
        assert!(self.lost.iter().all(|name| serves(name).is_none()));
        let issued = self.world.ca.issued();
        let renewed = |name: &String| issued[name].len() == 2;
        assert!(fleet[4..20].iter().all(|(name, _)| renewed(name)), "nothing was renewed on the day");
        assert_eq!(self.world.ca.refused(), Vec::<String>::new());
    }

    /// Lets hours pass, and reads the bucket as an edge does after each: no version goes backwards, and nobody is served who may not be.
    async fn watch(&mut self, hours: u32, last: &mut Served, may_not: &dyn Fn(&str, &str) -> bool) {
        for _ in 0..hours {
            self.world.run_for(HOUR).await;
            let view = self.world.edge_view().await;
            for (name, (version, tenant)) in &view {
                let before = last.get(name).map_or(0, |(before, _)| *before);
                assert!(*version >= before, "{name} went from version {before} back to {version}");
                assert!(!tenant.as_ref().is_some_and(|tenant| may_not(name, tenant)), "{name} is served again, for {tenant:?}");
            }
            assert!(last.keys().all(|name| view.contains_key(name)), "the index forgot names");
            *last = view;
        }
    }

    /// Who may never be served again: what was removed, for anybody, and what moved, for the tenant before. What is suspended too, where
    /// that is known.
    fn resurrected(&self) -> impl Fn(&str, &str) -> bool + use<> {
        let gone: BTreeSet<String> = self.removed.iter().chain(&self.suspended).cloned().collect();
        let moved = self.moved.clone();
        move |name, tenant| gone.contains(name) || moved.get(name).is_some_and(|before| before == tenant)
    }

    /// How many certificates each name got since everything was lost.
    fn issued_since(&self) -> BTreeMap<String, usize> {
        let issued = self.world.ca.issued().into_iter();
        issued.map(|(name, list)| (name, list.iter().filter(|(at, _)| *at > self.at).count())).filter(|(_, count)| *count > 0).collect()
    }

    /// Paused, stopped, and nothing of it registers or sends by itself.
    async fn nothing_beside_the_names_went_on(&self) {
        let webhook = self.world.ask(Method::GET, &format!("/v1/webhooks/{}", self.webhook), None).await;
        assert!(webhook["disabled"]["why"].as_str().unwrap().contains("redeliver"), "{webhook}");
        assert_eq!(self.world.work_imports().await, 0, "an import of before the backup went on");
        let import = self.world.ask(Method::GET, &format!("/v1/imports/{}", self.import), None).await;
        assert_eq!(
            (&import["left"], &import["refused"], &import["refusals"][0]["code"]),
            (&0.into(), &10.into(), &"import.stopped".into())
        );
    }
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

#[tokio::test]
async fn with_its_bucket_a_backup_one_day_old_issues_nothing_again_and_brings_nothing_back() {
    let began = Instant::now();
    let mut day = a_day_after_the_backup().await;
    let restored = day.world.lose_and_restore(Loss::Store, &day.backup, &[], &[]).await;
    assert_eq!(sorted(&restored.gone), sorted(&day.removed));
    assert_eq!(sorted(&restored.suspended), sorted(&day.suspended));
    // Of what was never served the bucket has no trace.
    assert_eq!((restored.withheld.as_slice(), restored.unknown.as_slice()), (["shop.fails.com".to_owned()].as_slice(), [].as_slice()));
    for name in day.new.iter().chain(day.moved.keys()).chain(&day.resumed).chain(&day.came_back).chain(&day.under_way) {
        assert!(restored.taken_over.contains(name), "{name} is not taken over");
    }
    assert_eq!((restored.webhooks.len(), restored.imports.len()), (1, 1));
    day.nothing_beside_the_names_went_on().await;

    // What was never served is registered again, and life goes on: also where the CA's limit is near.
    let more: Vec<String> = (0..30).map(|n| format!("more{n}.{BUSY}")).collect();
    for name in day.lost.iter().chain(&more) {
        let tenant = day.tenants.get(name).cloned().unwrap_or_else(|| "t2".into());
        day.world.onboard(name, &tenant).await;
    }
    let (mut last, may_not) = (day.served.clone(), day.resurrected());
    day.watch(30, &mut last, &may_not).await;
    for name in &day.suspended {
        act(&day.world, name, &day.tenants[name].clone(), "/resume").await;
    }
    let removed: BTreeSet<String> = day.removed.iter().cloned().collect();
    day.watch(18, &mut last, &|name, _| removed.contains(name)).await;

    assert_eq!(day.world.ca.refused(), Vec::<String>::new(), "the CA answered rateLimited");
    let gone: BTreeSet<&String> = day.removed.iter().collect();
    for (name, tenant) in &day.tenants {
        let expected = (!gone.contains(name)).then_some(tenant);
        assert_eq!(last.get(name).and_then(|(_, tenant)| tenant.as_ref()), expected, "{name}");
    }
    let mut again = Vec::new();
    for (name, list) in day.world.ca.issued() {
        // Another tenant, or a removal, is another certificate; nothing else is before its time.
        let allowed = usize::from(day.moved.contains_key(&name) || day.came_back.contains(&name));
        let early = list.windows(2).filter(|pair| pair[1].0 < later(pair[0].0, TOO_EARLY)).count();
        if early > allowed {
            again.push(format!("{name} at {:?}", list.iter().map(|(at, _)| *at).collect::<Vec<_>>()));
        }
    }
    assert_eq!(again, Vec::<String>::new(), "certificates were issued again");
    assert_eq!(day.world.ended_in_service(), Vec::<String>::new());
    let since = day.issued_since();
    let fresh = more.iter().filter(|name| since.contains_key(*name)).count();
    assert!((5..30).contains(&fresh), "of 30 names beyond the limit of a registered domain {fresh} were issued");
    println!(
        "{} names, {} certificates after the loss, {:?} of real time",
        day.tenants.len(),
        since.values().sum::<usize>(),
        began.elapsed()
    );
}

#[tokio::test]
async fn without_its_bucket_a_backup_one_day_old_issues_nothing_that_it_knows_and_brings_nothing_back() {
    let began = Instant::now();
    let mut day = a_day_after_the_backup().await;
    let (removed, suspended) = (day.still_pointing.clone(), day.suspended.clone());
    let restored = day.world.lose_and_restore(Loss::Machine, &day.backup, &removed, &suspended).await;
    assert_eq!(sorted(&restored.gone), sorted(&day.still_pointing));
    assert_eq!(sorted(&restored.suspended), sorted(&day.suspended));
    assert!(restored.taken_over.is_empty() && restored.unknown.is_empty());
    day.nothing_beside_the_names_went_on().await;

    // What was resumed since is resumed once more, and what was registered or moved since registered again, as the guide says.
    for name in &day.resumed[..2] {
        act(&day.world, name, &day.tenants[name].clone(), "/resume").await;
    }
    let again: Vec<String> = day.new.iter().chain(day.moved.keys()).chain(&day.lost).chain(&day.came_back).cloned().collect();
    for name in &again {
        day.world.onboard(name, &day.tenants[name].clone()).await;
    }
    let (mut last, may_not) = (Served::new(), day.resurrected());
    day.watch(48, &mut last, &may_not).await;

    assert_eq!(day.world.ca.refused(), Vec::<String>::new(), "the CA answered rateLimited");
    let gone: BTreeSet<&String> = day.removed.iter().chain(&day.suspended).collect();
    for (name, tenant) in &day.tenants {
        let expected = (!gone.contains(name)).then_some(tenant);
        assert_eq!(last.get(name).and_then(|(_, tenant)| tenant.as_ref()), expected, "{name}");
    }
    let since = day.issued_since();
    let over = since.iter().filter(|(_, count)| **count > 1).collect::<Vec<_>>();
    assert!(over.is_empty(), "issued twice after the loss: {over:?}");
    // Whatever the backup has a certificate for that is not yet to be renewed is served with it.
    let first = |name: &String| day.world.ca.issued()[name].iter().map(|(at, _)| *at).find(|at| *at > day.at).unwrap();
    let is_due = |name: &String| day.before.get(name).is_some_and(|from| first(name) >= later(*from, TOO_EARLY));
    let unasked: Vec<&String> = since.keys().filter(|name| !again.contains(name) && !is_due(name)).collect();
    assert_eq!(unasked, Vec::<&String>::new(), "certificates were issued again");
    assert_eq!(day.world.ended_in_service(), Vec::<String>::new());
    println!(
        "{} names, {} certificates after the loss, {:?} of real time",
        day.tenants.len(),
        since.values().sum::<usize>(),
        began.elapsed()
    );
}
