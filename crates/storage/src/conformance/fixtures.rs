//! Items to write, for this suite and for the tests of one home.

use std::time::Duration;

use domains::{
    Attempt, CLAIM_SCHEMA, CaChoice, CertificateFacts, ChallengeWay, Change, Claim, ClaimId, ClaimKey, Delegation, HistoryEntry, Hostname,
    Issuance, LastLook, Nudge, OrderPlan, Owner, OwnershipToken, Proof, Publication, Put, RemovalReason, Renewal, Routing, SiteVersion,
    State, StoredCertificate, TenantId,
};
use jiff::Timestamp;

/// The name of this number.
pub fn hostname(number: usize) -> Hostname {
    Hostname::parse_name(&format!("shop{number:04}.brand.com")).unwrap()
}

/// A tenant of this name.
pub fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

/// The claim of `acme` to the name of this number.
pub fn key(number: usize) -> ClaimKey {
    ClaimKey { hostname: hostname(number), tenant: tenant("acme") }
}

/// `now + wait`, on a whole millisecond as every home can hold it.
pub fn after(now: Timestamp, wait: Duration) -> Timestamp {
    let at = now.checked_add(wait).unwrap();
    Timestamp::from_millisecond(at.as_millisecond()).unwrap()
}

/// A claim that waits for its proof.
pub fn claim(key: ClaimKey, version: u64, next_look: Timestamp) -> Claim {
    Claim {
        schema: CLAIM_SCHEMA,
        claim_id: ClaimId::parse("k3q9x2").unwrap(),
        token: OwnershipToken::parse("np-verify=5f3a").unwrap(),
        version,
        sequence: version,
        created_at: next_look,
        since: next_look,
        written_at: next_look,
        state: State::AwaitingProof { expires_at: after(next_look, Duration::from_secs(604_800)), first_proved: None, next_look },
        problem: None,
        last_look: None,
        suspension: None,
        stale_site: None,
        origin: None,
        key,
    }
}

/// An order under way, with a sealed key that can be searched for.
pub fn attempt(at: Timestamp, sealed_key: &str) -> Attempt {
    Attempt {
        started_at: at,
        csr: "MIIBVjCB/QIBADAAMFkw".repeat(20),
        sealed_key: sealed_key.to_owned(),
        spki_sha256: "ab".repeat(32),
        order_url: Some("https://ca.example/order/1".to_owned()),
        plan: OrderPlan {
            challenge: ChallengeWay::Dns01 { name: "k3q9.acme.edge.example".to_owned() },
            replaces: Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE".to_owned()),
            ca: CaChoice::Second,
        },
    }
}

/// The same claim in each state of the walk.
pub fn states(at: Timestamp) -> Vec<State> {
    let issuance = |attempt| Issuance { attempt, failures: 3, name_failures: 2, ..Issuance::new(at) };
    let active = |publication| State::Active {
        proof: Proof::Txt,
        certificate: CertificateFacts {
            version: SiteVersion(2),
            serial: "03a1".to_owned(),
            spki_sha256: "cd".repeat(32),
            not_before: at,
            not_after: after(at, Duration::from_secs(90 * 86_400)),
            ari_id: Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE".to_owned()),
            ca: CaChoice::First,
        },
        renewed: true,
        publication,
        renewal: Renewal {
            due_at: after(at, Duration::from_secs(60 * 86_400)),
            window: Some((after(at, Duration::from_secs(59 * 86_400)), after(at, Duration::from_secs(61 * 86_400)))),
            window_poll: Some(after(at, Duration::from_secs(21_600))),
            issuance: issuance(None),
        },
        health_look: after(at, Duration::from_secs(86_400)),
    };
    vec![
        State::AwaitingProof { expires_at: at, first_proved: Some(at), next_look: at },
        State::AwaitingRouting { proof: Proof::RoutingRecord, next_look: at },
        State::Issuing { proof: Proof::Txt, issuance: issuance(None) },
        State::Issuing { proof: Proof::Txt, issuance: issuance(Some(attempt(at, "sealed"))) },
        active(Publication::Due { next_look: at }),
        active(Publication::Done { version: SiteVersion(2), at }),
        State::Removing { reason: RemovalReason::Transferred, next_look: at },
        State::Removed { reason: RemovalReason::Requested },
    ]
}

/// What a look saw.
pub fn last_look(at: Timestamp) -> LastLook {
    LastLook { at, proof: Some(Proof::Txt), routing: Routing::OurTarget, delegation: Delegation::None, forbidden: Vec::new() }
}

/// A claim written for the first time.
pub fn created(claim: Claim) -> Change {
    Change { claims: vec![Put { item: claim, expected: None }], ..Change::default() }
}

/// A claim written over the version before its own.
pub fn replaced(claim: Claim) -> Change {
    let expected = Some(claim.version - 1);
    Change { claims: vec![Put { item: claim, expected }], ..Change::default() }
}

/// An owner item of this version.
pub fn owner(hostname: Hostname, tenant: Option<TenantId>, version: u64) -> Owner {
    Owner { hostname, tenant, site_version: SiteVersion(version), version }
}

/// A history item of this number.
pub fn entry(key: ClaimKey, sequence: u64, at: Timestamp) -> HistoryEntry {
    HistoryEntry {
        key,
        sequence,
        at,
        event: "ownership_proved".to_owned(),
        state: "issuing".to_owned(),
        code: Some("dns.txt_missing".to_owned()),
        detail: Some("seen at ns1.brand.com".to_owned()),
    }
}

/// A certificate of this version, with a chain of the usual length and this sealed key.
pub fn certificate(hostname: Hostname, version: u64, sealed_key: &str) -> StoredCertificate {
    StoredCertificate {
        hostname,
        tenant: tenant("acme"),
        version: SiteVersion(version),
        chain: format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", "MIIDdzCCAl+gAwIBAgIE".repeat(150)),
        sealed_key: sealed_key.to_owned(),
        spki_sha256: "ef".repeat(32),
    }
}

/// A nudge about the name of this number.
pub fn nudge(number: usize) -> Nudge {
    let ClaimKey { hostname, tenant } = key(number);
    Nudge { hostname, tenant, version: number as u64 + 1 }
}
