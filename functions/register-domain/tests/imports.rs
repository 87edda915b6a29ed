//! Many hostnames at once, and webhooks, through the real handler over a local home.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

mod stand;

use std::{sync::Arc, time::Duration};

use domains::{BucketShape, Clock, webhooks::Webhook};
use http::Method;
use register_domain::{IMPORT_STOPPED, MAX_IMPORT_LINES, MAX_OPEN_IMPORTS, Pace, Worked, stop_imports};
use serde_json::{Value, json};
use stand::{OPERATOR, Stand, TENANT};

const BUDGET: Duration = Duration::from_secs(20);

async fn import(stand: &Stand, key: &str, body: &Value) -> Value {
    let (status, answer) = stand.ask(Method::POST, "/v1/imports", Some(key), &body.to_string()).await;
    assert_eq!(status, 202, "{answer}");
    answer
}

async fn shown(stand: &Stand, key: &str, id: &str) -> Value {
    let (status, answer) = stand.ask(Method::GET, &format!("/v1/imports/{id}"), Some(key), "").await;
    assert_eq!(status, 200, "{answer}");
    answer
}

fn counts(import: &Value) -> [u64; 4] {
    ["left", "accepted", "already_there", "refused"].map(|name| import[name].as_u64().unwrap())
}

#[tokio::test]
async fn every_line_is_registered_or_refused_as_if_it_had_come_alone() {
    let stand = Stand::new().await;
    stand.ask(Method::POST, "/v1/domains", Some(OPERATOR), r#"{"hostname":"old.client-brand.com","tenant":"brand"}"#).await;
    stand.clock.advance(Duration::from_secs(60));
    let hostnames = ["a.client-brand.com", "old.client-brand.com", "no host", "A.client-brand.com", "b.client-brand.com", "co.uk"];
    let mut domains: Vec<_> = hostnames.iter().map(|hostname| json!({ "hostname": hostname, "tenant": "brand" })).collect();
    domains.push(json!({ "hostname": "c.client-brand.com" }));
    let begun = import(&stand, OPERATOR, &json!({ "domains": domains })).await;
    let id = begun["id"].as_str().unwrap();
    assert_eq!(counts(&begun), [7, 0, 0, 0]);
    assert_eq!(stand.api.work_imports(BUDGET).await.unwrap(), Worked { lines: 7, more: false });
    let done = shown(&stand, OPERATOR, id).await;
    assert_eq!(counts(&done)[0], 0, "{done}");
    assert_eq!(counts(&done)[3], 3, "{done}");
    assert_eq!((done["waiting"].as_u64(), done["active"].as_u64()), (Some(3), Some(0)), "{done}");
    assert!(done["ordered_by"].is_string() && done["finished_at"].is_string(), "{done}");
    for refusal in done["refusals"].as_array().unwrap() {
        let line = &domains[refusal["line"].as_u64().unwrap() as usize - 1];
        let (_, alone) = stand.ask(Method::POST, "/v1/domains", Some(OPERATOR), &line.to_string()).await;
        assert_eq!((&refusal["code"], &refusal["detail"]), (&alone["code"], &alone["detail"]), "{line}");
        assert_eq!(refusal["hostname"], line["hostname"]);
    }
    let (_, list) = stand.ask(Method::GET, "/v1/imports", Some(OPERATOR), "").await;
    assert_eq!(list["items"][0]["id"], *id);

    // Repeated while refused lines are left, it is worked off anew; what is there stays.
    let again = import(&stand, OPERATOR, &json!({ "domains": domains })).await;
    assert_eq!((again["id"].as_str(), again["finished_at"].is_null()), (Some(id), true));
    stand.clock.advance(Duration::from_secs(1));
    assert_eq!(stand.api.work_imports(BUDGET).await.unwrap().lines, 7);
    assert_eq!(stand.api.work_imports(BUDGET).await.unwrap().lines, 0);
    let (_, all) = stand.ask(Method::GET, "/v1/domains", Some(OPERATOR), "").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_repeated_request_is_the_same_import_and_a_key_belongs_to_one_list() {
    let stand = Stand::new().await;
    let one = json!({ "key": "monday", "domains": [{ "hostname": "a.client-brand.com", "tenant": "brand" }] });
    let begun = import(&stand, OPERATOR, &one).await;
    assert_eq!(import(&stand, OPERATOR, &one).await, begun);
    stand.api.work_imports(BUDGET).await.unwrap();
    let finished = import(&stand, OPERATOR, &one).await;
    assert_eq!(counts(&finished), [0, 1, 0, 0]);
    let other = json!({ "key": "monday", "domains": [{ "hostname": "b.client-brand.com", "tenant": "brand" }] });
    let (status, refused) = stand.ask(Method::POST, "/v1/imports", Some(OPERATOR), &other.to_string()).await;
    assert_eq!((status, &refused["code"]), (409, &"import.key_used".into()));
    for wrong in [json!({ "domains": [] }), json!({ "key": "", "domains": [{ "hostname": "a.b.com" }] })] {
        let (status, refused) = stand.ask(Method::POST, "/v1/imports", Some(OPERATOR), &wrong.to_string()).await;
        assert_eq!((status, &refused["code"]), (400, &"request.invalid_import".into()));
    }
    let many: Vec<_> = (0..=MAX_IMPORT_LINES).map(|n| json!({ "hostname": format!("h{n}.client-brand.com") })).collect();
    assert_eq!(stand.ask(Method::POST, "/v1/imports", Some(OPERATOR), &json!({ "domains": many }).to_string()).await.0, 400);
}

#[tokio::test]
async fn a_tenant_imports_for_itself_at_its_own_pace_and_sees_its_own_imports() {
    let claims = BucketShape { capacity: 30, refill: Duration::from_secs(10) };
    let stand = Stand::with(|api| api.pace = Pace { claims, ..Pace::default() }).await;
    let mut domains: Vec<_> = (0..39).map(|n| json!({ "hostname": format!("h{n}.client-brand.com") })).collect();
    domains.push(json!({ "hostname": "x.client-brand.com", "tenant": "other" }));
    let id = import(&stand, TENANT, &json!({ "domains": domains })).await["id"].as_str().unwrap().to_owned();
    let worked = stand.api.work_imports(BUDGET).await.unwrap();
    // Lines are taken several at once: the first that must wait need not be the last of them.
    assert!((1..39).contains(&worked.lines), "{worked:?}");
    let waiting = shown(&stand, TENANT, &id).await;
    assert!(waiting["waits_for"].as_str().unwrap().contains("faster than it may"), "{waiting}");
    assert_eq!(counts(&waiting)[3], 0, "what must wait is not refused");
    // Another's import does not wait with it.
    let other = import(&stand, OPERATOR, &json!({ "domains": [{ "hostname": "quick.client-brand.com", "tenant": "other" }] })).await;
    stand.api.work_imports(BUDGET).await.unwrap();
    assert_eq!(counts(&shown(&stand, OPERATOR, other["id"].as_str().unwrap()).await), [0, 1, 0, 0]);
    for _ in 0..20 {
        stand.clock.advance(Duration::from_secs(10));
        stand.api.work_imports(BUDGET).await.unwrap();
    }
    let done = shown(&stand, TENANT, &id).await;
    assert_eq!(counts(&done), [0, 39, 0, 1], "{done}");
    assert_eq!((&done["refusals"][0]["line"], &done["refusals"][0]["code"]), (&40.into(), &"auth.forbidden".into()));
    assert_eq!(stand.ask(Method::GET, &format!("/v1/imports/{id}"), Some(OPERATOR), "").await.0, 404);
    assert_eq!(stand.ask(Method::GET, &format!("/v1/imports/{id}?tenant=brand"), Some(OPERATOR), "").await.0, 200);
    let (_, own) = stand.ask(Method::GET, "/v1/imports", Some(TENANT), "").await;
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stopped_import_registers_nothing_by_itself_and_all_once_its_list_is_sent_again() {
    let claims = BucketShape { capacity: 20, refill: Duration::from_secs(3600) };
    let stand = Stand::with(|api| api.pace = Pace { claims, ..Pace::default() }).await;
    let domains: Vec<_> = (0..MAX_IMPORT_LINES).map(|n| json!({ "hostname": format!("h{n}.client-brand.com") })).collect();
    let list = json!({ "domains": domains });
    let id = import(&stand, TENANT, &list).await["id"].as_str().unwrap().to_owned();
    let other = import(&stand, OPERATOR, &json!({ "domains": [{ "hostname": "other.client-brand.com", "tenant": "other" }] })).await;
    stand.api.work_imports(BUDGET).await.unwrap();
    let taken = MAX_IMPORT_LINES - counts(&shown(&stand, TENANT, &id).await)[0] as usize;
    let why = "w".repeat(400);
    let stopped = stop_imports(stand.home.as_ref(), &why, stand.clock.now()).await.unwrap();
    assert_eq!(stopped.len(), 1, "the operator's had ended: {stopped:?}");
    assert_eq!((stopped[0].id.as_str(), stopped[0].tenant.as_deref()), (id.as_str(), Some("brand")));
    assert_eq!(stopped[0].left, MAX_IMPORT_LINES - taken);
    stand.clock.advance(Duration::from_secs(86_400));
    assert_eq!(stand.api.work_imports(BUDGET).await.unwrap(), Worked { lines: 0, more: false });
    let done = shown(&stand, TENANT, &id).await;
    assert!(done["finished_at"].is_string(), "{done}");
    assert_eq!(counts(&done), [0, taken as u64, 0, stopped[0].left as u64]);
    let refusal = &done["refusals"][0];
    assert_eq!((&refusal["code"], &refusal["line"]), (&IMPORT_STOPPED.into(), &(taken + 1).into()));
    assert_eq!(refusal["hostname"], domains[taken]["hostname"]);
    assert_eq!(counts(&shown(&stand, OPERATOR, other["id"].as_str().unwrap()).await), [0, 1, 0, 0]);

    let again = import(&stand, TENANT, &list).await;
    assert_eq!((again["id"].as_str(), counts(&again)[0]), (Some(id.as_str()), MAX_IMPORT_LINES as u64));
    assert!(stand.api.work_imports(BUDGET).await.unwrap().lines > 0);
}

#[tokio::test]
async fn two_workers_and_a_list_of_only_refused_lines_leave_one_import_finished() {
    let stand = Arc::new(Stand::new().await);
    let domains: Vec<_> = (0..MAX_IMPORT_LINES).map(|n| json!({ "hostname": format!("\"{}\"{n}", "\\\"é".repeat(40)) })).collect();
    let id = import(&stand, OPERATOR, &json!({ "domains": domains })).await["id"].as_str().unwrap().to_owned();
    let (one, other) = tokio::join!(stand.api.work_imports(BUDGET), stand.api.work_imports(BUDGET));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    let done = shown(&stand, OPERATOR, &id).await;
    assert_eq!(counts(&done), [0, 0, 0, MAX_IMPORT_LINES as u64]);
    let lines: Vec<_> = done["refusals"].as_array().unwrap().iter().map(|refusal| refusal["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, (1..=MAX_IMPORT_LINES as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_webhooks_secret_is_shown_once_rotates_with_an_overlap_and_goes_with_it() {
    use domains::{Clock, Documents};
    let stand = Stand::new().await;
    assert_eq!(stand.ask(Method::POST, "/v1/webhooks", Some(TENANT), r#"{"url":"https://a.net/"}"#).await.0, 403);
    for bad in [r#"{"url":"http://a.net/"}"#, r#"{"url":"https://u:p@a.net/"}"#, r#"{"url":"https://a.net/","events":["No Event"]}"#] {
        let (status, refused) = stand.ask(Method::POST, "/v1/webhooks", Some(OPERATOR), bad).await;
        assert_eq!((status, &refused["code"]), (422, &"request.invalid_webhook".into()), "{bad}");
    }
    let (status, made) = stand.ask(Method::POST, "/v1/webhooks", Some(OPERATOR), r#"{"url":"https://a.net/","tenant":"brand"}"#).await;
    assert_eq!(status, 201);
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert!(secret.starts_with("whsec_") && secret.len() >= 6 + 32, "{secret}");
    let path = format!("/v1/webhooks/{id}");
    for shown in [&path, &"/v1/webhooks".to_owned()] {
        let (status, answer) = stand.ask(Method::GET, shown, Some(OPERATOR), "").await;
        assert!(status == 200 && !answer.to_string().contains("whsec_"), "{answer}");
    }
    let (_, rotated) = stand.ask(Method::POST, &format!("{path}/rotate"), Some(OPERATOR), "").await;
    assert_ne!(rotated["secret"], made["secret"]);
    let stored: Webhook = serde_json::from_str(&stand.home.document("webhook", id).await.unwrap().unwrap().body).unwrap();
    assert_eq!(stored.secrets.len(), 2);
    assert_eq!((stored.secrets[0].until, stored.secrets[1].key.as_str()), (None, secret));
    stand.ask(Method::POST, &format!("{path}/rotate"), Some(OPERATOR), "").await;
    let twice: Webhook = serde_json::from_str(&stand.home.document("webhook", id).await.unwrap().unwrap().body).unwrap();
    let signing: Vec<_> = twice.signing(stand.clock.now()).map(|known| known.key.as_str()).collect();
    assert_eq!((signing.len(), signing[2]), (3, secret), "the only secret that the receiver has signs no more");
    for tail in ["/test", "/redeliver"] {
        assert_eq!(stand.ask(Method::POST, &format!("{path}{tail}"), Some(OPERATOR), "").await.0, 202);
    }
    assert_eq!(stand.ask(Method::DELETE, &path, Some(OPERATOR), "").await.0, 204);
    assert_eq!(stand.ask(Method::DELETE, &path, Some(OPERATOR), "").await.0, 404);
    for kind in ["webhook", "webhook-progress", "webhook-wish"] {
        assert!(stand.home.documents(kind, None, 10).await.unwrap().is_empty(), "{kind}");
    }
}

/// An import of so many names of one tenant, none of them in another list.
fn list_of(tenant: &str, number: usize, names: usize) -> Value {
    let domains: Vec<_> =
        (0..names).map(|n| json!({ "hostname": format!("h{n}.n{number}.{tenant}-brand.com"), "tenant": tenant })).collect();
    json!({ "domains": domains })
}

#[tokio::test]
async fn a_tenant_opens_no_more_imports_than_it_may_and_one_that_is_open_may_be_asked_for_again() {
    let stand = Stand::new().await;
    let mut first = Value::Null;
    for number in 0..MAX_OPEN_IMPORTS {
        let begun = import(&stand, TENANT, &list_of("brand", number, 1)).await;
        first = if first.is_null() { begun } else { first };
    }
    let one_more = list_of("brand", MAX_OPEN_IMPORTS, 1);
    let (status, refused) = stand.ask(Method::POST, "/v1/imports", Some(TENANT), &one_more.to_string()).await;
    assert_eq!((status, &refused["code"]), (429, &"limits.too_many_imports".into()));
    let (_, page) = stand.ask(Method::GET, "/v1/imports?limit=200", Some(TENANT), "").await;
    assert_eq!(page["items"].as_array().unwrap().len(), MAX_OPEN_IMPORTS, "the refused one left something behind");
    assert_eq!(import(&stand, TENANT, &list_of("brand", 0, 1)).await, first, "its answer may have been lost");
    import(&stand, OPERATOR, &one_more).await;
    stand.api.work_imports(BUDGET).await.unwrap();
    import(&stand, TENANT, &one_more).await;
}

#[tokio::test]
async fn fifty_imports_of_one_delay_no_other_ones_first_names() {
    let stand = Stand::new().await;
    for number in 0..MAX_OPEN_IMPORTS {
        import(&stand, OPERATOR, &list_of("zebra", number, 60)).await;
    }
    let late = import(&stand, TENANT, &list_of("brand", 0, 15)).await;
    // Ticks with time for one chunk each: the second is the other tenant's.
    assert_eq!(stand.api.work_imports(Duration::ZERO).await.unwrap(), Worked { lines: 20, more: true });
    assert_eq!(stand.api.work_imports(Duration::ZERO).await.unwrap(), Worked { lines: 15, more: true });
    assert_eq!(counts(&shown(&stand, TENANT, late["id"].as_str().unwrap()).await), [0, 15, 0, 0], "it waits behind another's imports");
    assert_eq!(stand.api.work_imports(Duration::ZERO).await.unwrap(), Worked { lines: 20, more: true }, "the first one's turn again");
}

#[tokio::test]
async fn an_import_that_is_repeated_just_before_its_end_is_closed_is_worked_off_anew() {
    let stand = Stand::new().await;
    let list = json!({ "domains": [{ "hostname": "no host", "tenant": "brand" }] });
    import(&stand, OPERATOR, &list).await;
    let documents = &stand.api.documents;
    let entry = documents.documents("import-open", None, 2).await.unwrap().remove(0);
    stand.api.work_imports(BUDGET).await.unwrap();
    // A worker has kept that all is done, and not closed the entry yet.
    let read = documents.put_document("import-open", &entry.id, &entry.body, None).await.unwrap();
    assert!(import(&stand, OPERATOR, &list).await["finished_at"].is_null());
    documents.delete_document("import-open", &entry.id, read).await.expect_err("the worker closes what was begun anew");
    assert_eq!(stand.api.work_imports(BUDGET).await.unwrap().lines, 1);
}
