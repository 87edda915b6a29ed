//! Small versioned documents.

use domains::{CommitError, Documents, MAX_DOCUMENT_BYTES};

use super::{RACERS, Stand, race};

fn is_conflict<T>(result: &Result<T, CommitError>) -> bool {
    matches!(result, Err(CommitError::Conflict))
}

pub(super) async fn a_document_is_read_as_it_was_written<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    assert_eq!(home.document("webhook", "one").await.unwrap(), None);
    let body = "{\"url\":\"https://ops.brand.com/ü\"}";
    assert_eq!(home.put_document("webhook", "one", body, None).await.unwrap(), 1);
    let read = home.document("webhook", "one").await.unwrap().unwrap();
    assert_eq!((read.id.as_str(), read.version, read.body.as_str()), ("one", 1, body));
    assert_eq!(home.document("job", "one").await.unwrap(), None, "kinds are apart");
    assert_eq!(home.put_document("webhook", "one", "{}", Some(1)).await.unwrap(), 2);
    assert_eq!(home.document("webhook", "one").await.unwrap().unwrap().body, "{}");
    let most = "x".repeat(MAX_DOCUMENT_BYTES);
    home.put_document("job", "most", &most, None).await.unwrap();
    assert_eq!(home.document("job", "most").await.unwrap().unwrap().body, most);
    let more = home.put_document("job", "more", &"x".repeat(MAX_DOCUMENT_BYTES + 1), None).await;
    assert!(matches!(more, Err(CommitError::Store(_))), "{more:?}");
}

pub(super) async fn of_sixteen_writers_of_a_document_one_wins<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    for expected in [None, Some(1)] {
        let wrote = race(RACERS, |racer| {
            let home = home.clone();
            async move { (racer, home.put_document("secret", "ask", &format!("\"{racer}\""), expected).await) }
        })
        .await;
        assert_eq!(wrote.iter().filter(|(_, wrote)| is_conflict(wrote)).count(), RACERS - 1, "{wrote:?}");
        let (winner, _) = wrote.iter().find(|(_, wrote)| wrote.is_ok()).unwrap();
        assert_eq!(home.document("secret", "ask").await.unwrap().unwrap().body, format!("\"{winner}\""));
    }
    assert!(is_conflict(&home.put_document("secret", "never", "{}", Some(3)).await), "a document that is not there has no version");
}

pub(super) async fn documents_are_listed_in_the_order_of_their_ids<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    for id in ["d", "a", "c", "b", "e"] {
        home.put_document("webhook", id, "{}", None).await.unwrap();
    }
    home.put_document("webhooks", "f", "{}", None).await.unwrap();
    let ids = async |after, limit| -> String {
        home.documents("webhook", after, limit).await.unwrap().into_iter().map(|document| document.id).collect()
    };
    assert_eq!(ids(None, 100).await, "abcde");
    assert_eq!(ids(None, 2).await, "ab");
    assert_eq!(ids(Some("b"), 2).await, "cd");
    assert_eq!(ids(Some("bb"), usize::MAX).await, "cde");
    assert_eq!(ids(Some("e"), 2).await, "");
}

pub(super) async fn a_deleted_document_is_gone_and_only_its_reader_deletes_it<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    home.put_document("webhook", "one", "{}", None).await.unwrap();
    home.put_document("webhook", "one", "{}", Some(1)).await.unwrap();
    assert!(is_conflict(&home.delete_document("webhook", "one", 1).await), "someone wrote since");
    home.delete_document("webhook", "one", 2).await.unwrap();
    assert_eq!(home.document("webhook", "one").await.unwrap(), None);
    assert!(is_conflict(&home.delete_document("webhook", "one", 2).await));
    home.put_document("webhook", "one", "{}", None).await.unwrap();
}

pub(super) async fn documents_survive_a_crash<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    home.put_document("job", "one", "{\"done\":3}", None).await.unwrap();
    let home = stand.reopened(home).await;
    let read = home.document("job", "one").await.unwrap().unwrap();
    assert_eq!((read.version, read.body.as_str()), (1, "{\"done\":3}"));
}
