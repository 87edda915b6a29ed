//! Secrets by reference: on a stand-in, on an account, and as Secrets Manager refuses them.

use aws_sdk_secretsmanager::{Client, primitives::Blob};
use domains::{Clock, StoreError, SystemClock};
use storage::aws::{Access, Secrets};

use crate::{
    played::{Played, sdk},
    stand_in,
};

async fn are_read_by_name_and_by_arn(access: &Access) {
    let manager = Client::new(&sdk(access).await);
    let name = |what: &str| format!("nameplate-test/{}/{what}", SystemClock.now().as_microsecond());
    let (text, bytes) = (name("account"), name("bytes"));
    let made = manager.create_secret().name(&text).secret_string("first").send().await.unwrap();
    manager.create_secret().name(&bytes).secret_binary(Blob::new(b"bytes")).send().await.unwrap();
    let secrets = Secrets::open(access).await;
    for id in [text.as_str(), made.arn.as_deref().unwrap()] {
        let read = secrets.text(id).await.unwrap();
        assert_eq!(read.expose(), "first");
        assert!(!format!("{read:?}").contains("first"), "a secret is not for logs");
    }
    manager.put_secret_value().secret_id(&text).secret_string("second").send().await.unwrap();
    assert_eq!(secrets.text(&text).await.unwrap().expose(), "second");
    for id in [bytes.as_str(), "nameplate-test/no-such-secret"] {
        let read = secrets.text(id).await;
        assert!(matches!(&read, Err(StoreError::Defect { detail }) if detail.contains(id)), "{read:?}");
    }
    for id in [text, bytes] {
        manager.delete_secret().secret_id(id).force_delete_without_recovery(true).send().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_read_by_name_and_by_arn_on_a_stand_in() {
    let (_folder, ministack, access) = stand_in();
    are_read_by_name_and_by_arn(&access).await;
    drop(ministack);
    let read = Secrets::open(&access).await.text("any").await;
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "nobody answers: {read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "not run: NAMEPLATE_AWS_TEST=1 scripts/test -p storage --features aws --test aws makes and deletes two secrets in that account"]
async fn secrets_are_read_by_name_and_by_arn_on_an_account() {
    are_read_by_name_and_by_arn(&Access::Ambient).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_may_not_be_read_is_a_defect_and_a_busy_service_is_not() {
    for (status, code, is_defect) in [
        (400, "AccessDeniedException", true),
        (400, "DecryptionFailure", true),
        (400, "InvalidRequestException", true),
        (400, "ThrottlingException", false),
        (500, "InternalServiceError", false),
    ] {
        let played = Played::start(vec![(status, format!(r#"{{"__type":"{code}","message":"in its own words"}}"#)); 6]);
        let secrets = Secrets::open(&Access::StandIn { endpoint: played.endpoint.clone() }).await;
        let read = secrets.text("account").await;
        assert_eq!(matches!(read, Err(StoreError::Defect { .. })), is_defect, "{code}: {read:?}");
        assert_eq!(matches!(read, Err(StoreError::Unavailable { .. })), !is_defect, "{code}: {read:?}");
    }
}
