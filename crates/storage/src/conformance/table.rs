//! The truth.

use std::time::Duration;

use domains::{
    Actor, Change, Claim, ClaimKey, CommitError, DomainTable, DueIndex, Listings, Problem, ProblemCode, Put, SiteVersion, State,
};

use super::{
    RACERS, Stand,
    feed::{drain, drained},
    fixtures::{after, certificate, claim, created, entry, hostname, key, last_look, owner, replaced, states, tenant},
    is_defect, race,
};

pub(super) async fn what_was_never_written_is_absent<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    assert_eq!(home.claim(&key(1)).await.unwrap(), None);
    assert_eq!(home.owner(&hostname(1)).await.unwrap(), None);
    assert_eq!(home.certificate(&hostname(1), SiteVersion(1)).await.unwrap(), None);
    assert_eq!(home.certificate(&hostname(1), SiteVersion(u64::MAX >> 1)).await.unwrap(), None);
}

pub(super) async fn every_item_is_read_as_it_was_written<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = after(stand.now(), Duration::from_secs(60));
    for (number, state) in states(now).into_iter().enumerate() {
        let problem = Problem {
            code: ProblemCode::DnsTxtMissing,
            actor: Actor::Customer,
            action: "Add the TXT record \"np-verify\" – exactly".to_owned(),
            about: "_np.shop.brand.com".to_owned(),
            expected: "5f3a".to_owned(),
            saw: "'; DROP TABLE claims; --\0\u{1F680}".to_owned(),
            since: now,
            waits_since: Some(now),
            next_look: now,
        };
        let written = Claim { state, problem: Some(problem), last_look: Some(last_look(now)), ..claim(key(number), 1, now) };
        home.commit(&created(written.clone())).await.unwrap();
        assert_eq!(home.claim(&key(number)).await.unwrap(), Some(written));
    }
    let (owner, certificate) = (owner(hostname(1), None, 4), certificate(hostname(1), 7, "sealed"));
    let change = Change {
        owner: Some(Put { item: owner.clone(), expected: None }),
        certificate: Some(certificate.clone()),
        history: vec![entry(key(1), 1, now)],
        ..Change::default()
    };
    home.commit(&change).await.unwrap();
    assert_eq!(home.owner(&hostname(1)).await.unwrap(), Some(owner));
    assert_eq!(home.certificate(&hostname(1), SiteVersion(7)).await.unwrap(), Some(certificate));
    assert_eq!(home.certificate(&hostname(1), SiteVersion(8)).await.unwrap(), None);
    assert_eq!(home.history(&key(1), 0, 10).await.unwrap(), vec![entry(key(1), 1, now)]);
}

pub(super) async fn a_put_that_expects_nothing_needs_nothing_there<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    home.commit(&created(claim(key(1), 1, now))).await.unwrap();
    for version in [1, 2] {
        let again = home.commit(&created(claim(key(1), version, now))).await;
        assert!(matches!(again, Err(CommitError::Conflict)), "{again:?}");
    }
    assert_eq!(home.claim(&key(1)).await.unwrap().unwrap().version, 1);
    let owned = |expected| Change { owner: Some(Put { item: owner(hostname(1), None, 2), expected }), ..Change::default() };
    home.commit(&owned(None)).await.unwrap();
    assert!(matches!(home.commit(&owned(None)).await, Err(CommitError::Conflict)));
    // Another tenant's claim to the same name is another item.
    let other = ClaimKey { hostname: hostname(1), tenant: tenant("zenith") };
    home.commit(&created(claim(other, 1, now))).await.unwrap();
}

pub(super) async fn a_put_needs_the_version_it_names<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let absent = home.commit(&replaced(claim(key(1), 2, now))).await;
    assert!(matches!(absent, Err(CommitError::Conflict)), "{absent:?}");
    assert_eq!(home.claim(&key(1)).await.unwrap(), None);
    home.commit(&created(claim(key(1), 1, now))).await.unwrap();
    home.commit(&replaced(claim(key(1), 2, now))).await.unwrap();
    let late = home.commit(&replaced(claim(key(1), 2, now))).await;
    assert!(matches!(late, Err(CommitError::Conflict)), "{late:?}");
    let ahead = home.commit(&replaced(claim(key(1), 9, now))).await;
    assert!(matches!(ahead, Err(CommitError::Conflict)), "{ahead:?}");
    assert_eq!(home.claim(&key(1)).await.unwrap().unwrap().version, 2);
    let owned = |version: u64| Change {
        owner: Some(Put { item: owner(hostname(1), None, version), expected: Some(version - 1) }),
        ..Change::default()
    };
    assert!(matches!(home.commit(&owned(2)).await, Err(CommitError::Conflict)));
}

pub(super) async fn of_sixteen_creators_one_wins<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    for round in 0..5 {
        let wins = race(RACERS, |racer| {
            let home = home.clone();
            async move {
                let mut mine = claim(key(round), 1, now);
                mine.sequence = racer as u64;
                match home.commit(&created(mine)).await {
                    Ok(()) => Some(racer),
                    Err(CommitError::Conflict) => None,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
        let winners: Vec<usize> = wins.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(home.claim(&key(round)).await.unwrap().unwrap().sequence, winners[0] as u64);
    }
}

pub(super) async fn of_sixteen_writers_of_one_version_one_wins<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    home.commit(&created(claim(key(1), 1, now))).await.unwrap();
    for version in 2..12 {
        let wins = race(RACERS, |racer| {
            let home = home.clone();
            async move {
                let mut mine = claim(key(1), version, now);
                mine.sequence = racer as u64;
                // The history number names the racer, so that only the claim's version can conflict.
                let history = vec![entry(key(1), version * 100 + racer as u64, now)];
                match home.commit(&Change { history, ..replaced(mine) }).await {
                    Ok(()) => Some(racer as u64),
                    Err(CommitError::Conflict) => None,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
        let winners: Vec<u64> = wins.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(home.claim(&key(1)).await.unwrap().unwrap().sequence, winners[0]);
        let newest = home.history(&key(1), version * 100 - 1, 100).await.unwrap();
        assert_eq!(newest.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), vec![version * 100 + winners[0]], "losers left history");
    }
}

pub(super) async fn no_update_is_lost_when_everybody_retries<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    home.commit(&created(claim(key(1), 1, now))).await.unwrap();
    race(RACERS, |_| {
        let home = home.clone();
        async move {
            loop {
                let before = home.claim(&key(1)).await.unwrap().unwrap();
                let mut next = before.clone();
                next.version += 1;
                next.sequence += 1;
                match home.commit(&replaced(next)).await {
                    Ok(()) => return,
                    Err(CommitError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    })
    .await;
    let last = home.claim(&key(1)).await.unwrap().unwrap();
    assert_eq!((last.version, last.sequence), (1 + RACERS as u64, 1 + RACERS as u64));
}

pub(super) async fn a_change_is_written_whole_or_not_at_all<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    // What is there already, and what each broken change runs into.
    let standing = Change {
        owner: Some(Put { item: owner(hostname(9), Some(tenant("acme")), 5), expected: None }),
        history: vec![entry(key(9), 1, now)],
        certificate: Some(certificate(hostname(9), 5, "sealed")),
        ..created(claim(key(9), 5, now))
    };
    home.commit(&standing).await.unwrap();
    drained(stand, &home).await;
    let fine = |number: usize| Change {
        claims: vec![Put { item: claim(key(number), 1, now), expected: None }],
        owner: Some(Put { item: owner(hostname(number), None, 1), expected: None }),
        history: vec![entry(key(number), 1, now)],
        certificate: Some(certificate(hostname(number), 1, "sealed")),
        dropped_certificates: vec![(hostname(9), SiteVersion(5))],
    };
    let mut broken = Vec::new();
    let mut first_claim = fine(0);
    first_claim.claims.insert(0, Put { item: claim(key(9), 9, now), expected: Some(4) });
    broken.push(first_claim);
    let mut last_claim = fine(1);
    last_claim.claims.push(Put { item: claim(key(9), 9, now), expected: None });
    broken.push(last_claim);
    let mut other_owner = fine(2);
    other_owner.owner = Some(Put { item: owner(hostname(9), None, 7), expected: Some(6) });
    broken.push(other_owner);
    let mut old_history = fine(3);
    old_history.history.push(entry(key(9), 1, now));
    broken.push(old_history);
    for (number, change) in broken.iter().enumerate() {
        let answer = home.commit(change).await;
        assert!(matches!(answer, Err(CommitError::Conflict)), "{number}: {answer:?}");
        assert_eq!(home.claim(&key(number)).await.unwrap(), None, "{number}");
        assert_eq!(home.owner(&hostname(number)).await.unwrap(), None, "{number}");
        assert_eq!(home.certificate(&hostname(number), SiteVersion(1)).await.unwrap(), None, "{number}");
        assert_eq!(home.history(&key(number), 0, 10).await.unwrap(), vec![], "{number}");
    }
    assert_eq!(home.claim(&key(9)).await.unwrap().unwrap().version, 5);
    assert_eq!(home.owner(&hostname(9)).await.unwrap().unwrap().version, 5);
    assert!(home.certificate(&hostname(9), SiteVersion(5)).await.unwrap().is_some(), "dropped by a change that was not written");
    assert_eq!(home.history(&key(9), 0, 10).await.unwrap().len(), 1);
    stand.pass(&home, Duration::from_secs(2)).await;
    let due = home.due(after(now, Duration::ZERO), after(now, Duration::from_secs(1)), None, 100).await.unwrap();
    assert!(due.items.iter().all(|entry| entry.key == key(9)), "{due:?}");
    assert!(drain(stand, &home).await.iter().all(|record| record.claim().unwrap().key == key(9)));
    // The same change without the broken part goes through.
    home.commit(&fine(0)).await.unwrap();
    assert_eq!(home.certificate(&hostname(9), SiteVersion(5)).await.unwrap(), None);
}

pub(super) async fn two_names_of_a_hand_over_never_disagree<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let contenders = ["alpha", "beta"].map(|name| ClaimKey { hostname: hostname(1), tenant: tenant(name) });
    for contender in &contenders {
        home.commit(&created(claim(contender.clone(), 1, now))).await.unwrap();
    }
    let first = Change { owner: Some(Put { item: owner(hostname(1), None, 1), expected: None }), ..Change::default() };
    home.commit(&first).await.unwrap();
    race(RACERS, |racer| {
        let (home, contenders) = (home.clone(), contenders.clone());
        async move {
            for _ in 0..10 {
                let (winner, loser) = (&contenders[racer % 2], &contenders[(racer + 1) % 2]);
                let mut winning = home.claim(winner).await.unwrap().unwrap();
                let mut losing = home.claim(loser).await.unwrap().unwrap();
                let mut owner = home.owner(&hostname(1)).await.unwrap().unwrap();
                let expected = (winning.version, losing.version, owner.version);
                winning.state = State::AwaitingRouting { proof: domains::Proof::Txt, next_look: now };
                losing.state = State::Removed { reason: domains::RemovalReason::Transferred };
                owner.tenant = Some(winner.tenant.clone());
                winning.version += 1;
                losing.version += 1;
                owner.version += 1;
                let change = Change {
                    claims: vec![Put { item: winning, expected: Some(expected.0) }, Put { item: losing, expected: Some(expected.1) }],
                    owner: Some(Put { item: owner, expected: Some(expected.2) }),
                    ..Change::default()
                };
                match home.commit(&change).await {
                    Ok(()) | Err(CommitError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    })
    .await;
    let owner = home.owner(&hostname(1)).await.unwrap().unwrap();
    assert!(owner.version > 1, "nobody ever won");
    for contender in &contenders {
        let claim = home.claim(contender).await.unwrap().unwrap();
        assert_eq!(claim.version, owner.version, "one of three items was written alone");
        assert_eq!(claim.is_removed(), owner.tenant.as_ref() != Some(&contender.tenant));
    }
}

pub(super) async fn a_hundred_items_fit_and_one_more_is_refused<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let entries = |first: u64, count: u64| (first..first + count).map(|sequence| entry(key(1), sequence, now)).collect::<Vec<_>>();
    let full = Change { history: entries(1, 99), ..created(claim(key(1), 1, now)) };
    home.commit(&full).await.unwrap();
    let too_full = Change { history: entries(1000, 100), ..created(claim(key(2), 1, now)) };
    match home.commit(&too_full).await {
        Err(CommitError::Store(error)) => assert!(is_defect(&error), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(home.claim(&key(2)).await.unwrap(), None);
    assert_eq!(home.history(&key(1), 0, 1000).await.unwrap().len(), 99);
}

pub(super) async fn an_item_named_twice_is_refused<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let mut twice = created(claim(key(1), 1, now));
    twice.claims.push(Put { item: claim(key(1), 2, now), expected: Some(1) });
    let history = Change { history: vec![entry(key(1), 1, now); 2], ..Change::default() };
    let both = Change {
        certificate: Some(certificate(hostname(1), 1, "sealed")),
        dropped_certificates: vec![(hostname(1), SiteVersion(1))],
        ..Change::default()
    };
    for change in [twice, history, both] {
        match home.commit(&change).await {
            Err(CommitError::Store(error)) => assert!(is_defect(&error), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(home.claim(&key(1)).await.unwrap(), None);
    assert_eq!(home.history(&key(1), 0, 10).await.unwrap(), vec![]);
}

pub(super) async fn a_version_that_does_not_grow_is_refused<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    home.commit(&created(claim(key(1), 5, now))).await.unwrap();
    for version in [4, 5] {
        let change = Change { claims: vec![Put { item: claim(key(1), version, now), expected: Some(5) }], ..Change::default() };
        match home.commit(&change).await {
            Err(CommitError::Store(error)) => assert!(is_defect(&error), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(home.claim(&key(1)).await.unwrap().unwrap().version, 5);
}

pub(super) async fn a_history_number_is_used_once<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let write = |number: usize, sequence| Change { history: vec![entry(key(number), sequence, now)], ..Change::default() };
    home.commit(&write(1, 1)).await.unwrap();
    assert!(matches!(home.commit(&write(1, 1)).await, Err(CommitError::Conflict)));
    home.commit(&write(1, 2)).await.unwrap();
    home.commit(&write(2, 1)).await.unwrap();
    assert_eq!(home.history(&key(1), 0, 10).await.unwrap().len(), 2);
}

pub(super) async fn a_dropped_certificate_is_gone_and_its_neighbours_stay<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    for version in 1..=3 {
        let change = Change { certificate: Some(certificate(hostname(1), version, "sealed")), ..Change::default() };
        home.commit(&change).await.unwrap();
    }
    let drop = Change { dropped_certificates: vec![(hostname(1), SiteVersion(2)), (hostname(2), SiteVersion(1))], ..Change::default() };
    home.commit(&drop).await.unwrap();
    assert!(home.certificate(&hostname(1), SiteVersion(1)).await.unwrap().is_some());
    assert_eq!(home.certificate(&hostname(1), SiteVersion(2)).await.unwrap(), None);
    assert!(home.certificate(&hostname(1), SiteVersion(3)).await.unwrap().is_some());
    // A repeat of the drop, as after a lost answer, is no failure.
    home.commit(&drop).await.unwrap();
}

pub(super) async fn what_was_answered_is_there_after_a_crash<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    race(50, |number| {
        let home = home.clone();
        async move {
            let change = Change {
                owner: Some(Put { item: owner(hostname(number), None, 1), expected: None }),
                history: vec![entry(key(number), 1, now)],
                certificate: Some(certificate(hostname(number), 1, "sealed")),
                ..created(claim(key(number), 1, now))
            };
            home.commit(&change).await.unwrap();
        }
    })
    .await;
    let home = stand.reopened(home).await;
    for number in 0..50 {
        assert!(home.claim(&key(number)).await.unwrap().is_some());
        assert!(home.owner(&hostname(number)).await.unwrap().is_some());
        assert!(home.certificate(&hostname(number), SiteVersion(1)).await.unwrap().is_some());
        assert_eq!(home.history(&key(number), 0, 10).await.unwrap().len(), 1);
    }
}
