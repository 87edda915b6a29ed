//! The bucket.

use std::collections::HashSet;

use domains::{BundleBucket, CommitError, ObjectCondition};

use super::{RACERS, Stand, is_defect, race};

const NAME: &str = "sites/shop.brand.com.json";

async fn etag<H: BundleBucket>(home: &H, name: &str) -> String {
    home.get(name).await.unwrap().unwrap().1
}

fn is_conflict(answer: &Result<(), CommitError>) -> bool {
    matches!(answer, Err(CommitError::Conflict))
}

pub(super) async fn an_object_never_written_is_absent<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    for name in [NAME, "index/ab.json", "edge.json"] {
        assert_eq!(home.get(name).await.unwrap(), None);
    }
}

pub(super) async fn an_object_is_created_once<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    home.put(NAME, b"first", &ObjectCondition::Absent).await.unwrap();
    assert!(is_conflict(&home.put(NAME, b"second", &ObjectCondition::Absent).await));
    assert_eq!(home.get(NAME).await.unwrap().unwrap().0, b"first");
    let empty = "index/00.json";
    home.put(empty, b"", &ObjectCondition::Absent).await.unwrap();
    assert_eq!(home.get(empty).await.unwrap().unwrap().0, b"");
    assert!(is_conflict(&home.put(empty, b"x", &ObjectCondition::Absent).await), "an empty object is not an absent one");
    // The largest name a hostname can have.
    let long = format!("sites/{}.json", "a".repeat(246));
    home.put(&long, b"x", &ObjectCondition::Absent).await.unwrap();
    assert_eq!(home.get(&long).await.unwrap().unwrap().0, b"x");
}

pub(super) async fn an_object_is_replaced_only_by_who_saw_it<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let unseen = ObjectCondition::Matches("0000".to_owned());
    assert!(is_conflict(&home.put(NAME, b"x", &unseen).await), "an absent object matches nothing");
    assert_eq!(home.get(NAME).await.unwrap(), None);
    home.put(NAME, b"first", &ObjectCondition::Absent).await.unwrap();
    let first = etag(&home, NAME).await;
    home.put(NAME, b"second", &ObjectCondition::Matches(first.clone())).await.unwrap();
    let second = etag(&home, NAME).await;
    assert_ne!(first, second);
    assert!(is_conflict(&home.put(NAME, b"third", &ObjectCondition::Matches(first)).await));
    assert!(is_conflict(&home.put(NAME, b"third", &ObjectCondition::Matches(String::new())).await));
    assert_eq!(home.get(NAME).await.unwrap().unwrap(), (b"second".to_vec(), second));
}

pub(super) async fn of_sixteen_writers_of_an_object_one_wins<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    home.put(NAME, b"start", &ObjectCondition::Absent).await.unwrap();
    for round in 0..5 {
        let seen = ObjectCondition::Matches(etag(&home, NAME).await);
        let answers = race(RACERS, |racer| {
            let (home, seen) = (home.clone(), seen.clone());
            async move {
                let answer = home.put(NAME, format!("{round} {racer}").as_bytes(), &seen).await;
                assert!(answer.is_ok() || is_conflict(&answer), "{answer:?}");
                answer.is_ok().then_some(racer)
            }
        })
        .await;
        let winners: Vec<usize> = answers.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(home.get(NAME).await.unwrap().unwrap().0, format!("{round} {}", winners[0]).as_bytes());
    }
}

pub(super) async fn of_sixteen_creators_of_an_object_one_wins<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    for round in 0..5 {
        let name = format!("sites/shop{round}.brand.com.json");
        let answers = race(RACERS, |racer| {
            let (home, name) = (home.clone(), name.clone());
            async move {
                let answer = home.put(&name, format!("{racer}").as_bytes(), &ObjectCondition::Absent).await;
                assert!(answer.is_ok() || is_conflict(&answer), "{answer:?}");
                answer.is_ok()
            }
        })
        .await;
        assert_eq!(answers.into_iter().filter(|won| *won).count(), 1);
    }
}

pub(super) async fn a_reader_sees_the_old_object_or_the_new<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let body = |letter: u8| vec![letter; 300_000];
    home.put(NAME, &body(b'a'), &ObjectCondition::Absent).await.unwrap();
    let writing = tokio::spawn({
        let home = home.clone();
        async move {
            for letter in b'b'..=b'p' {
                let seen = ObjectCondition::Matches(etag(&home, NAME).await);
                home.put(NAME, &body(letter), &seen).await.unwrap();
            }
        }
    });
    let mut seen = HashSet::new();
    while !writing.is_finished() {
        let (bytes, etag) = home.get(NAME).await.unwrap().expect("an object was absent while it was replaced");
        assert_eq!(bytes.len(), 300_000);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a mix of two objects");
        seen.insert((bytes[0], etag));
    }
    writing.await.unwrap();
    let letters: HashSet<u8> = seen.iter().map(|(letter, _)| *letter).collect();
    assert_eq!(letters.len(), seen.len(), "one content, two ETags");
    assert_eq!(home.get(NAME).await.unwrap().unwrap().0, body(b'p'));
}

pub(super) async fn a_name_that_leaves_the_bucket_is_refused<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    for name in ["", "/etc/hosts", "../home.sqlite3", "sites/../edge.json", "sites//x", ".hidden", "sites/.hidden", "a/b/c", "x\0y"] {
        assert!(is_defect(&home.get(name).await.unwrap_err()), "{name:?}");
        assert!(is_defect(&home.purge_older(name).await.unwrap_err()), "{name:?}");
        match home.put(name, b"x", &ObjectCondition::Absent).await {
            Err(CommitError::Store(error)) => assert!(is_defect(&error), "{error}"),
            other => panic!("{name:?}: {other:?}"),
        }
    }
}

pub(super) async fn purging_leaves_the_newest<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    home.put(NAME, b"first", &ObjectCondition::Absent).await.unwrap();
    home.put(NAME, b"second", &ObjectCondition::Matches(etag(&home, NAME).await)).await.unwrap();
    home.purge_older(NAME).await.unwrap();
    home.purge_older("sites/never.brand.com.json").await.unwrap();
    assert_eq!(home.get(NAME).await.unwrap().unwrap().0, b"second");
}

pub(super) async fn objects_survive_a_crash<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    race(RACERS, |racer| {
        let home = home.clone();
        async move { home.put(&format!("index/{racer:02x}.json"), b"shard", &ObjectCondition::Absent).await.unwrap() }
    })
    .await;
    let home = stand.reopened(home).await;
    for racer in 0..RACERS {
        assert_eq!(home.get(&format!("index/{racer:02x}.json")).await.unwrap().unwrap().0, b"shard");
    }
}
