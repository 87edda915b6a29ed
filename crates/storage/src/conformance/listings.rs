//! The lists people ask for.

use std::time::Duration;

use domains::{Change, Claim, ClaimKey, DomainTable, DueIndex, Listings, StateName, TenantId};
use jiff::Timestamp;

use super::{
    Stand, eventually,
    fixtures::{claim, created, entry, hostname, key, replaced, states, tenant},
    race,
};

/// Cursors that nobody made.
pub(super) const GARBAGE: &[&str] =
    &["", "x", "{}", "bm90IGpzb24", "AAAA", "%00", "eyJsaXN0IjoxfQ", "🚀", "eyJsaXN0Ijoid2hvIiwiYWZ0ZXIiOm51bGx9"];

/// Every claim of a listing, page by page.
async fn all<H: Listings>(home: &H, tenant: Option<&TenantId>, state: Option<StateName>, limit: usize) -> Vec<ClaimKey> {
    let mut keys = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = home.claims(tenant, state, cursor.as_deref(), limit).await.unwrap();
        assert!(page.items.len() <= limit.max(1));
        keys.extend(page.items.into_iter().map(|claim| claim.key));
        cursor = page.cursor;
        if cursor.is_none() {
            return keys;
        }
    }
}

/// Three tenants' claims to sixteen names, two names in each state of the walk; some names are claimed by all.
async fn planted<S: Stand>(stand: &S) -> (S::Home, Vec<Claim>) {
    let home = stand.fresh().await;
    let now = stand.now();
    let mut claims = Vec::new();
    for number in 0..16 {
        for (offset, name) in ["acme", "beta", "zenith"].into_iter().enumerate() {
            if offset > 0 && number % 3 != 0 {
                continue;
            }
            let states = states(now);
            let state = states[(number + offset) % states.len()].clone();
            claims.push(Claim { state, ..claim(ClaimKey { hostname: hostname(number), tenant: tenant(name) }, 1, now) });
        }
    }
    // Not in the order they are listed in.
    for claim in claims.iter().rev() {
        home.commit(&created(claim.clone())).await.unwrap();
    }
    eventually(stand, &home, "the whole list", async || {
        (home.claims(None, None, None, 1000).await.unwrap().items.len() == claims.len()).then_some(())
    })
    .await;
    (home, claims)
}

pub(super) async fn claims_are_listed_by_tenant_and_state<S: Stand>(stand: &S) {
    let (home, claims) = planted(stand).await;
    let tenants = [None, Some(tenant("acme")), Some(tenant("beta")), Some(tenant("nobody"))];
    for tenant in &tenants {
        for state in StateName::ALL.iter().copied().map(Some).chain([None]) {
            let expected: Vec<Claim> = claims
                .iter()
                .filter(|claim| tenant.as_ref().is_none_or(|tenant| claim.key.tenant == *tenant))
                .filter(|claim| state.is_none_or(|state| claim.state.name() == state))
                .cloned()
                .collect();
            let mut seen = home.claims(tenant.as_ref(), state, None, 1000).await.unwrap().items;
            seen.sort_by_key(|claim| claim.key.clone());
            assert_eq!(seen, expected, "{tenant:?} {state:?}");
        }
    }
}

pub(super) async fn a_listing_is_paged_in_hostname_order_without_gaps<S: Stand>(stand: &S) {
    let (home, claims) = planted(stand).await;
    let acme = tenant("acme");
    for (tenant, state) in [(None, None), (Some(&acme), None), (None, Some(StateName::Active)), (Some(&acme), Some(StateName::Issuing))] {
        let whole = all(&home, tenant, state, 1000).await;
        assert!(!whole.is_empty());
        assert!(whole.is_sorted_by_key(|key| key.hostname.as_str().to_owned()));
        for limit in [1, 2, 5, claims.len() - 1, claims.len()] {
            assert_eq!(all(&home, tenant, state, limit).await, whole, "pages of {limit}");
        }
    }
}

pub(super) async fn a_listing_limit_of_any_size_is_survived<S: Stand>(stand: &S) {
    let (home, claims) = planted(stand).await;
    let none = home.claims(None, None, None, 0).await.unwrap();
    assert!(none.items.len() == 1 && none.cursor.is_some(), "a page of none would never end");
    let most = home.claims(None, None, None, usize::MAX).await.unwrap();
    assert_eq!((most.items.len(), most.cursor), (claims.len(), None));
    assert!(home.history(&key(1), 0, usize::MAX).await.unwrap().is_empty());
    assert!(home.due(Timestamp::MIN, Timestamp::MAX, None, usize::MAX).await.is_ok());
}

pub(super) async fn a_claim_that_moves_while_it_is_listed_is_listed_once<S: Stand>(stand: &S) {
    let (home, claims) = planted(stand).await;
    let states = states(stand.now());
    let moving = claims.iter().filter(|claim| claim.key.tenant == tenant("acme")).cloned().map(|claim| {
        let (home, states) = (home.clone(), states.clone());
        async move {
            for version in 2..30_u64 {
                let state = states[usize::try_from(version).unwrap() % states.len()].clone();
                home.commit(&replaced(Claim { version, state, ..claim.clone() })).await.unwrap();
            }
        }
    });
    let moving: Vec<_> = moving.map(tokio::spawn).collect();
    let looking = race(4, |_| {
        let home = home.clone();
        async move {
            for _ in 0..20 {
                let mut listed: Vec<ClaimKey> =
                    home.claims(None, None, None, 1000).await.unwrap().items.into_iter().map(|claim| claim.key).collect();
                let all = listed.len();
                listed.sort();
                listed.dedup();
                assert_eq!(listed.len(), all, "a claim is listed twice");
            }
        }
    });
    looking.await;
    for one in moving {
        one.await.unwrap();
    }
}

pub(super) async fn a_foreign_cursor_leads_to_an_empty_page<S: Stand>(stand: &S) {
    let (home, _) = planted(stand).await;
    let acme = tenant("acme");
    let of_acme = home.claims(Some(&acme), None, None, 1).await.unwrap().cursor.unwrap();
    let of_due = home.due(Timestamp::MIN, Timestamp::MAX, None, 1).await.unwrap().cursor;
    let long = "A".repeat(100_000);
    for cursor in GARBAGE.iter().copied().chain([of_acme.as_str(), long.as_str()]).chain(of_due.as_deref()) {
        let page = home.claims(Some(&tenant("beta")), None, Some(cursor), 10).await.unwrap();
        assert!(page.items.is_empty() && page.cursor.is_none(), "{cursor:?}");
    }
    assert!(!home.claims(Some(&acme), None, Some(&of_acme), 10).await.unwrap().items.is_empty());
}

pub(super) async fn every_claim_to_a_name_is_found<S: Stand>(stand: &S) {
    let (home, claims) = planted(stand).await;
    for number in [0, 1] {
        let expected: Vec<Claim> = claims.iter().filter(|claim| claim.key.hostname == hostname(number)).cloned().collect();
        let mut seen = home.claims_to(&hostname(number)).await.unwrap();
        seen.sort_by_key(|claim| claim.key.clone());
        assert_eq!(seen, expected);
    }
    assert_eq!(home.claims_to(&hostname(999)).await.unwrap(), vec![]);
}

pub(super) async fn history_comes_oldest_first_after_a_number<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    // Written out of order, and past where text would sort 10 before 9.
    for sequence in [12, 3, 1, 10, 2, 11, 9, 4, 8, 5, 7, 6] {
        let change = Change { history: vec![entry(key(1), sequence, now), entry(key(2), sequence, now)], ..Change::default() };
        home.commit(&change).await.unwrap();
    }
    let sequences = async |after, limit| -> Vec<u64> {
        home.history(&key(1), after, limit).await.unwrap().into_iter().map(|entry| entry.sequence).collect()
    };
    eventually(stand, &home, "the whole history", async || (sequences(0, 100).await == (1..=12).collect::<Vec<_>>()).then_some(())).await;
    assert_eq!(sequences(4, 3).await, vec![5, 6, 7]);
    assert_eq!(sequences(12, 10).await, Vec::<u64>::new());
    assert_eq!(sequences(u64::MAX, 10).await, Vec::<u64>::new());
    stand.pass(&home, Duration::ZERO).await;
}
