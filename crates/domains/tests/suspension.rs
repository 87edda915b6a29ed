//! A suspended domain keeps what it proved; one at risk is told, looked at, and never removed.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use domains::{
    Change, Claim, ClaimId, ClaimKey, Delegation, Hostname, IssuancePolicy, Issued, Judgement, LookSchedule, OrderPlan, OriginName, Owner,
    OwnershipToken, PreparedKey, ProblemCode, Proof, Publication, Routing, SiteVersion, State, StateName, Step, StoredCertificate,
    TenantId, Timestamp, decide,
};

const START: &str = "2026-11-24T10:00:00Z";
const DAY: u64 = 86_400;

fn at(seconds: u64) -> Timestamp {
    START.parse::<Timestamp>().unwrap().checked_add(Duration::from_secs(seconds)).unwrap()
}

fn look(routing: Routing) -> Judgement {
    Judgement {
        proof: Some(Proof::RoutingRecord),
        routing,
        delegation: Delegation::None,
        txt_values: Vec::new(),
        finding: None,
        obstacle: None,
        forbidden: Vec::new(),
        advice: None,
    }
}

/// What the table holds of one name, as its decisions leave it.
struct World {
    claim: Claim,
    owner: Option<Owner>,
    certificates: Vec<StoredCertificate>,
    events: Vec<String>,
    looks: LookSchedule,
}

impl World {
    fn registered() -> Self {
        let key = ClaimKey { hostname: Hostname::parse_name("shop.brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
        let looks = LookSchedule::default();
        let (id, token) = (ClaimId::parse("k3q9x2").unwrap(), OwnershipToken::parse("np-verify=5f3a").unwrap());
        let change = decide::register(key, id, token, None, &looks, at(0));
        let claim = change.claims[0].item.clone();
        Self { claim, owner: None, certificates: Vec::new(), events: vec!["claim_registered".into()], looks }
    }

    /// Proved, issued and published, with a certificate of 90 days.
    fn served() -> Self {
        let mut world = Self::registered();
        let change = decide::after_look(&world.claim, None, None, &look(Routing::OurTarget), &world.looks, at(5), at(5)).unwrap();
        world.apply(change);
        world.issue(at(10));
        world.publish(at(20));
        world
    }

    fn apply(&mut self, change: Change) {
        for put in change.claims {
            assert_eq!(put.expected, Some(self.claim.version));
            assert!(put.item.version > self.claim.version);
            self.claim = put.item;
        }
        if let Some(put) = change.owner {
            assert_eq!(put.expected, self.owner.as_ref().map(|owner| owner.version));
            assert!(self.owner.as_ref().is_none_or(|owner| put.item.site_version > owner.site_version), "a site version went back");
            self.owner = Some(put.item);
        }
        self.certificates.extend(change.certificate);
        for (_, version) in change.dropped_certificates {
            self.certificates.retain(|certificate| certificate.version != version);
        }
        self.events.extend(change.history.into_iter().map(|entry| entry.event));
    }

    fn issue(&mut self, now: Timestamp) {
        let key = PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: "ab".into() };
        self.apply(decide::lease_issuance(&self.claim, Some((key, OrderPlan::default())), &IssuancePolicy::default(), now).unwrap());
        let not_after = now.checked_add(Duration::from_secs(90 * DAY)).unwrap();
        let issued =
            Issued { chain: "chain".into(), serial: format!("{:x}", self.claim.version), not_before: now, not_after, ari_id: None };
        let change = decide::record_certificate(&self.claim, self.owner.as_ref().unwrap(), &issued, &self.looks, now).unwrap();
        self.apply(change);
    }

    /// What publish-site shows of the claim, and what it then records; `false` when that is not what the claim waits for.
    fn publish(&mut self, now: Timestamp) -> bool {
        let owner = self.owner.as_ref().unwrap();
        let (shown, version) = match &self.claim {
            claim if claim.taken_down_at().is_some() => (None, claim.taken_down_at().unwrap()),
            Claim { state: State::Active { certificate, .. }, .. } => {
                let stored = self.certificates.iter().find(|stored| stored.version == certificate.version);
                (owner.tenant.clone(), stored.expect("the certificate in service is stored").version)
            }
            _ => (None, owner.site_version),
        };
        let change = decide::record_publication(&self.claim, shown.as_ref(), version, now);
        let recorded = change.is_some();
        change.into_iter().for_each(|change| self.apply(change));
        recorded
    }

    fn suspend(&mut self, reason: &str, now: Timestamp) -> bool {
        let change = decide::suspend(&self.claim, self.owner.as_ref(), reason, now);
        let changed = change.is_some();
        change.into_iter().for_each(|change| self.apply(change));
        changed
    }

    /// The certificate in service, as it is stored.
    fn stored(&self) -> Option<&StoredCertificate> {
        let State::Active { certificate, .. } = &self.claim.state else { return None };
        self.certificates.iter().find(|stored| stored.version == certificate.version)
    }

    fn set_origin(&mut self, name: Option<&str>, now: Timestamp) -> bool {
        let origin = name.map(|name| OriginName::parse(name).unwrap());
        let change = decide::set_origin(&self.claim, self.owner.as_ref(), self.stored(), origin.as_ref(), now);
        let changed = change.is_some();
        change.into_iter().for_each(|change| self.apply(change));
        changed
    }

    fn resume(&mut self, now: Timestamp) -> bool {
        let change = decide::resume(&self.claim, self.owner.as_ref(), self.stored(), now);
        let changed = change.is_some();
        change.into_iter().for_each(|change| self.apply(change));
        changed
    }

    fn serial(&self) -> String {
        let State::Active { certificate, .. } = &self.claim.state else { panic!("{:?}", self.claim.state) };
        certificate.serial.clone()
    }

    fn site(&self) -> SiteVersion {
        self.owner.as_ref().unwrap().site_version
    }

    fn is_published(&self) -> bool {
        matches!(&self.claim.state, State::Active { publication: Publication::Done { .. }, .. })
    }

    fn looked(&mut self, routing: Routing, now: Timestamp) {
        let change = decide::after_look(&self.claim, self.owner.as_ref(), None, &look(routing), &self.looks, now, now).unwrap();
        self.apply(change);
    }
}

#[test]
fn a_suspended_domain_goes_down_and_comes_back_with_its_certificate_and_no_order() {
    let mut world = World::served();
    let (serial, site) = (world.serial(), world.site());
    assert!(world.suspend("unpaid", at(DAY)));
    assert!(!world.suspend("unpaid", at(DAY)), "twice for one reason is once");
    assert!(world.suspend("unpaid for long", at(DAY + 1)) && world.claim.suspension.as_ref().unwrap().since == at(DAY));
    assert!(world.site() > site && world.claim.is_due(Step::PublishSite, at(DAY + 1)));
    assert!(world.publish(at(DAY + 2)) && !world.publish(at(DAY + 2)));
    assert_eq!((world.serial(), world.certificates.len()), (serial.clone(), 1));
    assert_eq!(world.claim.state.name(), StateName::Active);

    let down = world.site();
    assert!(world.resume(at(2 * DAY)) && !world.resume(at(2 * DAY)));
    assert!(world.site() > down && !world.is_published() && !world.claim.is_renewed(), "it is not served until it is published");
    assert!(world.publish(at(2 * DAY + 1)));
    assert_eq!((world.serial(), world.certificates.len()), (serial, 1));
    assert_eq!(world.certificates[0].version, world.site());
    assert_eq!(world.events[4..], ["suspended", "suspended", "site_suspended", "resumed", "site_published"].map(String::from)[..]);
}

#[test]
fn what_was_shown_before_a_suspension_is_not_taken_for_its_take_down_or_its_return() {
    let mut world = World::served();
    let (tenant, before) = (world.owner.as_ref().unwrap().tenant.clone(), world.site());
    world.suspend("unpaid", at(DAY));
    let down = world.claim.taken_down_at().unwrap();
    assert_eq!(down, world.site());
    let suspended = world.claim.clone();
    assert!(decide::record_publication(&world.claim, tenant.as_ref(), before, at(DAY)).is_none(), "the site of before");
    world.resume(at(DAY));
    // A publisher that read the claim while it was suspended and the owner item since.
    assert!(suspended.taken_down_at().unwrap() < world.site(), "a late take-down would keep the site from returning");
    assert_eq!(world.claim.taken_down_at(), None);
    assert!(decide::record_publication(&world.claim, None, down, at(DAY)).is_none(), "the tombstone of before");
    assert!(decide::record_publication(&world.claim, tenant.as_ref(), before, at(DAY)).is_none(), "the site of before");
    assert!(world.publish(at(DAY)));
}

#[test]
fn nothing_is_renewed_while_suspended_and_an_expired_certificate_is_ordered_anew_at_the_return() {
    let mut world = World::served();
    world.suspend("unpaid", at(DAY));
    world.publish(at(DAY));
    for day in [30, 60, 89, 120] {
        assert!(!world.claim.is_due(Step::IssueCertificate, at(day * DAY)), "day {day}");
        assert!(world.claim.next_look().is_some(), "a claim that is not a tombstone has a next look");
    }
    assert!(world.resume(at(120 * DAY)));
    assert_eq!((world.claim.state.name(), world.certificates.len()), (StateName::Issuing, 0));
    assert!(world.claim.is_due(Step::IssueCertificate, at(120 * DAY)));
    world.issue(at(120 * DAY));
    assert!(world.publish(at(120 * DAY)));
}

#[test]
fn a_renewal_that_is_late_is_made_up_for_when_the_domain_returns() {
    let mut world = World::served();
    world.suspend("unpaid", at(DAY));
    world.publish(at(DAY));
    world.resume(at(80 * DAY));
    assert!(world.claim.is_due(Step::IssueCertificate, at(80 * DAY)) && world.claim.is_due(Step::PublishSite, at(80 * DAY)));
}

#[test]
fn an_order_under_way_is_finished_and_not_served() {
    for first in [true, false] {
        let mut world = World::served();
        if first {
            world = World::registered();
            let change = decide::after_look(&world.claim, None, None, &look(Routing::OurTarget), &world.looks, at(5), at(5)).unwrap();
            world.apply(change);
        }
        let key = PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: "ab".into() };
        world.apply(
            decide::lease_issuance(&world.claim, Some((key, OrderPlan::default())), &IssuancePolicy::default(), at(70 * DAY)).unwrap(),
        );
        if !first {
            let mut early = World { claim: world.claim.clone(), owner: world.owner.clone(), ..World::registered() };
            assert!(early.suspend("unpaid", at(70 * DAY)));
            assert!(!early.claim.is_due(Step::IssueCertificate, at(71 * DAY)), "an order is made for a site that nobody serves");
            world.apply(decide::record_order(&world.claim, "https://ca/order/1", &IssuancePolicy::default(), at(70 * DAY)).unwrap());
        }
        assert!(world.suspend("unpaid", at(70 * DAY)));
        assert!(world.claim.is_due(Step::IssueCertificate, at(71 * DAY)), "the order is not left behind");
        world.issue(at(71 * DAY));
        assert!(world.publish(at(71 * DAY)) && world.events.last().unwrap() == "site_suspended");
        let serial = world.serial();
        assert!(world.resume(at(72 * DAY)) && world.publish(at(72 * DAY)));
        assert_eq!(world.serial(), serial);
    }
}

#[test]
fn what_is_removed_is_neither_suspended_nor_resumed() {
    let mut world = World::served();
    world.suspend("unpaid", at(DAY));
    let change = decide::request_removal(&world.claim, world.owner.as_ref(), at(DAY));
    world.apply(change);
    assert!(!world.resume(at(DAY)) && !world.suspend("again", at(DAY)));
    assert!(world.publish(at(DAY)));
    assert_eq!((world.claim.state.name(), world.certificates.len()), (StateName::Removed, 0));
    assert!(!world.resume(at(DAY)) && !world.suspend("again", at(DAY)));
}

#[test]
fn a_suspended_domain_that_is_removed_and_registered_again_is_suspended_still() {
    let mut world = World::served();
    world.suspend("abuse", at(DAY));
    world.apply(decide::request_removal(&world.claim, world.owner.as_ref(), at(DAY)));
    assert!(world.publish(at(DAY)));
    let (id, token) = (ClaimId::parse("z7w1").unwrap(), OwnershipToken::parse("np-verify=9c2b").unwrap());
    let change = decide::register(world.claim.key.clone(), id, token, Some(&world.claim), &world.looks, at(2 * DAY));
    world.apply(change);
    assert_eq!(world.claim.suspension.as_ref().unwrap().reason, "abuse");
    world.looked(Routing::OurTarget, at(2 * DAY));
    world.issue(at(2 * DAY));
    assert!(world.publish(at(2 * DAY)) && world.events.last().unwrap() == "site_suspended");
    assert!(world.resume(at(3 * DAY)) && world.publish(at(3 * DAY)));
}

#[test]
fn a_claim_written_before_there_were_suspensions_reads() {
    let mut text = serde_json::to_value(World::served().claim).unwrap();
    text.as_object_mut().unwrap().remove("suspension").expect("the field");
    let claim: Claim = serde_json::from_value(text).unwrap();
    assert_eq!(claim.suspension, None);
}

#[test]
fn a_domain_at_risk_is_told_looked_at_often_told_again_and_served_for_ever() {
    let mut world = World::served();
    world.looked(Routing::Elsewhere, at(DAY));
    let ends = world.claim.grace_ends(&world.looks).unwrap();
    assert_eq!(ends, at(8 * DAY));
    let mut now = at(DAY);
    let mut in_grace = 0;
    while now < at(30 * DAY) {
        let next = world.claim.steps().into_iter().find(|(step, _)| *step == Step::VerifyOwnership).unwrap().1;
        assert!(next > now);
        now = next;
        in_grace += usize::from(now < ends);
        world.looked(Routing::Elsewhere, now);
        assert_eq!(world.claim.problem.as_ref().unwrap().code, ProblemCode::AtRisk);
        assert_eq!((world.claim.state.name(), world.is_published()), (StateName::Active, true));
    }
    assert!(in_grace > 7 * 24, "{in_grace} looks within the grace");
    let after = world.events.iter().filter(|event| *event == "at_risk_grace_ended").count();
    assert_eq!(after, 1, "{:?}", world.events);
    world.looked(Routing::Unknown, now);
    assert!(world.claim.problem.is_some(), "what could not be learned heals nothing");
    world.looked(Routing::OurTarget, now);
    assert_eq!(world.claim.grace_ends(&world.looks), None);
    assert_eq!(world.events[4..], ["became_at_risk", "at_risk_grace_ended", "recovered"].map(String::from)[..]);
}

#[test]
fn another_origin_is_shown_with_the_same_certificate_and_no_order_and_the_site_stays_served() {
    let mut world = World::served();
    let (serial, site) = (world.serial(), world.site());
    assert!(world.set_origin(Some("eu"), at(DAY)) && !world.set_origin(Some("eu"), at(DAY)));
    assert!(world.site() > site && world.claim.is_due(Step::PublishSite, at(DAY)), "no edge would hear of it");
    assert!(!world.is_published() && world.claim.is_renewed(), "what is shown is served meanwhile");
    assert!(world.publish(at(DAY + 1)));
    assert_eq!((world.serial(), world.certificates.len(), world.certificates[0].version), (serial, 1, world.site()));
    assert_eq!(world.events[4..], ["origin_changed", "site_published"].map(String::from)[..]);

    // While it is down nothing is shown; what it returns with is the origin of then.
    world.suspend("unpaid", at(2 * DAY));
    world.publish(at(2 * DAY));
    let down = world.site();
    assert!(world.set_origin(None, at(2 * DAY)) && world.site() == down && world.is_published());
    assert!(world.resume(at(3 * DAY)) && world.claim.origin.is_none());

    let mut world = World::registered();
    assert!(world.set_origin(Some("eu"), at(1)) && world.owner.is_none(), "it is said before there is a site, and kept");
    let change = decide::request_removal(&world.claim, None, at(2));
    world.apply(change);
    assert!(!world.set_origin(None, at(3)), "what is removed is sent nowhere");
}
