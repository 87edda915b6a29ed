//! A served name has two lanes, looks at its DNS and orders, which write beside each other: what one says, the other must not lose.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use domains::{
    Actor, CaChoice, Change, Claim, ClaimId, ClaimKey, Delegation, Finding, Hostname, IssuancePolicy, IssueError, Issued, Judgement, Lane,
    LastLook, LedgerMove, LookSchedule, OrderPlan, Owner, OwnershipToken, PreparedKey, ProblemCode, Proof, RenewalWindow, Routing, State,
    TenantId, Timestamp,
    decide::{self, SUSPENDED_AFTER},
    ledger::{CaLimits, Level, MemoryLedger, OrderKind, Reservation, Wait},
};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

fn at(seconds: u64) -> Timestamp {
    "2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap().checked_add(Duration::from_secs(seconds)).unwrap()
}

fn look(routing: Routing, delegation: Delegation) -> Judgement {
    Judgement {
        proof: Some(Proof::Delegation),
        routing,
        delegation,
        txt_values: Vec::new(),
        finding: None,
        obstacle: None,
        forbidden: Vec::new(),
        advice: None,
    }
}

fn obstacle(code: ProblemCode) -> Finding {
    let text = || "CAA brand.com".to_owned();
    Finding { code, actor: Actor::Customer, action: text(), about: text(), expected: text(), saw: text() }
}

/// Delegated, and the name itself leads elsewhere.
fn delegated() -> Judgement {
    look(Routing::Elsewhere, Delegation::Ours)
}

fn here() -> Judgement {
    look(Routing::OurTarget, Delegation::Ours)
}

fn gone() -> Judgement {
    look(Routing::Elsewhere, Delegation::None)
}

struct World {
    claim: Claim,
    owner: Option<Owner>,
    events: Vec<String>,
    looks: LookSchedule,
    policy: IssuancePolicy,
}

impl World {
    fn registered() -> Self {
        let key = ClaimKey { hostname: Hostname::parse_name("shop.brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
        let (looks, policy) = (LookSchedule::default(), IssuancePolicy::default());
        let (id, token) = (ClaimId::parse("k3q9x2").unwrap(), OwnershipToken::parse("np-verify=5f3a").unwrap());
        let claim = decide::register(key, id, token, None, &looks, at(0)).claims[0].item.clone();
        Self { claim, owner: None, events: Vec::new(), looks, policy }
    }

    /// Proved by its delegation, with a certificate of 90 days in service.
    fn served() -> Self {
        let mut world = Self::registered();
        world.looked(&here(), at(5));
        world.lease(at(10));
        let (not_before, not_after) = (at(10), at(90 * DAY));
        let issued = Issued { chain: "chain".into(), serial: "01".into(), not_before, not_after, ari_id: Some("a.b".into()) };
        let recorded = decide::record_certificate(&world.claim, world.owner.as_ref().unwrap(), &issued, &world.looks, at(10)).unwrap();
        world.apply(recorded);
        let version = world.owner.as_ref().unwrap().site_version;
        let tenant = world.claim.key.tenant.clone();
        world.apply(decide::record_publication(&world.claim, Some(&tenant), version, at(20)).unwrap());
        world
    }

    fn apply(&mut self, change: Change) {
        self.claim = change.claims.into_iter().next().unwrap().item;
        self.owner = change.owner.map(|put| put.item).or_else(|| self.owner.take());
        self.events.extend(change.history.into_iter().map(|entry| entry.event));
    }

    fn lease(&mut self, now: Timestamp) {
        let key = PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: "ab".into() };
        self.apply(decide::lease_issuance(&self.claim, Some((key, OrderPlan::default())), &self.policy, now).unwrap());
    }

    fn looked(&mut self, seen: &Judgement, now: Timestamp) {
        self.apply(decide::after_look(&self.claim, self.owner.as_ref(), None, seen, &self.looks, now, now).unwrap());
    }

    /// The first certificate's renewal, which the CA refuses this way.
    fn refused(&mut self, error: &IssueError, now: Timestamp) {
        self.lease(now);
        self.apply(decide::record_refusal(&self.claim, error, &self.policy, now).unwrap());
    }

    fn renewed(&mut self, now: Timestamp) {
        let issued =
            Issued { chain: "chain".into(), serial: "02".into(), not_before: now, not_after: at(160 * DAY), ari_id: Some("a.c".into()) };
        self.apply(decide::record_certificate(&self.claim, self.owner.as_ref().unwrap(), &issued, &self.looks, now).unwrap());
    }

    fn code(&self) -> Option<ProblemCode> {
        self.claim.problem.as_ref().map(|problem| problem.code)
    }

    fn health_look(&self) -> Timestamp {
        let State::Active { health_look, .. } = &self.claim.state else { panic!("{:?}", self.claim.state) };
        *health_look
    }
}

#[test]
fn whatever_dns_shows_a_stopped_renewal_is_woken_by_the_check_that_its_problem_asks_for() {
    let forbidden = |seen: Judgement| Judgement { obstacle: Some(obstacle(ProblemCode::CaaForbids)), ..seen };
    let paused = || vec![IssueError::Paused { detail: "visit https://ca/unpause".into() }];
    let refused = || (0..SUSPENDED_AFTER).map(|_| IssueError::ChallengeFailed { detail: "404".into() }).collect();
    for (stops, code) in [(paused(), ProblemCode::CaPaused), (refused(), ProblemCode::CaSuspended)] {
        for seen in [here(), delegated(), forbidden(here()), forbidden(delegated())] {
            let mut world = World::served();
            stops.iter().for_each(|error: &IssueError| world.refused(error, at(70 * DAY)));
            world.looked(&seen, at(70 * DAY + HOUR));
            assert_eq!(world.code(), Some(code), "the stop is no longer told beside {seen:?}");
            assert_eq!(world.health_look(), at(71 * DAY + HOUR), "nothing in DNS is waited for");
            world.apply(decide::look_now(&world.claim, at(71 * DAY)).unwrap());
            assert_eq!(world.claim.issuance().unwrap().next_look, at(71 * DAY), "{code:?} beside {seen:?}");
            world.looked(&here(), at(71 * DAY + 1));
            assert!(world.claim.issuance().unwrap().stopped.is_none(), "it was asked for, and the next look forgot that");
        }
    }
}

#[test]
fn a_stop_outlives_the_time_in_which_the_name_leads_elsewhere() {
    let mut world = World::served();
    world.refused(&IssueError::Paused { detail: "visit https://ca/unpause".into() }, at(70 * DAY));
    world.looked(&gone(), at(71 * DAY));
    assert_eq!(world.code(), Some(ProblemCode::AtRisk), "a certificate that cannot be renewed at all comes first");
    world.looked(&delegated(), at(72 * DAY));
    assert_eq!(world.code(), Some(ProblemCode::CaPaused), "it came back, and nobody is told why no renewal comes");
    assert_eq!(world.events[world.events.len() - 2..], ["became_at_risk", "recovered"].map(String::from));
    world.looked(&gone(), at(73 * DAY));
    world.apply(decide::look_now(&world.claim, at(74 * DAY)).unwrap());
    assert_eq!(world.claim.issuance().unwrap().next_look, at(74 * DAY));
}

/// How often each lane looks in an hour in which DNS shows the same all the time, the renewal being due: health, then issuance.
fn looks_in_an_hour(world: &mut World, seen: &Judgement, from: u64) -> (u32, u32) {
    let (mut health, mut orders) = (0, 0);
    let mut now = at(from);
    while now < at(from + HOUR) {
        if world.health_look() <= now {
            world.looked(seen, now);
            health += 1;
        }
        if world.claim.issuance().unwrap().next_look <= now {
            world.apply(decide::postpone_order(&world.claim, seen, &world.looks, now).unwrap());
            orders += 1;
        }
        now = world.health_look().min(world.claim.issuance().unwrap().next_look).max(now);
    }
    (health, orders)
}

#[test]
fn two_lanes_that_see_the_same_obstacle_do_not_make_each_other_look_ever_again() {
    for seen in [here(), delegated(), gone()] {
        let obstacle = Some(obstacle(ProblemCode::CaaForbids));
        let seen = Judgement { obstacle, ..seen };
        let mut world = World::served();
        let (health, orders) = looks_in_an_hour(&mut world, &seen, 70 * DAY);
        // A twentieth of what was waited, and five seconds at least: 20 looks, then one each 5 % more.
        assert!(health <= 120 && orders <= 120, "{health} looks and {orders} looks before an order in one hour of {seen:?}");
        let (health, orders) = looks_in_an_hour(&mut world, &seen, 75 * DAY);
        assert!(health <= 4 && orders <= 4, "days later: {health} looks and {orders} looks before an order of {seen:?}");
    }
}

#[test]
fn a_name_that_alternates_between_two_things_to_wait_for_is_not_looked_at_as_often_as_a_new_one() {
    let unreadable = Judgement { obstacle: Some(obstacle(ProblemCode::CaaUnreadable)), ..delegated() };
    let mut world = World::served();
    let (mut now, mut looks) = (DAY, Vec::new());
    while now < 12 * DAY {
        let seen = if looks.len() % 2 == 0 { delegated() } else { unreadable.clone() };
        world.looked(&seen, at(now));
        looks.push(now);
        assert_eq!(world.claim.problem.as_ref().unwrap().waits_since, Some(at(DAY)), "how long it really waits is not told");
        now = u64::try_from(world.health_look().duration_since(at(0)).as_secs()).unwrap();
    }
    let within = |from: u64, to: u64| looks.iter().filter(|moment| (from..to).contains(*moment)).count();
    assert!(within(2 * DAY, 3 * DAY) <= 25, "{} looks in its second day", within(2 * DAY, 3 * DAY));
    assert!(within(11 * DAY, 12 * DAY) <= 15, "{} looks in a day, though it is meant to stay so", within(11 * DAY, 12 * DAY));
    // It came here, and what can wait was told beside it; leaving again is a wait of its own.
    world.looked(&Judgement { advice: Some(obstacle(ProblemCode::DnsServerLame)), ..here() }, at(now));
    assert_eq!(world.claim.problem.as_ref().unwrap().waits_since, None, "nothing waits for advice");
    world.looked(&delegated(), at(now + DAY));
    assert_eq!(world.claim.problem.as_ref().unwrap().waits_since, Some(at(now + DAY)));
}

#[test]
fn a_renewal_is_counted_as_what_the_cas_will_count_it_as() {
    let limits = CaLimits::lets_encrypt("ca");
    let window = RenewalWindow { start: at(60 * DAY), end: at(62 * DAY), retry_after: Duration::from_secs(6 * HOUR) };
    let counted = |replaces: bool, ca: CaChoice, is_known: bool, now: Timestamp| {
        let mut world = World::served();
        if is_known {
            world.apply(decide::record_window(&world.claim, Some(&window), at(50 * DAY)).unwrap());
        }
        let plan = OrderPlan { ca, replaces: replaces.then(|| "a.b".to_owned()), ..OrderPlan::default() };
        let key = PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: "ab".into() };
        world.apply(decide::lease_issuance(&world.claim, Some((key, plan)), &world.policy, now).unwrap());
        let reservation = limits.reservation(&world.claim, now).unwrap();
        let kind = [OrderKind::New, OrderKind::Renewal, OrderKind::AriRenewal];
        let lane = reservation.lane;
        kind.into_iter().find(|kind| limits.needs(&world.claim.key.hostname, *kind, lane) == reservation.needs).unwrap()
    };
    let (first, second) = (CaChoice::First, CaChoice::Second);
    assert_eq!(counted(true, first, true, at(61 * DAY)), OrderKind::AriRenewal);
    assert_eq!(counted(true, first, true, at(62 * DAY)), OrderKind::Renewal, "its window is over");
    assert_eq!(counted(true, first, true, at(60 * DAY - 1)), OrderKind::Renewal, "its window has not begun");
    assert_eq!(counted(true, first, false, at(61 * DAY)), OrderKind::Renewal, "no window is known");
    assert_eq!(counted(false, first, true, at(61 * DAY)), OrderKind::Renewal, "the order will not say what it replaces");
    assert_eq!(counted(false, second, true, at(61 * DAY)), OrderKind::New, "the second CA never saw this name");
}

#[test]
fn tokens_that_were_never_taken_are_not_given_back_when_an_order_counts_as_something_else_meanwhile() {
    let limits = CaLimits::lets_encrypt("ca");
    let name = Hostname::parse_name("shop.brand.com").unwrap();
    let of = |kind| Reservation {
        attempt: "one".into(),
        tenant: TenantId::parse("brand").unwrap(),
        lane: Lane::Renewal,
        needs: limits.needs(&name, kind, Lane::Renewal),
        remembered: Duration::from_secs(DAY),
    };
    let mut ledger = MemoryLedger::default();
    // Another order of the same set took one.
    let other = Reservation { attempt: "other".into(), ..of(OrderKind::Renewal) };
    ledger.apply(&LedgerMove::Reserve(other), at(0)).unwrap();
    let set = of(OrderKind::Renewal).needs.into_iter().find(|need| need.bucket.contains("|set|")).unwrap();
    let left = |ledger: &MemoryLedger| Level::of(&set.bucket, ledger.item(&set.bucket), set.shape, at(0)).unwrap().left;
    let before = left(&ledger);
    ledger.apply(&LedgerMove::Reserve(of(OrderKind::AriRenewal)), at(0)).unwrap();
    ledger.apply(&LedgerMove::Release(of(OrderKind::Renewal)), at(0)).unwrap();
    assert_eq!(left(&ledger), before);
}

#[test]
fn a_look_that_learns_nothing_before_a_renewal_does_not_say_that_a_name_at_risk_is_back() {
    let mut world = World::served();
    world.looked(&gone(), at(70 * DAY));
    let since = world.claim.problem.as_ref().unwrap().since;
    let unknown = Judgement { finding: Some(obstacle(ProblemCode::DnsServfail)), ..look(Routing::Unknown, Delegation::Unknown) };
    world.apply(decide::postpone_order(&world.claim, &unknown, &world.looks, at(71 * DAY)).unwrap());
    let problem = world.claim.problem.clone().unwrap();
    assert_eq!((problem.code, problem.since), (ProblemCode::AtRisk, since), "its grace begins anew");
    assert_eq!(world.events.last().unwrap(), "became_at_risk");
}

#[test]
fn what_a_person_must_do_stays_told_while_the_renewal_waits_and_is_made() {
    let wait = |paused_for: Option<&str>| Wait {
        bucket: "ca|orders".into(),
        until: at(70 * DAY + HOUR),
        paused_for: paused_for.map(str::to_owned),
    };
    let advised = Judgement { advice: Some(obstacle(ProblemCode::DnsServerLame)), ..here() };
    for (seen, code) in [(delegated(), ProblemCode::NotRouted), (advised, ProblemCode::DnsServerLame)] {
        let mut world = World::served();
        world.looked(&seen, at(69 * DAY));
        let told = world.claim.problem.clone().unwrap();
        assert_eq!(told.code, code);
        for waits in [wait(None), wait(Some("429"))] {
            world.lease(at(70 * DAY));
            world.apply(decide::await_turn(&world.claim, &waits, "new orders", &world.policy, at(70 * DAY)).unwrap());
            assert_eq!(world.claim.problem.as_ref(), Some(&told), "a wait that nobody can shorten covers it");
            assert!(world.claim.issuance().unwrap().waits_since.is_some());
        }
        for error in [
            IssueError::RateLimited { retry_after: None, detail: "429".into() },
            IssueError::Unavailable { retry_after: None, detail: "503".into() },
        ] {
            world.refused(&error, at(70 * DAY + HOUR));
            assert_eq!(world.claim.problem.as_ref(), Some(&told), "{error} covers it");
        }
        world.lease(at(71 * DAY));
        world.apply(decide::record_order(&world.claim, "https://ca/order/1", &world.policy, at(71 * DAY)).unwrap());
        assert_eq!(world.claim.problem.as_ref(), Some(&told));
        world.renewed(at(71 * DAY));
        assert_eq!(world.claim.problem.as_ref(), Some(&told), "it is gone with the renewal");
    }
    // Where a refusal that somebody must act on covered it, it is told again soon after.
    let mut world = World::served();
    world.looked(&delegated(), at(70 * DAY));
    world.refused(&IssueError::ChallengeFailed { detail: "404".into() }, at(70 * DAY));
    world.lease(at(70 * DAY + 2 * HOUR));
    world.renewed(at(70 * DAY + 2 * HOUR));
    assert_eq!(world.code(), None);
    assert!(world.health_look() <= at(70 * DAY + 2 * HOUR + 60), "it is told again at {}", world.health_look());
    // And what the look before the order found mended is not told for longer.
    let mut world = World::served();
    world.looked(&delegated(), at(70 * DAY));
    let key = PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: "cd".into() };
    let seen = LastLook::of(&here(), at(71 * DAY));
    world.apply(decide::lease_for_order(&world.claim, Some(key), OrderPlan::default(), &seen, &world.policy, at(71 * DAY)).unwrap());
    world.renewed(at(71 * DAY));
    assert_eq!(world.code(), None, "it leads here");
}

#[test]
fn an_order_that_was_made_no_longer_says_that_it_waits() {
    for code in [ProblemCode::CaQueued, ProblemCode::CaRateLimited, ProblemCode::CaUnavailable] {
        let mut world = World::served();
        world.lease(at(70 * DAY));
        world.claim.problem = Some(obstacle(code).into_problem(None, at(70 * DAY), at(71 * DAY)));
        world.apply(decide::record_order(&world.claim, "https://ca/order/1", &world.policy, at(71 * DAY)).unwrap());
        assert_eq!((world.code(), world.events.last().unwrap().as_str()), (None, "problem_cleared"), "{code:?}");
        let attempt = world.claim.issuance().unwrap().attempt.as_ref().unwrap();
        assert_eq!(attempt.started_at, at(71 * DAY), "its certificate would count as late for the time that it waited");
    }
    let mut world = World::served();
    world.looked(&gone(), at(70 * DAY));
    world.lease(at(70 * DAY));
    world.apply(decide::record_order(&world.claim, "https://ca/order/1", &world.policy, at(71 * DAY)).unwrap());
    assert_eq!(world.code(), Some(ProblemCode::AtRisk));
}

#[test]
fn a_first_order_that_a_look_put_off_is_woken_by_a_check_and_one_that_a_worker_holds_is_not() {
    let mut world = World::registered();
    world.looked(&here(), at(5));
    world.lease(at(10));
    assert!(decide::look_now(&world.claim, at(11)).is_none(), "a worker is on it");
    let elsewhere = Judgement { finding: Some(obstacle(ProblemCode::DnsCnameElsewhere)), ..gone() };
    world.apply(decide::postpone_order(&world.claim, &elsewhere, &world.looks, at(12)).unwrap());
    world.apply(decide::look_now(&world.claim, at(13)).expect("the button does nothing"));
    assert_eq!(world.claim.issuance().unwrap().next_look, at(13));
    world.lease(at(14));
    assert!(decide::look_now(&world.claim, at(15)).is_none(), "a worker is on it again");
}
