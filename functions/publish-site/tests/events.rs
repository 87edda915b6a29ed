//! `events/sqs/publish-site.json` through the real handler over a local home, with a real chain and a really sealed key.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use bundles::{
    EDGE_SETTINGS_OBJECT, EdgeSettings, IndexShard, LeafFacts, SealKeyPair, SealKeys, SigningKey, SiteObject, TicketKey, index_object,
    shard_of, site_object,
};
use domains::{
    BundleBucket, Change, Claim, ClaimId, ClaimKey, Clock, CommitError, Delegation, DomainTable, HandClock, Hostname, IssuancePolicy,
    Issued, Judgement, LookSchedule, ObjectCondition, OrderPlan, OwnershipToken, PreparedKey, Proof, Publication, Routing, SiteVersion,
    State, StateName, StoreError, TenantId, decide,
};
use publish_site::PublishSite;
use storage::local::{LocalConfig, LocalHome};
use tempfile::TempDir;

const NUDGED: &str = include_str!("../../../events/sqs/publish-site.json");

/// The home's bucket, in which one write is overtaken: what is to happen meanwhile happens right before it.
struct Bucket {
    home: LocalHome,
    meanwhile: Mutex<Option<Change>>,
}

#[async_trait]
impl BundleBucket for Bucket {
    async fn get(&self, name: &str) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        self.home.get(name).await
    }

    async fn put(&self, name: &str, bytes: &[u8], condition: &ObjectCondition) -> Result<(), CommitError> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(change) = meanwhile {
            self.home.commit(&change).await?;
        }
        self.home.put(name, bytes, condition).await
    }

    async fn purge_older(&self, name: &str) -> Result<(), StoreError> {
        self.home.purge_older(name).await
    }
}

struct Stand {
    publish: PublishSite,
    bucket: Arc<Bucket>,
    home: LocalHome,
    clock: Arc<HandClock>,
    seal_keys: SealKeys,
    key: ClaimKey,
    _folder: TempDir,
}

impl Stand {
    /// A home with the event's claim, whose certificate was recorded a moment ago.
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
        let home = LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap();
        let key = ClaimKey { hostname: Hostname::parse_name("shop.client-brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
        let pair = SealKeyPair::generate().unwrap();
        record_certificate(&home, &key, &pair, clock.now()).await;
        let mut seal_keys = SealKeys::default();
        seal_keys.insert(pair);
        let bucket = Arc::new(Bucket { home: home.clone(), meanwhile: Mutex::default() });
        let publish = PublishSite { table: Arc::new(home.clone()), bucket: bucket.clone(), clock: clock.clone() };
        Self { publish, bucket, home, clock, seal_keys, key, _folder: folder }
    }

    async fn deliver(&self, event: SqsEvent) -> SqsBatchResponse {
        self.publish.handle_batch(event).await
    }

    async fn claim(&self) -> Claim {
        self.home.claim(&self.key).await.unwrap().unwrap()
    }

    async fn removal(&self) -> Change {
        let owner = self.home.owner(&self.key.hostname).await.unwrap();
        decide::request_removal(&self.claim().await, owner.as_ref(), self.clock.now())
    }

    async fn site(&self) -> Option<SiteObject> {
        let stored = self.home.get(&site_object(&self.key.hostname)).await.unwrap();
        stored.map(|(bytes, _)| SiteObject::from_bytes(&bytes).unwrap())
    }

    /// What the index says of the name: its version, and whose it is.
    async fn indexed(&self) -> Option<(SiteVersion, Option<TenantId>)> {
        let (bytes, _) = self.home.get(&index_object(shard_of(&self.key.hostname))).await.unwrap()?;
        let shard = IndexShard::from_bytes(&bytes).unwrap();
        shard.entries.get(&self.key.hostname).map(|entry| (entry.version, entry.tenant.clone()))
    }
}

/// The walk up to the certificate, as the other functions decide it.
async fn record_certificate(home: &LocalHome, key: &ClaimKey, pair: &SealKeyPair, now: domains::Timestamp) {
    let (looks, policy) = (LookSchedule::default(), IssuancePolicy::default());
    let (claim_id, token) = (ClaimId::parse("k3q9x2m7p4").unwrap(), OwnershipToken::parse("nameplate-verify=h5r2t8w6").unwrap());
    let registered = decide::register(key.clone(), claim_id, token, None, &looks, now);
    home.commit(&registered).await.unwrap();
    let seen = Judgement {
        proof: Some(Proof::RoutingRecord),
        routing: Routing::OurTarget,
        delegation: Delegation::None,
        txt_values: Vec::new(),
        finding: None,
        obstacle: None,
        forbidden: Vec::new(),
        advice: None,
    };
    let proved = decide::after_look(&registered.claims[0].item, None, None, &seen, &looks, now, now).unwrap();
    home.commit(&proved).await.unwrap();

    let signed = rcgen::generate_simple_self_signed([key.hostname.to_string()]).unwrap();
    let chain = signed.cert.pem();
    let spki = LeafFacts::of_chain(&chain).unwrap().spki_sha256;
    let sealed = pair.public().seal(&key.hostname, &key.tenant, &spki, &signed.signing_key.serialize_der()).unwrap();
    let prepared = PreparedKey {
        csr: "MIIBVjCB/QIBADAAMFkw".into(),
        sealed_key: serde_json::to_string(&sealed).unwrap(),
        spki_sha256: spki.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let leased = decide::lease_issuance(&proved.claims[0].item, Some((prepared, OrderPlan::default())), &policy, now).unwrap();
    home.commit(&leased).await.unwrap();
    let issued = Issued { chain, serial: "03a1".into(), not_before: now, not_after: "2027-02-22T10:00:00Z".parse().unwrap(), ari_id: None };
    let owner = home.owner(&key.hostname).await.unwrap().unwrap();
    let recorded = decide::record_certificate(&leased.claims[0].item, &owner, &issued, &looks, now).unwrap();
    home.commit(&recorded).await.unwrap();
}

fn event() -> SqsEvent {
    serde_json::from_str(NUDGED).unwrap()
}

fn failed(response: &SqsBatchResponse) -> Vec<&str> {
    response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect()
}

#[tokio::test]
async fn the_bucket_gets_a_bundle_the_edge_can_open_and_the_claim_knows() {
    let stand = Stand::new().await;
    assert!(failed(&stand.deliver(event()).await).is_empty());
    let Some(SiteObject::Present(bundle)) = stand.site().await else { panic!("no bundle") };
    assert_eq!((bundle.tenant.as_str(), bundle.version), ("brand", SiteVersion(2)));
    assert!(bundle.open(&stand.seal_keys, stand.clock.now().as_second()).is_ok());
    assert_eq!(stand.indexed().await, Some((SiteVersion(2), Some(stand.key.tenant.clone()))));
    let published = stand.claim().await;
    let State::Active { publication, .. } = &published.state else { panic!("{:?}", published.state) };
    assert_eq!(*publication, Publication::Done { version: SiteVersion(2), at: stand.clock.now() });

    assert!(failed(&stand.deliver(event()).await).is_empty());
    assert_eq!(stand.claim().await, published, "a repeat changes nothing");
}

#[tokio::test]
async fn a_removed_claims_site_becomes_a_tombstone_and_no_late_message_brings_it_back() {
    let stand = Stand::new().await;
    stand.deliver(event()).await;
    stand.home.commit(&stand.removal().await).await.unwrap();
    assert!(failed(&stand.deliver(event()).await).is_empty());
    for _ in 0..2 {
        assert!(matches!(stand.site().await, Some(SiteObject::Removed(tombstone)) if tombstone.version == SiteVersion(3)));
        assert_eq!(stand.indexed().await, Some((SiteVersion(3), None)));
        assert_eq!(stand.claim().await.state.name(), StateName::Removed);
        assert!(failed(&stand.deliver(event()).await).is_empty());
    }
}

#[tokio::test]
async fn a_removal_that_overtakes_the_first_publishing_takes_the_site_down_all_the_same() {
    let stand = Stand::new().await;
    let removal = stand.removal().await;
    *stand.bucket.meanwhile.lock().unwrap() = Some(removal);
    let response = stand.deliver(event()).await;
    assert_eq!(stand.claim().await.state.name(), StateName::Removing, "a site just written is not a site taken down");
    assert_eq!(failed(&response), ["6bc1bee2-2e40-4f96-a93d-7e117393172a"], "the message comes again to take it down");

    assert!(failed(&stand.deliver(event()).await).is_empty());
    assert_eq!(stand.claim().await.state.name(), StateName::Removed);
    assert!(matches!(stand.site().await, Some(SiteObject::Removed(_))));
    assert_eq!(stand.indexed().await, Some((SiteVersion(3), None)));
}

#[tokio::test]
async fn a_message_that_does_not_parse_is_failed_alone() {
    let stand = Stand::new().await;
    let mut event = event();
    let mut broken = event.records[0].clone();
    broken.message_id = Some("broken".into());
    broken.body = Some("publish!".into());
    event.records.insert(0, broken);
    assert_eq!(failed(&stand.deliver(event).await), ["broken"]);
    assert!(matches!(stand.site().await, Some(SiteObject::Present(_))));
}

#[tokio::test]
async fn new_thumbprints_leave_the_keys_of_assertions_and_tickets_where_they_are() {
    let folder = TempDir::new().unwrap();
    let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
    let home = Arc::new(LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap());
    let point = [vec![4], vec![1; 64]].concat();
    let seal_key = SealKeyPair::generate().unwrap();
    let key = SigningKey::seal(seal_key.public(), b"key", &point, 0).unwrap();
    let ticket_keys = vec![TicketKey::seal(seal_key.public(), &[7; 32], 0, 1).unwrap()];
    let settings = |generation, thumbprints| {
        EdgeSettings::new(generation, thumbprints).with_signing_keys(vec![key.clone()]).with_ticket_keys(ticket_keys.clone())
    };
    let before = settings(1, Vec::new());
    home.put(EDGE_SETTINGS_OBJECT, &before.to_bytes(), &ObjectCondition::Absent).await.unwrap();
    let publish = PublishSite { table: home.clone(), bucket: home.clone(), clock };
    publish.publish_edge_settings(&["thumbprint".to_owned()]).await.unwrap();
    let after = EdgeSettings::from_bytes(&home.get(EDGE_SETTINGS_OBJECT).await.unwrap().unwrap().0).unwrap();
    assert_eq!(after, settings(2, vec!["thumbprint".to_owned()]));
}
