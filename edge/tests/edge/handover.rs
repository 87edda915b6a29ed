//! The program leaves on SIGTERM while clients of every kind open connections throughout: none is refused, nothing fails.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::{
    bucket::Bucket,
    client,
    never_backwards::SHOP,
    origin::Origin,
    program::Process,
    setup::eventually,
    visitors::{Load, Socket},
};

/// What a busy machine may add to the bound, which the program keeps by its own clock.
const BUSY: Duration = Duration::from_secs(20);

/// The lines of an access log that tell of a request for `path` answered with `status`.
fn lines(log: &Path, path: &str, status: u16) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(log).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["path"] == path && line["status"] == status).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_told_to_leave_hands_over_to_one_with_an_empty_disk_and_nobody_notices() {
    let (bucket, origin, logs) = (Bucket::new(), Origin::start().await, tempfile::tempdir().unwrap());
    bucket.put(SHOP, "acme", 1);
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let https = held.local_addr().unwrap();
    // What is open ends when this test ends it, however long that takes here.
    let bound = Duration::from_secs(62);
    let [old_log, new_log] = ["old", "new"].map(|name| logs.path().join(name));
    let start = async |log: &Path| {
        let log = log.to_str().unwrap();
        // A busy machine may keep a client from its first request for longer than a quiet connection stays open otherwise.
        let linger = ("EDGE_DRAIN_LINGER", "30s");
        let drain = [("EDGE_DRAIN_TIMEOUT", "62s"), ("EDGE_DRAIN_GRACE", "60s"), linger];
        let env = [&drain[..], &[("EDGE_UPLOAD_STALL", "10m"), ("EDGE_ACCESS_LOG", log)]].concat();
        Process::start_on(&held, &bucket, &origin, &env).await
    };
    let old = start(&old_log).await;
    let mut load = Load::start(https);
    load.goes_on("at the old one", 10).await;

    // Open at the old one, from before there is another, until after it was told to leave.
    let mut socket = Socket::open(client::connect(https, SHOP).await.unwrap()).await.unwrap();
    let (pieces, upload) = mpsc::channel::<Bytes>(1);
    let pieces_sent =
        futures_util::stream::unfold(upload, async |mut upload| upload.recv().await.map(|piece| (Ok(Frame::data(piece)), upload)));
    let body: client::Body = StreamBody::new(Box::pin(pieces_sent)).boxed();
    let mut sender = client::h2(https, SHOP).await;
    let mirrored = sender.send_request(Request::post(format!("https://{SHOP}/mirror")).body(body).unwrap());
    let (mirrored, _) = tokio::join!(mirrored, pieces.send(Bytes::from_static(b"before ")));
    socket.say(b"before").await.unwrap();

    let new = start(&new_log).await;
    load.goes_on("at both", 5).await;
    let began = Instant::now();
    old.terminate();
    eventually("the old one is not ready", async || old.readiness().await.starts_with("HTTP/1.1 503 ")).await;
    load.goes_on("while it drains", 5).await;
    socket.say(b"while it drains").await.unwrap();
    socket.close().await.unwrap();
    pieces.send(Bytes::from_static(b"after")).await.unwrap();
    drop(pieces);
    assert_eq!(client::text(mirrored.unwrap()).await, "before after");
    assert_eq!(old.ended().await.code(), Some(0));
    let took = began.elapsed();
    assert!(took < bound + BUSY, "{took:?}");
    load.goes_on("at the new one", 10).await;
    load.stop().await;
    new.terminate();
    assert_eq!(new.ended().await.code(), Some(0));

    // Neither the clients nor the two logs miss anything of what the others saw.
    let logged = |path: &str, status: u16| lines(&old_log, path, status).len() + lines(&new_log, path, status).len();
    let ([_, _, sockets], [http1, http2, _]) = (load.connections(), load.answers());
    assert_eq!(logged("/echo", 200), http1 + http2);
    assert_eq!(logged("/socket", 101), sockets + 1);
    assert_eq!(lines(&old_log, "/mirror", 200).len(), 1);
    let longest = lines(&old_log, "/socket", 101).into_iter().find(|line| line["bytes"] == "before".len() + "while it drains".len());
    assert!(longest.is_some_and(|line| line["bytes_received"] == line["bytes"]));
    eprintln!("left {took:?} after SIGTERM; {:?} connections, {:?} answers, none refused, none failed", load.connections(), load.answers());
}

/// As behind a load balancer: it goes on sending connections until it has seen that the target is not ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_told_to_leave_accepts_for_as_long_as_a_load_balancer_may_send() {
    let (bucket, origin) = (Bucket::new(), Origin::start().await);
    bucket.put(SHOP, "acme", 1);
    let bound = Duration::from_secs(9);
    let process = Process::start(&bucket, &origin, &[("EDGE_DRAIN_TIMEOUT", "9s"), ("EDGE_DRAIN_GRACE", "2s")], None).await;
    let mut load = Load::start(process.https);
    load.goes_on("before the signal", 10).await;
    let began = Instant::now();
    process.terminate();
    eventually("it is not ready", async || process.readiness().await.starts_with("HTTP/1.1 503 ")).await;
    load.goes_on("during the deregistration delay", 3).await;
    load.stop().await;
    assert_eq!(process.ended().await.code(), Some(0));
    let took = began.elapsed();
    assert!((Duration::from_secs(7)..bound + BUSY).contains(&took), "{took:?}");
    eprintln!("left {took:?} after SIGTERM; {:?} connections, {:?} answers, none refused, none failed", load.connections(), load.answers());
}
