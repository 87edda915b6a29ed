//! Three tenants, one hostname, one zone whose records anyone may change at any moment: whose is the name?
//!
//! The model drives the very decisions that the functions take, as they take them: what is read first and written later may be overtaken in
//! between. A [`World`] keeps what the table would keep, refuses what the table would refuse, and checks every change that it takes.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use domains::{
    Answer, ChainEnd, Change, Claim, ClaimId, ClaimKey, Hostname, IssuancePolicy, IssueError, Issued, Judgement, LastLook, Look,
    LookSchedule, LookSubject, Observed, OriginName, Owner, OwnershipToken, PreparedKey, ProblemCode, Proof, ServerAnswer, SiteVersion,
    State, Step, StoredCertificate, TenantId, Timestamp, ZoneCut, ZoneSettings, decide, judge,
};
use proptest::prelude::*;

const TENANTS: usize = 3;
const EDGE: &str = "192.0.2.10";
const ELSEWHERE: &str = "198.51.100.7";

/// Longer than any wait between two looks or two orders here.
const ROUND: Duration = Duration::from_secs(3700);
const ROUNDS: usize = 8;

/// How often one decision is taken anew after others wrote first; alone in its thread, the second try always lands.
const RACES: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Points {
    Nowhere,
    Elsewhere,
    AtTarget(usize),
    AtOldTarget(usize),
}

/// How DNS speaks for a tenant.
#[derive(Clone, Copy, Debug)]
enum By {
    Cname,
    TokenAndAddress,
    /// By the delegation alone: the name itself leads elsewhere, as before a cut-over.
    Delegation,
}

#[derive(Clone, Debug)]
enum Event {
    Cname(Points),
    Address(bool),
    Token(usize),
    ClearTexts,
    Delegate(Points),
    /// DNS speaks for one tenant only.
    SpeakFor(usize, By),
    Register(usize),
    Remove(usize),
    Suspend(usize),
    Resume(usize),
    /// The operator sends the tenant's requests elsewhere, or back.
    Origin(usize),
    CheckNow(usize),
    BeginLook(usize),
    EndLook(usize),
    BeginIssue(usize, bool),
    EndIssue(usize),
    RefuseIssue(usize),
    BeginPublish(usize),
    EndPublish(usize),
    /// Whatever this claim waits for happens next, once it is time.
    Step(usize),
    Advance(u64),
}

/// The hostname's zone, as anyone who may edit it leaves it.
#[derive(Clone, Debug, Default)]
struct Dns {
    cname: Option<String>,
    address: bool,
    texts: BTreeSet<String>,
    delegation: Option<String>,
}

impl Dns {
    /// What `lookups` would report: one server and one resolver, which agree.
    fn look(&self, subject: &LookSubject) -> Look {
        let observed = |name: &str, answer: Answer| Observed {
            name: name.to_owned(),
            authority: vec![ServerAnswer { server: format!("ns1.dns.net ({ELSEWHERE})"), answer: answer.clone() }],
            resolver: answer,
        };
        let records = |values: Vec<String>| if values.is_empty() { Answer::NoData } else { Answer::Records(values) };
        let hostname = subject.hostname.as_str();
        let address = match &self.cname {
            Some(target) if target.ends_with(&subject.targets_zone) => Some(EDGE),
            Some(_) => Some(ELSEWHERE),
            None => self.address.then_some(EDGE),
        };
        Look {
            zone: Ok(ZoneCut { apex: "brand.com".into(), servers: vec!["ns1.dns.net".into()] }),
            cname: observed(hostname, records(self.cname.iter().cloned().collect())),
            chain: self.cname.iter().cloned().collect(),
            chain_end: ChainEnd::Complete,
            a: observed(hostname, records(address.iter().map(|address| (*address).to_owned()).collect())),
            aaaa: observed(hostname, Answer::NoData),
            txt: observed(&subject.txt_name, records(self.texts.iter().cloned().collect())),
            txt_doubled: None,
            further: domains::Further::default(),
            delegation: Some(observed("_acme-challenge.shop.brand.com", records(self.delegation.iter().cloned().collect()))),
            queries: 7,
        }
    }

    fn proof(&self, claim: &Claim, zone: &ZoneSettings) -> Option<Proof> {
        if self.delegation.as_deref() == Some(zone.answer_name(&claim.claim_id).as_str()) {
            return Some(Proof::Delegation);
        }
        if self.cname.as_deref() == Some(zone.routing_target(&claim.claim_id).as_str()) {
            return Some(Proof::RoutingRecord);
        }
        self.texts.contains(claim.token.as_str()).then_some(Proof::Txt)
    }
}

/// A look between its questions and its record.
#[derive(Clone, Debug)]
struct Seen {
    claim: Claim,
    dns: Dns,
    at: Timestamp,
    judgement: Judgement,
}

/// A publishing between reading the record and writing that it is done.
#[derive(Clone, Debug)]
struct Publishing {
    claim: Claim,
    shows: Option<(SiteVersion, Option<TenantId>)>,
}

/// What a change is taken because of.
enum Because<'a> {
    Asked,
    Looked(&'a Seen),
    Worked,
}

struct World {
    now: Timestamp,
    hostname: Hostname,
    zone: ZoneSettings,
    looks: LookSchedule,
    policy: IssuancePolicy,
    dns: Dns,
    claims: BTreeMap<TenantId, Claim>,
    owner: Option<Owner>,
    /// The newest history item of each claim.
    sequences: BTreeMap<TenantId, u64>,
    certificates: BTreeMap<SiteVersion, TenantId>,
    /// What the bucket shows: a version, and a tenant's site or a tombstone.
    site: Option<(SiteVersion, Option<TenantId>)>,
    old_targets: BTreeMap<TenantId, ClaimId>,
    made: u32,
    looking: Vec<Vec<Seen>>,
    issuing: Vec<Option<Claim>>,
    publishing: Vec<Option<Publishing>>,
    /// When each claim's proof was looked at and recorded as seen, without a look in between that did not see it.
    sightings: BTreeMap<ClaimId, Vec<Timestamp>>,
}

struct Conflict;

fn tenant(index: usize) -> TenantId {
    TenantId::parse(&format!("tenant-{index}")).unwrap()
}

fn since(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

impl World {
    fn new() -> Self {
        Self {
            now: "2026-11-24T00:00:00Z".parse().unwrap(),
            hostname: Hostname::parse_name("shop.brand.com").unwrap(),
            zone: ZoneSettings {
                zone: Hostname::parse_name("edge.saas.net").unwrap(),
                txt_prefix: "_nameplate".into(),
                edge_addresses: vec![EDGE.parse::<IpAddr>().unwrap()],
                issuers: Vec::new(),
            },
            looks: LookSchedule::default(),
            policy: IssuancePolicy { retry_cap: Duration::from_secs(3600), ..IssuancePolicy::default() },
            dns: Dns::default(),
            claims: BTreeMap::new(),
            owner: None,
            sequences: BTreeMap::new(),
            certificates: BTreeMap::new(),
            site: None,
            old_targets: BTreeMap::new(),
            made: 0,
            looking: vec![Vec::new(); TENANTS],
            issuing: vec![None; TENANTS],
            publishing: vec![None; TENANTS],
            sightings: BTreeMap::new(),
        }
    }

    fn claim(&self, index: usize) -> Option<&Claim> {
        self.claims.get(&tenant(index))
    }

    fn owning_tenant(&self) -> Option<&TenantId> {
        self.owner.as_ref().and_then(|owner| owner.tenant.as_ref())
    }

    /// Another tenant's claim that owns the name, as a step loads it beside its own.
    fn rival(&self, key: &ClaimKey) -> Option<&Claim> {
        self.owning_tenant().filter(|owner| **owner != key.tenant).and_then(|owner| self.claims.get(owner))
    }

    /// Takes the change whole, or refuses it as the table does; then checks what must always hold.
    fn commit(&mut self, change: &Change, because: &Because<'_>) -> Result<(), Conflict> {
        let expected_claims =
            change.claims.iter().all(|put| self.claims.get(&put.item.key.tenant).map(|claim| claim.version) == put.expected);
        let expected_owner = change.owner.as_ref().is_none_or(|put| self.owner.as_ref().map(|owner| owner.version) == put.expected);
        if !expected_claims || !expected_owner {
            return Err(Conflict);
        }
        if let Some(put) = &change.owner {
            self.check_owner(&put.item, because);
        }
        for put in &change.claims {
            self.check_claim(&put.item);
        }
        for entry in &change.history {
            let newest = self.sequences.entry(entry.key.tenant.clone()).or_default();
            assert_eq!(entry.sequence, *newest + 1, "the history of {} has a gap or a repeat", entry.key);
            *newest = entry.sequence;
        }
        for put in &change.claims {
            let claim = put.item.clone();
            assert_eq!(Some(&claim.sequence), self.sequences.get(&claim.key.tenant), "the claim does not know its newest history item");
            self.claims.insert(claim.key.tenant.clone(), claim);
        }
        if let Some(put) = &change.owner {
            self.owner = Some(put.item.clone());
        }
        for (_, version) in &change.dropped_certificates {
            assert!(self.certificates.remove(version).is_some(), "a certificate is dropped that is not there");
        }
        if let Some(certificate) = &change.certificate {
            let before = self.certificates.insert(certificate.version, certificate.tenant.clone());
            assert_eq!(before, None, "a certificate was overwritten");
        }
        self.check();
        Ok(())
    }

    fn check_claim(&self, next: &Claim) {
        assert!(next.next_look().is_none_or(|at| at >= self.now), "the timer would miss {:?}", next.next_step());
        let Some(before) = self.claims.get(&next.key.tenant) else {
            assert_eq!((next.version, next.sequence), (1, 1));
            return;
        };
        assert_eq!(next.version, before.version + 1);
        if before.claim_id != next.claim_id {
            assert!(before.is_removed(), "a claim was replaced while it lived");
            assert_ne!(before.token, next.token, "a token was used again");
            return;
        }
        let moved = before.state.name() != next.state.name();
        assert_eq!(next.since, if moved { self.now } else { before.since }, "`since` is when the state last changed, whatever the problem");
        if let (Some(was), Some(is)) = (&before.problem, &next.problem)
            && was.code == is.code
        {
            assert_eq!(was.since, is.since, "a problem that stays keeps its date");
        }
    }

    fn check_owner(&self, next: &Owner, because: &Because<'_>) {
        let before = self.owner.as_ref();
        assert!(next.site_version > before.map_or(SiteVersion(0), |owner| owner.site_version), "a site version did not grow");
        assert_eq!(next.version, before.map_or(0, |owner| owner.version) + 1);
        let was = self.owning_tenant();
        let Some(is) = next.tenant.as_ref().filter(|is| Some(*is) != was) else { return };
        let Because::Looked(seen) = because else { panic!("the name changed hands without a look") };
        assert_eq!(seen.claim.key.tenant, *is, "the name went to another than the one whose proof was looked for");
        assert_eq!(self.claims[is].claim_id, seen.claim.claim_id, "the look was for an earlier claim");
        assert!(seen.dns.proof(&seen.claim, &self.zone).is_some(), "the name was won without a proof");
        let Some(rival) = was.and_then(|was| self.claims.get(was)) else { return };
        let routed = seen.dns.cname.as_deref() == Some(self.zone.routing_target(&rival.claim_id).as_str());
        assert!(!routed, "the name was taken while it led to its owner's target");
        assert!(!seen.dns.texts.contains(rival.token.as_str()), "the name was taken while its owner's token stood");
        let delegated = seen.dns.delegation.as_deref() == Some(self.zone.answer_name(&rival.claim_id).as_str());
        assert!(!delegated, "the name was taken while its challenges were delegated to its owner");
        let sightings = self.sightings.get(&seen.claim.claim_id).map(Vec::as_slice).unwrap_or_default();
        assert!(
            sightings.iter().any(|earlier| since(*earlier, seen.at) >= self.looks.hand_over),
            "the name changed hands at {} after looks at {sightings:?} only",
            seen.at
        );
    }

    fn check(&self) {
        for claim in self.claims.values() {
            let owns = matches!(claim.state, State::AwaitingRouting { .. } | State::Issuing { .. } | State::Active { .. });
            assert_eq!(owns, self.owning_tenant() == Some(&claim.key.tenant), "{} is {:?}, owner {:?}", claim.key, claim.state, self.owner);
            assert_eq!(claim.next_look().is_none(), claim.is_removed(), "{} is forgotten: {:?}", claim.key, claim.state);
            if claim.is_removed() {
                let shown = self.site.as_ref().and_then(|(_, tenant)| tenant.as_ref());
                assert_ne!(shown, Some(&claim.key.tenant), "{} is removed and still shown", claim.key);
                assert!(!self.certificates.values().any(|of| *of == claim.key.tenant), "{} is removed and kept its key", claim.key);
            }
        }
    }

    /// Decides and commits as a step does: first on what was loaded, then, after others wrote, on what they left.
    fn decide_until_taken(&mut self, loaded: Claim, because: &Because<'_>, decide: impl Fn(&Self, &Claim) -> Option<Change>) -> bool {
        let mut claim = loaded;
        for _ in 0..RACES {
            let Some(change) = decide(self, &claim) else { return false };
            if self.commit(&change, because).is_ok() {
                return true;
            }
            match self.claims.get(&claim.key.tenant) {
                Some(again) if again.claim_id == claim.claim_id => claim = again.clone(),
                _ => return false,
            }
        }
        panic!("a decision on what is stored was refused");
    }

    fn register(&mut self, index: usize) {
        let key = ClaimKey { hostname: self.hostname.clone(), tenant: tenant(index) };
        let known = self.claim(index).cloned();
        if known.as_ref().is_some_and(|claim| !claim.is_removed()) {
            return;
        }
        if let Some(old) = &known {
            self.old_targets.insert(key.tenant.clone(), old.claim_id.clone());
        }
        self.made += 1;
        let claim_id = ClaimId::parse(&format!("claim{}", self.made)).unwrap();
        let token = OwnershipToken::parse(&format!("token-{}", self.made)).unwrap();
        let change = decide::register(key, claim_id, token, known.as_ref(), &self.looks, self.now);
        assert!(self.commit(&change, &Because::Asked).is_ok());
    }

    fn suspend(&mut self, index: usize) {
        let Some(claim) = self.claim(index).cloned() else { return };
        self.made += 1;
        let reason = format!("reason {}", self.made);
        let Some(change) = decide::suspend(&claim, self.owner.as_ref(), &reason, self.now) else { return };
        assert!(self.commit(&change, &Because::Asked).is_ok());
    }

    fn resume(&mut self, index: usize) {
        let Some(claim) = self.claim(index).cloned() else { return };
        let stored = self.stored(&claim);
        let change = decide::resume(&claim, self.owner.as_ref(), stored.as_ref(), self.now);
        assert_eq!(change.is_none(), claim.suspension.is_none() || matches!(claim.state, State::Removing { .. } | State::Removed { .. }));
        let Some(change) = change else { return };
        assert!(self.commit(&change, &Because::Asked).is_ok());
    }

    fn set_origin(&mut self, index: usize) {
        let Some(claim) = self.claim(index).cloned() else { return };
        let origin = claim.origin.is_none().then(|| OriginName::parse("eu").unwrap());
        let stored = self.stored(&claim);
        let change = decide::set_origin(&claim, self.owner.as_ref(), stored.as_ref(), origin.as_ref(), self.now);
        assert_eq!(change.is_none(), matches!(claim.state, State::Removing { .. } | State::Removed { .. }));
        let Some(change) = change else { return };
        assert!(self.commit(&change, &Because::Asked).is_ok());
    }

    /// The certificate that a claim has in service.
    fn stored(&self, claim: &Claim) -> Option<StoredCertificate> {
        let State::Active { certificate, .. } = &claim.state else { return None };
        Some(StoredCertificate {
            hostname: self.hostname.clone(),
            tenant: self.certificates[&certificate.version].clone(),
            version: certificate.version,
            chain: "chain".into(),
            sealed_key: "sealed".into(),
            spki_sha256: certificate.spki_sha256.clone(),
        })
    }

    fn remove(&mut self, index: usize) {
        let Some(claim) = self.claim(index).cloned() else { return };
        if matches!(claim.state, State::Removing { .. } | State::Removed { .. }) {
            return;
        }
        let change = decide::request_removal(&claim, self.owner.as_ref(), self.now);
        assert!(self.commit(&change, &Because::Asked).is_ok());
    }

    fn check_now(&mut self, index: usize) {
        let Some(claim) = self.claim(index) else { return };
        if let Some(change) = decide::look_now(claim, self.now) {
            assert!(self.commit(&change, &Because::Asked).is_ok());
        }
    }

    fn begin_look(&mut self, index: usize) {
        let Some(claim) = self.claim(index).filter(|claim| claim.is_due(Step::VerifyOwnership, self.now)).cloned() else { return };
        let judgement = self.judge(&claim);
        self.looking[index].push(Seen { claim, dns: self.dns.clone(), at: self.now, judgement });
    }

    fn judge(&self, claim: &Claim) -> Judgement {
        let subject = claim.look_subject(&self.zone);
        let judgement = judge(&self.dns.look(&subject), &subject);
        assert_eq!(judgement.proof, self.dns.proof(claim, &self.zone), "the look saw another proof than DNS shows: {:?}", self.dns);
        assert_eq!(
            judgement.finding.is_none(),
            judgement.proof.is_some() && judgement.routing.is_ours(),
            "{judgement:?} of {:?}",
            self.dns
        );
        judgement
    }

    /// Records the oldest look under way.
    fn end_look(&mut self, index: usize) {
        if self.looking[index].is_empty() {
            return;
        }
        let seen = self.looking[index].remove(0);
        let taken = self.decide_until_taken(seen.claim.clone(), &Because::Looked(&seen), |world, claim| {
            if !claim.is_due(Step::VerifyOwnership, world.now) {
                return None;
            }
            decide::after_look(claim, world.owner.as_ref(), world.rival(&claim.key), &seen.judgement, &world.looks, seen.at, world.now)
        });
        let sightings = self.sightings.entry(seen.claim.claim_id.clone()).or_default();
        match seen.judgement.proof {
            Some(_) if taken => sightings.push(seen.at),
            None if taken => sightings.clear(),
            _ => {}
        }
    }

    /// Begins an order. With an old look behind it, DNS is looked at once more first.
    fn begin_issue(&mut self, index: usize, looks_first: bool) {
        let Some(claim) = self.claim(index).filter(|claim| claim.is_due(Step::IssueCertificate, self.now)).cloned() else { return };
        let Some(issuance) = claim.issuance().filter(|issuance| issuance.next_look <= self.now) else { return };
        let change = match &issuance.attempt {
            Some(_) => decide::lease_issuance(&claim, None, &self.policy, self.now),
            None => {
                let judgement = self.judge(&claim);
                let plan = decide::plan_order(&claim, &LastLook::of(&judgement, self.now), &self.zone);
                if looks_first && plan.is_none() {
                    let change = decide::postpone_order(&claim, &judgement, &self.looks, self.now).unwrap();
                    assert!(self.commit(&change, &Because::Worked).is_ok());
                    return;
                }
                self.made += 1;
                let key = PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: format!("{:064x}", self.made) };
                decide::lease_issuance(&claim, Some((key, plan.unwrap_or_default())), &self.policy, self.now)
            }
        };
        let change = change.unwrap();
        assert!(self.commit(&change, &Because::Worked).is_ok());
        self.issuing[index] = Some(change.claims[0].item.clone());
    }

    fn end_issue(&mut self, index: usize) {
        let Some(claim) = self.issuing[index].take() else { return };
        let issued = Issued {
            chain: "chain".into(),
            serial: format!("{:032x}", self.made),
            not_before: self.now,
            not_after: self.now.checked_add(Duration::from_secs(90 * 86_400)).unwrap(),
            ari_id: None,
        };
        let ordered_for = spki(&claim);
        self.decide_until_taken(claim, &Because::Worked, |world, claim| {
            let owner = world.owner.as_ref()?;
            if spki(claim) != ordered_for {
                return None;
            }
            decide::record_certificate(claim, owner, &issued, &world.looks, world.now)
        });
    }

    fn refuse_issue(&mut self, index: usize) {
        let Some(claim) = self.issuing[index].take() else { return };
        let ordered_for = spki(&claim);
        let refusal = IssueError::ChallengeFailed { detail: "403".into() };
        self.decide_until_taken(claim, &Because::Worked, |world, claim| {
            if spki(claim) != ordered_for {
                return None;
            }
            decide::record_refusal(claim, &refusal, &world.policy, world.now)
        });
    }

    /// Reads what the bucket should show: the site of the owner's claim while that is active, a tombstone otherwise.
    fn begin_publish(&mut self, index: usize) {
        let Some(claim) = self.claim(index).filter(|claim| claim.is_due(Step::PublishSite, self.now)).cloned() else { return };
        let shows = self.owner.as_ref().map(|owner| {
            let owners_claim = owner.tenant.as_ref().map(|tenant| &self.claims[tenant]);
            if let Some(version) = owners_claim.and_then(|claim| claim.taken_down_at()) {
                return (version, None);
            }
            match owners_claim.map(|claim| (&claim.key.tenant, &claim.state)) {
                Some((tenant, State::Active { certificate, .. })) => (certificate.version, Some(tenant.clone())),
                _ => (owner.site_version, None),
            }
        });
        self.publishing[index] = Some(Publishing { claim, shows });
    }

    /// Writes it, unless the bucket shows something as new or newer, and records that it did.
    fn end_publish(&mut self, index: usize) {
        let Some(Publishing { claim, shows }) = self.publishing[index].take() else { return };
        if let Some((version, tenant)) = &shows
            && self.site.as_ref().is_none_or(|(known, _)| known < version)
        {
            self.site = Some((*version, tenant.clone()));
        }
        let (version, shown) = shows.unwrap_or_default();
        self.decide_until_taken(claim, &Because::Worked, |world, claim| {
            decide::record_publication(claim, shown.as_ref(), version, world.now)
        });
        self.check();
    }

    fn take(&mut self, event: &Event) {
        match *event {
            Event::Cname(points) => {
                self.dns.cname = match points {
                    Points::Nowhere => None,
                    Points::Elsewhere => Some("shops.other-host.net".into()),
                    Points::AtTarget(index) => self.claim(index).map(|claim| self.zone.routing_target(&claim.claim_id)),
                    Points::AtOldTarget(index) => self.old_targets.get(&tenant(index)).map(|old| self.zone.routing_target(old)),
                }
            }
            Event::Address(ours) => self.dns.address = ours,
            Event::Token(index) => {
                let token = self.claim(index).map(|claim| claim.token.to_string());
                self.dns.texts.extend(token);
            }
            Event::ClearTexts => self.dns.texts.clear(),
            Event::Delegate(points) => {
                self.dns.delegation = match points {
                    Points::Nowhere => None,
                    Points::Elsewhere => Some("brand.other-acme.net".into()),
                    Points::AtTarget(index) => self.claim(index).map(|claim| self.zone.answer_name(&claim.claim_id)),
                    Points::AtOldTarget(index) => self.old_targets.get(&tenant(index)).map(|old| self.zone.answer_name(old)),
                }
            }
            Event::SpeakFor(index, by) => self.speak_for(index, by),
            Event::Register(index) => self.register(index),
            Event::Remove(index) => self.remove(index),
            Event::Suspend(index) => self.suspend(index),
            Event::Resume(index) => self.resume(index),
            Event::Origin(index) => self.set_origin(index),
            Event::CheckNow(index) => self.check_now(index),
            Event::BeginLook(index) => self.begin_look(index),
            Event::EndLook(index) => self.end_look(index),
            Event::BeginIssue(index, looks_first) => self.begin_issue(index, looks_first),
            Event::EndIssue(index) => self.end_issue(index),
            Event::RefuseIssue(index) => self.refuse_issue(index),
            Event::BeginPublish(index) => self.begin_publish(index),
            Event::EndPublish(index) => self.end_publish(index),
            Event::Step(index) => self.step(index),
            Event::Advance(seconds) => self.advance(Duration::from_secs(seconds)),
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now.checked_add(by).unwrap();
    }

    fn step(&mut self, index: usize) {
        let Some((step, at)) = self.claim(index).and_then(Claim::next_step) else { return };
        self.now = self.now.max(at);
        match step {
            Step::VerifyOwnership => {
                self.begin_look(index);
                while !self.looking[index].is_empty() {
                    self.end_look(index);
                }
            }
            Step::IssueCertificate => {
                self.begin_issue(index, true);
                self.end_issue(index);
            }
            Step::PublishSite => {
                self.begin_publish(index);
                self.end_publish(index);
            }
        }
    }

    /// Everything under way ends, and then everything due happens once.
    fn one_round(&mut self) {
        self.advance(ROUND);
        for index in 0..TENANTS {
            while !self.looking[index].is_empty() {
                self.end_look(index);
            }
            self.end_issue(index);
            self.end_publish(index);
        }
        for index in 0..TENANTS {
            self.begin_look(index);
            self.end_look(index);
            self.begin_issue(index, true);
            self.end_issue(index);
            self.begin_publish(index);
            self.end_publish(index);
        }
    }

    /// DNS speaks for this tenant's claim and for no other.
    fn speak_for(&mut self, index: usize, by: By) {
        let Some(claim) = self.claim(index) else { return };
        self.dns = match by {
            By::Cname => Dns { cname: Some(self.zone.routing_target(&claim.claim_id)), ..Dns::default() },
            By::TokenAndAddress => Dns { address: true, texts: BTreeSet::from([claim.token.to_string()]), ..Dns::default() },
            By::Delegation => Dns {
                cname: Some("shops.other-host.net".into()),
                delegation: Some(self.zone.answer_name(&claim.claim_id)),
                ..Dns::default()
            },
        };
    }

    fn shows(&self, index: usize) -> bool {
        self.site.as_ref().is_some_and(|(_, shown)| *shown == Some(tenant(index)))
    }
}

fn spki(claim: &Claim) -> Option<String> {
    claim.issuance().and_then(|issuance| issuance.attempt.as_ref()).map(|attempt| attempt.spki_sha256.clone())
}

fn ways() -> impl Strategy<Value = By> {
    prop::sample::select(vec![By::Cname, By::TokenAndAddress, By::Delegation])
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let who = || 0..TENANTS;
    let points = || {
        prop_oneof![
            1 => Just(Points::Nowhere),
            1 => Just(Points::Elsewhere),
            4 => who().prop_map(Points::AtTarget),
            1 => who().prop_map(Points::AtOldTarget),
        ]
    };
    let event = prop_oneof![
        4 => points().prop_map(Event::Cname),
        3 => points().prop_map(Event::Delegate),
        2 => any::<bool>().prop_map(Event::Address),
        3 => who().prop_map(Event::Token),
        1 => Just(Event::ClearTexts),
        4 => (who(), ways()).prop_map(|(index, by)| Event::SpeakFor(index, by)),
        5 => who().prop_map(Event::Register),
        2 => who().prop_map(Event::Remove),
        1 => who().prop_map(Event::Suspend),
        1 => who().prop_map(Event::Resume),
        1 => who().prop_map(Event::Origin),
        2 => who().prop_map(Event::CheckNow),
        6 => who().prop_map(Event::BeginLook),
        6 => who().prop_map(Event::EndLook),
        3 => (who(), any::<bool>()).prop_map(|(index, looks_first)| Event::BeginIssue(index, looks_first)),
        3 => who().prop_map(Event::EndIssue),
        1 => who().prop_map(Event::RefuseIssue),
        3 => who().prop_map(Event::BeginPublish),
        3 => who().prop_map(Event::EndPublish),
        12 => who().prop_map(Event::Step),
        5 => prop::sample::select(vec![1, 6, 29, 31, 61, 61, 3700, 90_000, 700_000]).prop_map(Event::Advance),
    ];
    prop::collection::vec(event, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12_000) })]

    #[test]
    fn a_name_is_only_ever_its_provers_and_always_becomes_the_one_provers(events in events(), index in 0..TENANTS, by in ways()) {
        let mut world = World::new();
        for event in &events {
            world.take(event);
        }
        for _ in 0..ROUNDS {
            world.register(index);
            world.resume(index);
            world.speak_for(index, by);
            world.one_round();
        }
        prop_assert_eq!(world.owning_tenant(), Some(&tenant(index)));
        let claim = world.claim(index).unwrap();
        prop_assert!(matches!(claim.state, State::Active { .. }), "{:?} with {:?}", claim.state, claim.problem);
        prop_assert!(world.shows(index), "the bucket shows {:?}", world.site);

        world.remove(index);
        for _ in 0..ROUNDS {
            world.one_round();
        }
        let claim = world.claim(index).unwrap();
        prop_assert!(claim.is_removed(), "{:?}", claim.state);
        prop_assert!(!world.shows(index), "the bucket shows {:?}", world.site);
    }
}

#[test]
fn a_token_alone_takes_no_name_that_still_leads_to_another_claim() {
    let mut world = World::new();
    world.register(0);
    world.speak_for(0, By::Cname);
    world.one_round();
    assert!(matches!(world.claim(0).unwrap().state, State::Active { .. }));

    world.register(1);
    let token = world.claim(1).unwrap().token.to_string();
    world.dns.texts.insert(token);
    for _ in 0..5 {
        world.one_round();
        let waiting = world.claim(1).unwrap();
        assert!(matches!(waiting.state, State::AwaitingProof { .. }), "{:?}", waiting.state);
        assert_eq!(waiting.problem.as_ref().map(|problem| problem.code), Some(ProblemCode::ClaimedElsewhere));
        assert_eq!(world.owning_tenant(), Some(&tenant(0)));
    }
    assert_eq!(world.claim(0).unwrap().problem.as_ref().map(|problem| problem.code), Some(ProblemCode::Contested), "the owner is told");

    // The owner's record goes; the token was seen often enough by now.
    world.dns.cname = None;
    world.dns.address = true;
    world.one_round();
    assert_eq!(world.owning_tenant(), Some(&tenant(1)));
    assert!(!matches!(world.claim(0).unwrap().state, State::Active { .. }));
}

#[test]
fn two_looks_made_together_count_as_one_however_late_the_second_is_recorded() {
    let mut world = World::new();
    world.register(0);
    world.speak_for(0, By::Cname);
    world.one_round();
    world.register(1);
    world.advance(world.looks.floor);
    world.speak_for(1, By::Cname);
    world.begin_look(1);
    world.begin_look(1);
    world.end_look(1);
    world.advance(2 * world.looks.hand_over);
    world.end_look(1);
    assert_eq!(world.owning_tenant(), Some(&tenant(0)));

    world.one_round();
    assert_eq!(world.owning_tenant(), Some(&tenant(1)), "a look of its own time takes the name");
}

#[test]
fn a_site_written_while_its_claim_ends_is_not_its_take_down() {
    let mut world = World::new();
    world.register(0);
    world.advance(world.looks.floor);
    world.speak_for(0, By::Cname);
    world.step(0);
    world.begin_issue(0, true);
    world.end_issue(0);
    world.begin_publish(0);
    world.remove(0);
    world.end_publish(0);
    assert!(world.shows(0) && matches!(world.claim(0).unwrap().state, State::Removing { .. }));

    world.one_round();
    assert!(!world.shows(0) && world.claim(0).unwrap().is_removed());
}

#[test]
fn a_delegation_alone_takes_no_name_that_still_leads_to_another_claim() {
    let mut world = World::new();
    world.register(0);
    world.speak_for(0, By::Cname);
    world.one_round();
    world.register(1);
    world.dns.delegation = Some(world.zone.answer_name(&world.claim(1).unwrap().claim_id));
    for _ in 0..5 {
        world.one_round();
        assert!(matches!(world.claim(1).unwrap().state, State::AwaitingProof { .. }));
        assert_eq!(world.owning_tenant(), Some(&tenant(0)));
    }
    world.dns.cname = Some("shops.other-host.net".into());
    world.one_round();
    assert_eq!(world.owning_tenant(), Some(&tenant(1)), "once nothing speaks for the owner, it does");
}

#[test]
fn a_token_takes_no_name_whose_challenges_are_delegated_to_its_owner() {
    let mut world = World::new();
    world.register(0);
    world.speak_for(0, By::Delegation);
    world.one_round();
    assert!(matches!(world.claim(0).unwrap().state, State::Active { .. }), "{:?}", world.claim(0));
    world.register(1);
    let token = world.claim(1).unwrap().token.to_string();
    world.dns.texts.insert(token);
    for _ in 0..5 {
        world.one_round();
        assert_eq!(world.owning_tenant(), Some(&tenant(0)));
    }
}

#[test]
fn a_delegated_name_gets_its_certificate_first_is_then_asked_for_the_switch_and_renews_without_it() {
    let mut world = World::new();
    world.register(0);
    world.advance(world.looks.floor);
    world.dns.cname = Some("shops.other-host.net".into());
    world.begin_look(0);
    world.end_look(0);
    let waiting = world.claim(0).unwrap();
    let problem = waiting.problem.clone().unwrap();
    assert_eq!(problem.code, ProblemCode::DnsLiveElsewhere, "{problem:?}");
    assert!(waiting.asks_for_delegation() && problem.action.contains(&world.zone.answer_name(&waiting.claim_id)), "{problem:?}");

    world.speak_for(0, By::Delegation);
    world.advance(world.looks.floor);
    world.begin_look(0);
    world.end_look(0);
    assert!(matches!(world.claim(0).unwrap().state, State::Issuing { proof: Proof::Delegation, .. }));
    world.begin_issue(0, true);
    world.end_issue(0);
    let code = |world: &World| world.claim(0).unwrap().problem.as_ref().map(|problem| problem.code);
    // Told only once every edge serves it.
    world.advance(world.looks.floor * 2);
    world.begin_look(0);
    world.end_look(0);
    assert_eq!(code(&world), None);
    world.begin_publish(0);
    world.end_publish(0);
    world.one_round();
    assert_eq!(code(&world), Some(ProblemCode::NotRouted));
    let target = world.zone.routing_target(&world.claim(0).unwrap().claim_id);
    assert!(world.claim(0).unwrap().problem.as_ref().unwrap().action.contains(&target));

    // At renewal the delegation is enough.
    world.advance(Duration::from_secs(70 * 86_400));
    let before = world.certificates.clone();
    world.one_round();
    assert_ne!(world.certificates, before, "it was renewed");
    assert_eq!(code(&world), Some(ProblemCode::NotRouted));

    // After so long it might as well stand behind a proxy, so it is looked at as rarely as any.
    world.dns.cname = Some(target);
    world.advance(world.looks.health);
    world.one_round();
    assert_eq!(code(&world), None, "the switch clears it");

    // Neither route nor delegation: renewal would fail, and says so.
    world.dns.cname = Some("shops.other-host.net".into());
    world.dns.delegation = None;
    world.advance(world.looks.health);
    world.one_round();
    assert_eq!(code(&world), Some(ProblemCode::AtRisk));
}
