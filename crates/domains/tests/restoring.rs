//! A backup restored beside what the bucket shows: nothing is issued again, and nothing that went comes back.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use domains::{
    Claim, ClaimId, ClaimKey, Delegation, Hostname, IssuancePolicy, Issued, Judgement, LookSchedule, OrderPlan, Owner, OwnershipToken,
    PreparedKey, Proof, Publication, RemovalReason, Routing, SiteVersion, State, Step, StoredCertificate, TenantId, Timestamp,
    decide::{self, Shown, ShownSite},
};

const DAY: u64 = 86_400;

fn at(seconds: u64) -> Timestamp {
    "2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap().checked_add(Duration::from_secs(seconds)).unwrap()
}

fn hostname() -> Hostname {
    Hostname::parse_name("shop.brand.com").unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn look(routing: Routing) -> Judgement {
    let (proof, delegation) = (Some(Proof::RoutingRecord), Delegation::None);
    Judgement { proof, routing, delegation, txt_values: Vec::new(), finding: None, obstacle: None, forbidden: Vec::new(), advice: None }
}

fn registered(tenant_name: &str) -> Claim {
    let key = ClaimKey { hostname: hostname(), tenant: tenant(tenant_name) };
    let (id, token) = (ClaimId::parse("k3q9x2").unwrap(), OwnershipToken::parse("np-verify=5f3a").unwrap());
    decide::register(key, id, token, None, &LookSchedule::default(), at(0)).claims[0].item.clone()
}

/// Proved, and an order whose URL is known.
fn ordering() -> (Claim, Owner) {
    let looks = LookSchedule::default();
    let change = decide::after_look(&registered("brand"), None, None, &look(Routing::OurTarget), &looks, at(5), at(5)).unwrap();
    let (claim, owner) = (change.claims[0].item.clone(), change.owner.unwrap().item);
    let key = PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: "ab".into() };
    let policy = IssuancePolicy::default();
    let claim = decide::lease_issuance(&claim, Some((key, OrderPlan::default())), &policy, at(6)).unwrap().claims[0].item.clone();
    let claim = decide::record_order(&claim, "https://ca.test/order/1", &policy, at(7)).unwrap().claims[0].item.clone();
    (claim, owner)
}

fn issued(serial: &str, from: Timestamp) -> Issued {
    let not_after = from.checked_add(Duration::from_secs(90 * DAY)).unwrap();
    Issued { chain: "chain".into(), serial: serial.into(), not_before: from, not_after, ari_id: None }
}

/// Issued and published.
fn served() -> (Claim, Owner, StoredCertificate) {
    let (claim, owner) = ordering();
    let change = decide::record_certificate(&claim, &owner, &issued("01", at(8)), &LookSchedule::default(), at(8)).unwrap();
    let (claim, owner) = (change.claims[0].item.clone(), change.owner.unwrap().item);
    let change = decide::record_publication(&claim, Some(&tenant("brand")), owner.site_version, at(9)).unwrap();
    let stored = StoredCertificate {
        hostname: hostname(),
        tenant: tenant("brand"),
        version: owner.site_version,
        chain: "chain".into(),
        sealed_key: "sealed".into(),
        spki_sha256: "ab".into(),
    };
    (change.claims[0].item.clone(), owner, stored)
}

fn site(tenant_name: &str, version: u64, claim: Option<(&str, &str)>) -> Shown {
    Shown::Site(Box::new(ShownSite {
        tenant: tenant(tenant_name),
        version: SiteVersion(version),
        issued: issued("99", at(DAY / 2)),
        sealed_key: "sealed later".into(),
        spki_sha256: "cd".into(),
        claim: claim.map(|(id, token)| (ClaimId::parse(id).unwrap(), OwnershipToken::parse(token).unwrap())),
        origin: None,
    }))
}

fn restore(owner: Option<&Owner>, claims: &[Claim], shown: Option<&Shown>) -> Option<domains::Change> {
    decide::restore(&hostname(), owner, claims, shown, at(60), at(DAY))
}

#[test]
fn what_the_bucket_shows_as_the_backup_knows_it_stays_as_it_is() {
    let (claim, owner, _) = served();
    assert_eq!(restore(Some(&owner), &[claim], Some(&site("brand", owner.site_version.0, None))), None);
}

#[test]
fn a_certificate_of_after_the_backup_is_taken_over_and_nothing_is_ordered() {
    let (ordering, owner) = ordering();
    let (served, owner_of_served, _) = served();
    for (claim, owner) in [(ordering, owner), (served.clone(), owner_of_served)] {
        let version = owner.site_version.0 + 1;
        let change = restore(Some(&owner), std::slice::from_ref(&claim), Some(&site("brand", version, None))).unwrap();
        let after = &change.claims[0].item;
        let State::Active { certificate, publication, renewal, .. } = &after.state else { panic!("{:?}", after.state) };
        assert_eq!((certificate.serial.as_str(), certificate.version), ("99", SiteVersion(version)));
        assert!(renewal.issuance.attempt.is_none() && renewal.issuance.next_look > at(30 * DAY), "{renewal:?}");
        assert!(matches!(publication, Publication::Done { .. }));
        assert_eq!(change.certificate.unwrap().sealed_key, "sealed later");
        let owner_after = change.owner.unwrap();
        assert_eq!((owner_after.expected, owner_after.item.site_version), (Some(owner.version), SiteVersion(version)));
    }
    let change = restore(Some(&served_owner()), &[served], Some(&site("brand", 9, None))).unwrap();
    assert_eq!(change.dropped_certificates.len(), 1, "the certificate of before the renewal goes");
}

fn served_owner() -> Owner {
    served().1
}

#[test]
fn a_claim_of_after_the_backup_comes_from_its_site_with_the_records_its_customer_has() {
    let change = restore(None, &[], Some(&site("late", 2, Some(("q7w8e9", "np-verify=77aa"))))).unwrap();
    let claim = &change.claims[0];
    assert_eq!((claim.expected, claim.item.claim_id.as_str()), (None, "q7w8e9"));
    assert!(matches!(claim.item.state, State::Active { .. }) && claim.item.is_due(Step::VerifyOwnership, at(DAY)));
    // Without the claim in it nothing is invented; its version is kept, so that whoever comes next is newer.
    let change = restore(None, &[], Some(&site("late", 2, None))).unwrap();
    assert!(change.claims.is_empty());
    assert_eq!(change.owner.unwrap().item.site_version, SiteVersion(2));
}

#[test]
fn a_name_that_went_after_the_backup_stays_gone() {
    let (claim, owner, _) = served();
    let gone = Shown::Gone { version: SiteVersion(owner.site_version.0 + 1), suspended: None };
    let change = restore(Some(&owner), &[claim], Some(&gone)).unwrap();
    assert_eq!(change.claims[0].item.state, State::Removed { reason: RemovalReason::Requested });
    assert_eq!(change.dropped_certificates.len(), 1);
    assert_eq!(change.owner.unwrap().item.tenant, None);
    // Proved and gone again since: whoever waited then does not prove it anew with a record that was left behind.
    let change = restore(None, &[registered("brand")], Some(&Shown::Gone { version: SiteVersion(3), suspended: None })).unwrap();
    assert!(change.claims[0].item.is_removed());
    // Another tenant, who waits for a name that was somebody's, goes on waiting.
    let (claim, owner, _) = served();
    let change = restore(Some(&owner), &[claim, registered("rival")], Some(&gone)).unwrap();
    assert_eq!(change.claims.len(), 1);
}

#[test]
fn a_name_that_changed_hands_after_the_backup_is_its_new_owners() {
    let (claim, owner, _) = served();
    let shown = site("rival", owner.site_version.0 + 2, Some(("q7w8e9", "np-verify=77aa")));
    let change = restore(Some(&owner), &[claim, registered("rival")], Some(&shown)).unwrap();
    let state = |name: &str| change.claims.iter().find(|put| put.item.key.tenant == tenant(name)).unwrap().item.clone();
    assert!(matches!(state("rival").state, State::Active { .. }));
    assert_eq!(state("rival").claim_id.as_str(), "q7w8e9");
    assert_eq!(state("brand").state, State::Removed { reason: RemovalReason::Transferred });
    assert_eq!(change.owner.unwrap().item.tenant, Some(tenant("rival")));
}

#[test]
fn without_a_trace_a_name_is_served_only_once_it_is_seen_again_and_with_the_certificate_it_had() {
    let (claim, owner, stored) = served();
    let change = restore(Some(&owner), &[claim], None).unwrap();
    let withheld = change.claims[0].item.clone();
    assert!(withheld.suspension.as_ref().unwrap().ends_when_seen);
    assert!(withheld.is_due(Step::VerifyOwnership, at(DAY)) && !withheld.is_due(Step::PublishSite, at(2 * DAY)));
    assert!(!withheld.is_due(Step::IssueCertificate, at(89 * DAY)), "what is not served is not renewed");
    assert!(!decide::is_seen_again(&withheld, &look(Routing::Elsewhere)) && !decide::is_seen_again(&withheld, &look(Routing::Unknown)));
    assert!(decide::is_seen_again(&withheld, &look(Routing::OurTarget)));
    let looked = decide::after_look(&withheld, Some(&owner), None, &look(Routing::OurTarget), &LookSchedule::default(), at(DAY), at(DAY));
    let looked = looked.unwrap().claims.remove(0).item;
    assert!(looked.is_due(Step::VerifyOwnership, at(DAY + 3_600)), "should resuming fail, it stays off for long");
    let back = decide::resume(&withheld, Some(&owner), Some(&stored), at(DAY)).unwrap();
    let State::Active { certificate, .. } = &back.claims[0].item.state else { panic!("{:?}", back.claims[0].item.state) };
    assert_eq!(certificate.serial, "01");
}

#[test]
fn an_order_under_way_keeps_its_url_and_its_certificate_waits_to_be_seen() {
    let (claim, owner) = ordering();
    let change = restore(Some(&owner), &[claim], None).unwrap();
    let withheld = &change.claims[0].item;
    assert_eq!(withheld.issuance().unwrap().attempt.as_ref().unwrap().order_url.as_deref(), Some("https://ca.test/order/1"));
    let change = decide::record_certificate(withheld, &owner, &issued("02", at(DAY)), &LookSchedule::default(), at(DAY)).unwrap();
    let recorded = &change.claims[0].item;
    assert!(recorded.suspension.is_some() && recorded.is_due(Step::VerifyOwnership, at(DAY)));
}

#[test]
fn a_name_that_was_suspended_after_the_backup_stays_so_and_resumes_with_the_certificate_it_had() {
    let (claim, owner, stored) = served();
    let version = SiteVersion(owner.site_version.0 + 1);
    let of = |name: &str| Shown::Gone { version, suspended: Some(tenant(name)) };
    let change = restore(Some(&owner), std::slice::from_ref(&claim), Some(&of("brand"))).unwrap();
    let (restored, owner_after) = (&change.claims[0].item, change.owner.unwrap().item);
    assert!(!restored.suspension.as_ref().unwrap().ends_when_seen, "{restored:?}");
    assert_eq!((restored.taken_down_at(), owner_after.site_version), (Some(version), version), "the bucket's tombstone is this one");
    assert!(!restored.is_due(Step::PublishSite, at(DAY)) && change.dropped_certificates.is_empty());
    let resumed = decide::resume(restored, Some(&owner_after), Some(&stored), at(DAY + 60)).unwrap();
    let State::Active { certificate, .. } = &resumed.claims[0].item.state else { panic!("an order is needed") };
    assert!(certificate.version > version && certificate.serial == "01", "{certificate:?}");
    // Who suspended it was its owner of after the backup: the one of before gets nothing back.
    let change = restore(Some(&owner), &[claim], Some(&of("heir"))).unwrap();
    assert!(change.claims[0].item.is_removed() && change.owner.unwrap().item.tenant.is_none());
    // Without a certificate there is nothing to come back with.
    let (ordering, owner) = ordering();
    let gone = Shown::Gone { version: SiteVersion(9), suspended: Some(tenant("brand")) };
    assert!(restore(Some(&owner), &[ordering], Some(&gone)).unwrap().claims[0].item.is_removed());
}

#[test]
fn a_suspension_of_the_operators_ends_with_no_look() {
    let (claim, owner, _) = served();
    let suspended = decide::suspend(&claim, Some(&owner), "unpaid", at(20)).unwrap();
    let (claim, owner) = (suspended.claims[0].item.clone(), suspended.owner.unwrap().item);
    let change = restore(Some(&owner), &[claim], None).unwrap();
    let restored = &change.claims[0].item;
    assert_eq!(restored.suspension.as_ref().unwrap().reason, "unpaid");
    assert!(!decide::is_seen_again(restored, &look(Routing::OurTarget)));
}

#[test]
fn a_bucket_that_is_behind_gets_what_the_backup_has() {
    let (claim, owner, _) = served();
    let change = restore(Some(&owner), &[claim], Some(&site("brand", owner.site_version.0 - 1, None))).unwrap();
    assert!(change.claims[0].item.is_due(Step::PublishSite, at(DAY)) && change.certificate.is_none());
}

/// Whether the name's tombstone is due, and what becomes of the claim that carried it.
fn taken_down(owner: &Owner, claims: &[Claim], shown: u64) -> Claim {
    let change = restore(Some(owner), claims, Some(&site("brand", shown, None))).expect("the bucket goes on showing the site");
    let carrier = &change.claims[0].item;
    assert!(carrier.is_due(Step::PublishSite, at(DAY)), "{:?}", carrier.state);
    assert!(change.owner.is_none(), "the version is the backup's, which is newer than what is shown");
    let done = decide::record_publication(carrier, None, owner.site_version, at(DAY + 1)).unwrap().claims.remove(0).item;
    assert!(!done.is_due(Step::PublishSite, at(2 * DAY)));
    done
}

#[test]
fn a_bucket_that_is_behind_goes_on_serving_no_name_that_was_removed() {
    let (claim, owner, _) = served();
    let shown = owner.site_version.0;
    let change = decide::request_removal(&claim, Some(&owner), at(20));
    let (leaving, owner) = (change.claims[0].item.clone(), change.owner.unwrap().item);
    let gone = decide::record_publication(&leaving, None, owner.site_version, at(21)).unwrap().claims.remove(0).item;
    assert!(gone.is_removed());
    assert!(taken_down(&owner, std::slice::from_ref(&gone), shown).is_removed());
    assert_eq!(restore(Some(&owner), &[leaving], Some(&site("brand", shown, None))), None, "its take-down is due as it is");
    // Who came back has proved nothing yet, or has no certificate yet: his claim goes on.
    let again =
        decide::register(gone.key.clone(), gone.claim_id.clone(), gone.token.clone(), Some(&gone), &LookSchedule::default(), at(30));
    let again = again.claims[0].item.clone();
    assert_eq!(taken_down(&owner, std::slice::from_ref(&again), shown).state, again.state);
    let looks = LookSchedule::default();
    let proved = decide::after_look(&again, Some(&owner), None, &look(Routing::OurTarget), &looks, at(40), at(40)).unwrap();
    let (proved, owner) = (proved.claims[0].item.clone(), proved.owner.unwrap().item);
    assert_eq!(taken_down(&owner, std::slice::from_ref(&proved), shown).state, proved.state);
}

#[test]
fn a_bucket_that_is_behind_goes_on_serving_no_name_for_whom_it_was_taken_from() {
    let (claim, owner, _) = served();
    let shown = owner.site_version.0;
    let change = decide::request_removal(&claim, Some(&owner), at(20));
    let (leaving, owner) = (change.claims[0].item.clone(), change.owner.unwrap().item);
    let gone = decide::record_publication(&leaving, None, owner.site_version, at(21)).unwrap().claims.remove(0).item;
    let looks = LookSchedule::default();
    let won = decide::after_look(&registered("rival"), Some(&owner), None, &look(Routing::OurTarget), &looks, at(40), at(40)).unwrap();
    let (rival, owner) = (won.claims[0].item.clone(), won.owner.unwrap().item);
    assert!(matches!(rival.state, State::Issuing { .. }));
    assert_eq!(taken_down(&owner, &[gone, rival.clone()], shown).state, rival.state);
}
