//! A bucket as the source: a stand-in for S3 on loopback, and servers that answer as S3 does on a bad day.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use edge::{BucketPlace, BucketSource, Fetched, Source};

use crate::{
    bucket::Bucket,
    ministack::Ministack,
    never_backwards::{self, SHOP},
    program::Running,
    setup::{Setup, eventually},
};

/// A bucket in a stand-in for S3, which ends with it.
pub(crate) struct S3 {
    stand_in: Ministack,
    _folder: tempfile::TempDir,
}

const PLACE: &str = "s3://sites/eu";

fn sdk(endpoint: &str) -> SdkConfig {
    let anyone = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(anyone))
        .build()
}

fn source(endpoint: &str) -> BucketSource {
    BucketSource::new(BucketPlace::parse(PLACE).unwrap(), &sdk(endpoint))
}

impl S3 {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stand_in = Ministack::start(&folder.path().join("ministack.log"));
        let s3 = Self { stand_in, _folder: folder };
        s3.ask("PUT", "", b"");
        s3
    }

    pub(crate) fn source(&self) -> BucketSource {
        source(&self.stand_in.endpoint)
    }

    pub(crate) fn put(&self, object: &str, bytes: &[u8]) {
        self.ask("PUT", &format!("/eu/{object}"), bytes);
    }

    pub(crate) fn delete(&self, object: &str) {
        self.ask("DELETE", &format!("/eu/{object}"), b"");
    }

    /// The stand-in believes anyone, so the writer needs no SDK.
    fn ask(&self, method: &str, path: &str, body: &[u8]) {
        let address = self.stand_in.endpoint.strip_prefix("http://").unwrap();
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = body.len();
        let head = format!("{method} /sites{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(body).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_tells_absent_changed_and_too_large_apart() {
    let s3 = S3::start();
    let source = s3.source();
    assert_eq!(source.list_index().await.unwrap(), []);
    assert_eq!(source.get("sites/shop.brand.com.json", 10, None).await.unwrap(), Fetched::Absent);
    s3.put("index/0a.json", b"one");
    s3.put("index/0a.json.tmp", b"unfinished");
    s3.put("sites/shop.brand.com.json", b"not the index");
    let listed = source.list_index().await.unwrap();
    let [(0x0a, etag)] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!(source.get("index/0a.json", 10, Some(etag)).await.unwrap(), Fetched::Unchanged);

    s3.put("index/0a.json", b"two");
    let Fetched::Object { bytes, etag: moved } = source.get("index/0a.json", 10, Some(etag)).await.unwrap() else { panic!() };
    assert_eq!(&bytes[..], b"two");
    assert_ne!(&moved, etag);
    assert_eq!(source.list_index().await.unwrap(), [(0x0a, moved)]);

    s3.put("edge.json", &vec![b' '; 10 << 20]);
    let Fetched::Object { bytes, .. } = source.get("edge.json", 100, None).await.unwrap() else { panic!() };
    assert_eq!(bytes.len(), 101);

    let elsewhere = BucketSource::new(BucketPlace::parse("s3://nobodys").unwrap(), &sdk(&s3.stand_in.endpoint));
    assert_eq!(elsewhere.list_index().await.unwrap_err().object, "index/");
    elsewhere.get("edge.json", 10, None).await.expect_err("a bucket that is not there is not an object that is not there");
}

/// Answers every request alike and keeps what it was asked; one without an answer says nothing at all.
fn answering(answer: Option<&'static str>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
            kept.lock().unwrap().extend(lines.next().and_then(Result::ok));
            // The rest of the head; a GET has no body.
            lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
            match answer {
                Some(answer) => connection.write_all(answer.as_bytes()).unwrap(),
                None => silent.push(connection),
            }
        }
    });
    (endpoint, asked)
}

/// What S3, or whoever stands between, may say; none of it means that an object is absent.
const BAD_DAYS: &[(&str, &str)] = &[
    (
        "a role that may not read, or not list",
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/xml\r\nconnection: close\r\n\r\n<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
    ),
    (
        "a bucket that is not there",
        "HTTP/1.1 404 Not Found\r\ncontent-type: application/xml\r\nconnection: close\r\n\r\n<Error><Code>NoSuchBucket</Code><Message>no</Message></Error>",
    ),
    ("a proxy's page", "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>nothing here</html>"),
    ("a 404 without a word", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
    (
        "a busy bucket",
        "HTTP/1.1 503 Slow Down\r\ncontent-type: application/xml\r\nconnection: close\r\n\r\n<Error><Code>SlowDown</Code><Message>no</Message></Error>",
    ),
    ("an answer that ends early", "HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 100\r\nconnection: close\r\n\r\n<"),
    ("a page that is no listing and has no ETag", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_s3s_own_word_makes_an_object_absent() {
    for (day, answer) in BAD_DAYS {
        let (endpoint, asked) = answering(Some(answer));
        let source = source(&endpoint);
        let listed = source.list_index().await;
        assert!(listed.is_err(), "{day}: {listed:?}");
        let got = source.get("sites/shop.brand.com.json", 1_000, None).await;
        assert!(got.is_err(), "{day}: {got:?}");
        let asked = asked.lock().unwrap();
        assert!(asked.len() >= 2 && asked.iter().all(|line| line.starts_with("GET /sites/")), "{day}: the edge only reads: {asked:?}");
    }
    let (endpoint, _) = answering(Some(
        "HTTP/1.1 404 Not Found\r\ncontent-type: application/xml\r\nconnection: close\r\n\r\n<Error><Code>NoSuchKey</Code><Message>no</Message></Error>",
    ));
    assert_eq!(source(&endpoint).get("edge.json", 10, None).await.unwrap(), Fetched::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_never_answers_is_given_up() {
    let (endpoint, _) = answering(None);
    let began = Instant::now();
    source(&endpoint).get("edge.json", 10, None).await.expect_err("silence is no absence");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_bucket_each_bad_bundle_is_counted_and_the_last_good_one_stays() {
    never_backwards::bad_bundles(Setup::over_s3(S3::start(), &[SHOP]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_bucket_an_index_of_a_lower_generation_is_refused() {
    never_backwards::lower_generation(Setup::over_s3(S3::start(), &[SHOP]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_bucket_a_name_that_vanishes_without_a_tombstone_is_still_served() {
    never_backwards::vanished_index(Setup::over_s3(S3::start(), &[SHOP]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_serves_from_a_bucket_follows_it_and_outlives_it() {
    let setup = Setup::with(&[]).await;
    let s3 = S3::start();
    let endpoint = s3.stand_in.endpoint.clone();
    let mut bucket = Bucket::beside(Some(s3));
    bucket.put(SHOP, "acme", 1);
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("seal.json");
    fs::write(&key_file, bucket.seal_key_json()).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for (name, value) in [
        ("EDGE_HTTPS_LISTEN", "127.0.0.1:0"),
        ("EDGE_HTTP_LISTEN", "127.0.0.1:0"),
        ("EDGE_PRIVATE_LISTEN", "127.0.0.1:0"),
        ("EDGE_ORIGIN", &setup.origin.address.to_string()),
        ("EDGE_CACHE_DIR", folder.path().join("cache").to_str().unwrap()),
        ("EDGE_SOURCE_BUCKET", PLACE),
        ("EDGE_SEAL_KEYS", key_file.to_str().unwrap()),
        ("EDGE_POLL_INTERVAL", "200ms"),
        ("EDGE_DRAIN_TIMEOUT", "200ms"),
        ("EDGE_DRAIN_GRACE", "100ms"),
        ("EDGE_LOG_FORMAT", "json"),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ] {
        command.env(name, value);
    }
    let mut running = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let started = lines.by_ref().map(Result::unwrap).find(|line| line.contains("edge started")).unwrap();
    let started: serde_json::Value = serde_json::from_str(&started).unwrap();
    let https = started["https"].as_str().unwrap().parse().unwrap();
    let failed_reads = Arc::new(Mutex::new(0));
    let counted = failed_reads.clone();
    std::thread::spawn(move || {
        lines.map_while(Result::ok).filter(|line| line.contains("cannot read")).for_each(|_| *counted.lock().unwrap() += 1);
    });
    eventually("it serves", async || crate::client::served(https, SHOP).await.is_ok()).await;

    let later = bucket.put("later.brand.com", "acme", 1);
    eventually("it follows the index", async || crate::client::served(https, "later.brand.com").await.is_ok_and(|served| served == later))
        .await;

    bucket.end_s3();
    eventually("it notices that the bucket is gone", async || *failed_reads.lock().unwrap() > 0).await;
    assert!(crate::client::served(https, SHOP).await.is_ok(), "it outlives its bucket");
}

#[test]
fn the_program_holds_no_operation_of_s3_but_the_two_that_read() {
    // As it is loaded: what is kept for backtraces names functions that no longer exist.
    let folder = tempfile::tempdir().unwrap();
    let stripped = folder.path().join("edge");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(env!("CARGO_BIN_EXE_edge")).status();
    assert!(status.expect("`strip` comes with the C compiler").success());
    let program = fs::read(stripped).unwrap();
    let holds = |operation: &str| program.windows(operation.len()).any(|window| window == operation.as_bytes());
    for reads in ["GetObject", "ListObjectsV2"] {
        assert!(holds(reads), "{reads} is not found: the search finds nothing");
    }
    for writes in
        ["PutObject", "DeleteObject", "CopyObject", "CreateMultipartUpload", "CompleteMultipartUpload", "PutBucket", "CreateBucket"]
    {
        assert!(!holds(writes), "the edge could {writes}");
    }
}
