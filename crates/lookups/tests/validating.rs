//! Whether a resolver checks signatures, as it says itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use dev_dns::{Config, DevDns, Quirk, RecordType::Soa};
use domains::Failure;
use lookups::validates;

#[tokio::test]
async fn a_resolver_validates_when_it_says_that_a_signed_answer_was_checked() {
    let resolver = DevDns::start(Config::default()).await.unwrap();
    let zone = resolver.zone();
    zone.set("com", Soa, &["a.gtld-servers.net nstld.verisign-grs.com 1 1800 900 604800 900"]).unwrap();
    assert_eq!(validates(resolver.dns_addr()).await, Ok(false));
    zone.quirk(Quirk { name: "com".into(), authentic: true, ..Quirk::default() }).unwrap();
    assert_eq!(validates(resolver.dns_addr()).await, Ok(true));
    zone.quirk(Quirk { name: "com".into(), rcode: Some("SERVFAIL".into()), ..Quirk::default() }).unwrap();
    assert_eq!(validates(resolver.dns_addr()).await, Err(Failure::Servfail));
}
