//! Origins that are busy, or say that they did not look at a request: whose fault it is, and what is tried again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use edge::config::OriginProtocol;
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    client::{self, SOON},
    raw_h2::{self, frame},
    setup::Setup,
};

const SHOP: &str = "shop.brand.com";

/// What an HTTP/2 origin does with a request.
#[derive(Clone, Copy)]
enum Does {
    Answers,
    /// Resets the stream, with this code.
    Resets(u8),
    /// Takes no more on this connection, and has not taken this one.
    Leaves,
    /// Answers, and says that it will leave; what is on its way it takes. Source: RFC 9113, section 6.8.
    IsToLeave,
}

const REFUSED_STREAM: u8 = 7;
const INTERNAL_ERROR: u8 = 2;

/// An origin that does one thing after the other, over all its connections, and answers once it is through.
struct Moody {
    address: SocketAddr,
    /// Connections that began to speak HTTP/2, and requests over all of them.
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Moody {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Moody {
    async fn start(script: &'static [Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let [connections, requests] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (seen, of_all) = (Arc::clone(&connections), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, script, Arc::clone(&seen), Arc::clone(&of_all)));
            }
        });
        Self { address, connections, requests, task }
    }

    fn seen(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.requests.load(Ordering::SeqCst))
    }
}

fn ok(stream: u32) -> Vec<u8> {
    // `:status: 200` of the static table.
    frame(raw_h2::HEADERS, raw_h2::END_HEADERS | raw_h2::END_STREAM, stream, &[0x88])
}

/// Serves one connection; `None` is its end.
async fn serve(mut socket: TcpStream, script: &[Does], connections: Arc<AtomicUsize>, requests: Arc<AtomicUsize>) -> Option<()> {
    socket.read_exact(&mut [0; 24]).await.ok()?;
    connections.fetch_add(1, Ordering::SeqCst);
    socket.write_all(&frame(raw_h2::SETTINGS, 0, 0, b"")).await.ok()?;
    loop {
        let (kind, flags, stream, _) = raw_h2::read(&mut socket).await?;
        let said = match kind {
            raw_h2::SETTINGS if flags & raw_h2::ACK == 0 => frame(raw_h2::SETTINGS, raw_h2::ACK, 0, b""),
            raw_h2::HEADERS => match script.get(requests.fetch_add(1, Ordering::SeqCst)).unwrap_or(&Does::Answers) {
                Does::Answers => ok(stream),
                Does::Resets(code) => frame(raw_h2::RST_STREAM, 0, stream, &[0, 0, 0, *code]),
                Does::Leaves => frame(raw_h2::GOAWAY, 0, 0, &[0; 8]),
                Does::IsToLeave => [frame(raw_h2::GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]), ok(stream)].concat(),
            },
            _ => continue,
        };
        socket.write_all(&said).await.ok()?;
    }
}

async fn in_front_of(origin: &Moody) -> Setup {
    let address = origin.address.to_string();
    Setup::configured(&[SHOP], |config| {
        config.origin = address;
        config.origin_protocol = OriginProtocol { tls: None, http2: true };
    })
    .await
}

async fn ask(setup: &Setup, method: &str, body: &'static str) -> StatusCode {
    let request = Request::builder().method(method).uri("/").header("host", SHOP).body(client::full(body)).unwrap();
    let mut sender = client::h1(setup.https(), SHOP).await;
    timeout(SOON, sender.send_request(request)).await.expect("an answer in time").unwrap().status()
}

#[tokio::test]
async fn a_request_that_the_origin_did_not_look_at_is_sent_once_more_whatever_its_method() {
    for (refusal, connections) in [(Does::Resets(REFUSED_STREAM), 1), (Does::Leaves, 2)] {
        let script: &'static [Does] = Box::leak(Box::new([refusal, Does::Answers, refusal]));
        let origin = Moody::start(script).await;
        let setup = in_front_of(&origin).await;
        assert_eq!(ask(&setup, "GET", "").await, StatusCode::OK);
        assert_eq!(origin.seen(), (connections, 2));
        assert_eq!(ask(&setup, "POST", "").await, StatusCode::OK);
        assert_eq!(origin.seen().1, 4);
    }
}

/// A GOAWAY meets requests that are being sent, on connections that many share; those that the origin takes are not sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_leaves_under_load_is_sent_nothing_twice() {
    const ASKING: usize = 8;
    const EACH: usize = 100;
    const SCRIPT: [Does; 2 * ASKING * EACH] = {
        let mut script = [Does::Answers; _];
        let mut last = 9;
        while last < script.len() {
            script[last] = Does::IsToLeave;
            last += 10;
        }
        script
    };
    let origin = Moody::start(&SCRIPT).await;
    let setup = in_front_of(&origin).await;
    let asking = (0..ASKING).map(|_| {
        let https = setup.https();
        tokio::spawn(async move {
            let mut sender = client::h1(https, SHOP).await;
            let (mut answered, mut refused) = (0, 0);
            for _ in 0..EACH {
                let request = Request::post("/").header("host", SHOP).body(client::full("")).unwrap();
                let answer = timeout(SOON, sender.send_request(request)).await.expect("an answer in time").unwrap();
                match answer.status() {
                    StatusCode::OK => answered += 1,
                    StatusCode::SERVICE_UNAVAILABLE => refused += 1,
                    status => panic!("{status}"),
                }
                client::text(answer).await;
            }
            (answered, refused)
        })
    });
    let counts = futures_util::future::join_all(asking).await.into_iter().map(Result::unwrap);
    let (answered, refused) = counts.reduce(|(a, b), (c, d)| (a + c, b + d)).unwrap();
    // Two connections in a row may have been about to leave.
    assert!(refused < ASKING * EACH / 10, "{refused} refused");
    assert_eq!((origin.seen().1, answered + refused), (answered, ASKING * EACH));
}

#[tokio::test]
async fn what_is_refused_twice_or_cannot_be_sent_again_is_the_clients_to_repeat() {
    let script = &[Does::Resets(REFUSED_STREAM); 3];
    let origin = Moody::start(script).await;
    let setup = in_front_of(&origin).await;
    assert_eq!(ask(&setup, "GET", "").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(origin.seen(), (1, 2));
    // The origin may have had a part of the body; nobody has it any more.
    assert_eq!(ask(&setup, "PUT", "body").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(origin.seen(), (1, 3));
    assert_eq!(setup.metric("nameplate_edge_requests_refused_total{reason=\"origin_refused\"}"), 2);
    assert_eq!(ask(&setup, "GET", "").await, StatusCode::OK);
}

#[tokio::test]
async fn a_request_that_failed_within_the_origin_is_not_repeated_and_its_connection_serves_on() {
    let origin = Moody::start(&[Does::Answers, Does::Resets(INTERNAL_ERROR)]).await;
    let setup = in_front_of(&origin).await;
    assert_eq!(ask(&setup, "GET", "").await, StatusCode::OK);
    assert_eq!(ask(&setup, "GET", "").await, StatusCode::BAD_GATEWAY);
    assert_eq!(ask(&setup, "GET", "").await, StatusCode::OK);
    assert_eq!(origin.seen(), (1, 3));
}

#[tokio::test]
async fn whoever_waits_for_a_connection_to_the_origin_gets_the_next_one_that_is_given_back() {
    let setup = Setup::configured(&[SHOP], |config| {
        config.limits.max_origin_connections = 1;
        // Longer than all of them take one after the other, however busy the machine is.
        config.limits.origin_connect = Duration::from_secs(30);
    })
    .await;
    let asking = (0..3).map(|_| client::fetch(setup.https(), SHOP, "/slow"));
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!(client::text(answer).await, "slow");
    }
    // The look when the edge started is the other one.
    assert!(setup.origin.connections.load(Ordering::SeqCst) <= 2);
}
