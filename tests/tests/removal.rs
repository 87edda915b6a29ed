//! A domain that is removed: nothing of it is served or kept, and its name is free for whoever proves it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bundles::{SiteObject, site_object};
use domains::Hostname;
use http::Method;
use system_tests::{
    origin::Origin,
    product::Product,
    visitor::{get, get_h2, read},
    waiting::until,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

const NAME: &str = "shop.brand.test";
/// How soon after the request to remove it nothing of a domain is left.
const GONE: Duration = Duration::from_secs(10);

/// The files under a folder in which one of the byte strings stands.
fn files_with(folder: &Path, needles: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A file may go while the folder is read; what is gone holds nothing.
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, needles));
        } else if let Ok(bytes) = fs::read(&path)
            && needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle))
        {
            found.push(path);
        }
    }
    found
}

fn site(product: &Product) -> SiteObject {
    let path = product.bucket().join(site_object(&Hostname::parse_name(NAME).unwrap()));
    SiteObject::from_bytes(&fs::read(path).expect("the site's object")).expect("it reads")
}

async fn ends<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut buffer = [0; 1024];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_domain_is_refused_its_connections_end_and_its_key_is_nowhere_on_disk() {
    let origin = Origin::start().await;
    let product = Product::start(&[("NAMEPLATE_ORIGIN", &format!("http://{}", origin.address))]).await;
    let records = product.register(NAME, "first").await;
    product.set_dns(&records).await;
    product.served(NAME, Duration::from_secs(15)).await;

    let SiteObject::Present(bundle) = site(&product) else { panic!("a served site is a bundle") };
    let text = fs::read_to_string(product.bucket().join(site_object(&bundle.hostname))).unwrap();
    let text: serde_json::Value = serde_json::from_str(&text).unwrap();
    let in_text = text["sealed_key"]["ciphertext"].as_str().expect("the ciphertext as text").as_bytes().to_vec();
    let key = [bundle.sealed_key.ciphertext.clone(), in_text];
    assert!(!files_with(&product.data(), &key).is_empty(), "the search finds the key while it is there");

    let visitor = product.visitor();
    let mut h1 = visitor.connect(NAME).await.unwrap();
    h1.write_all(format!("GET / HTTP/1.1\r\nhost: {NAME}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(h1.read(&mut [0; 1024]).await.unwrap() > 0);
    let mut h2 = visitor.h2(NAME).await.unwrap();
    assert_eq!(read(h2.send_request(get_h2(NAME, "/")).await.unwrap()).await.unwrap().status, 200);
    let mut socket = visitor.connect(NAME).await.unwrap();
    let upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    socket.write_all(format!("GET /live HTTP/1.1\r\nhost: {NAME}\r\n{upgrade}\r\n\r\n").as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    let read_bytes = socket.read(&mut buffer).await.unwrap();
    assert!(String::from_utf8_lossy(&buffer[..read_bytes]).starts_with("HTTP/1.1 101"), "no tunnel");
    socket.write_all(b"over the tunnel").await.unwrap();
    socket.read_exact(&mut buffer[..15]).await.unwrap();
    assert_eq!(&buffer[..15], b"over the tunnel");

    let began = Instant::now();
    product.api(Method::DELETE, &format!("/v1/domains/{NAME}"), None).await.granted();
    let left = || GONE.saturating_sub(began.elapsed());
    until("the handshake is refused", left(), async || visitor.connect(NAME).await.err()).await;
    println!("handshake refused after {:?}", began.elapsed());
    tokio::time::timeout(left(), ends(&mut h1)).await.expect("the HTTP/1.1 connection ends");
    tokio::time::timeout(left(), async {
        while h2.ready().await.is_ok() && !h2.is_closed() {
            tokio::time::sleep(Duration::from_millis(20)).await
        }
    })
    .await
    .expect("the HTTP/2 connection ends");
    tokio::time::timeout(left(), ends(&mut socket)).await.expect("the tunnel ends");
    println!("connections ended after {:?}", began.elapsed());
    until("the API says removed", left(), async || (product.domain(NAME, "first").await["state"] == "removed").then_some(())).await;
    let SiteObject::Removed(tombstone) = site(&product) else { panic!("the bucket still holds the bundle") };
    assert!(tombstone.version > bundle.version);
    let what = format!("no file under {} holds the sealed key", product.data().display());
    until(&what, left(), async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let files = files_with(&product.data(), &key);
        if !files.is_empty() && left() < Duration::from_secs(1) {
            println!("the sealed key is still in {files:?}");
        }
        files.is_empty().then_some(())
    })
    .await;
    println!("sealed key gone after {:?}", began.elapsed());

    let records = product.register(NAME, "second").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waiting = product.domain(NAME, "second").await;
    assert_eq!(waiting["ready"], false, "the first tenant's record proves nothing for the second: {waiting}");
    product.set_dns(&records).await;
    product.served(NAME, Duration::from_secs(20)).await;
    assert_eq!(product.domain(NAME, "second").await["ready"], true);
    assert_eq!(product.domain(NAME, "first").await["state"], "removed");
    let mut again = product.visitor().h1(NAME).await.unwrap();
    assert_eq!(again.send_request(get(NAME, "/")).await.unwrap().status(), 200);
}
