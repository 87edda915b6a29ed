//! What the tests of this crate ask with: raw DNS messages, and plain HTTP.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

use std::{net::SocketAddr, time::Duration};

use dev_dns::{Config, DevDns, Record, RecordType};
use hickory_proto::{
    op::{DnsResponse, Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RecordType as WireType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// Longer than any answer on loopback takes.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A server with an operator's zone, both listeners on free ports.
pub async fn start() -> DevDns {
    DevDns::start(config()).await.unwrap()
}

pub fn config() -> Config {
    Config { admin: Some(([127, 0, 0, 1], 0).into()), apexes: vec!["edge.np.test".into()], ..Config::default() }
}

pub fn record(name: &str, record_type: RecordType, data: &[&str]) -> Record {
    Record { name: name.into(), record_type, ttl: None, data: data.iter().map(|&text| text.into()).collect() }
}

/// A question whose letters stay as written.
pub fn question(name: &str, record_type: WireType, recursion_desired: bool) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = recursion_desired;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

pub fn with_payload(mut message: Message, max_payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(max_payload);
    message.set_edns(edns);
    message
}

/// Asks over UDP; returns the datagram too.
pub async fn udp_bytes(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(request, server).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let (length, from) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.expect("an answer in time").unwrap();
    assert_eq!(from, server);
    buffer.truncate(length);
    buffer
}

pub async fn udp(server: SocketAddr, request: &Message) -> Message {
    read(&udp_bytes(server, &request.to_vec().unwrap()).await)
}

pub async fn tcp(server: SocketAddr, request: &Message) -> Message {
    let request = request.to_vec().unwrap();
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(request.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let length = timeout(PATIENCE, stream.read_u16()).await.expect("an answer in time").unwrap();
    let mut answer = vec![0; length.into()];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("a whole answer in time").unwrap();
    read(&answer)
}

fn read(answer: &[u8]) -> Message {
    DnsResponse::from_buffer(answer.to_vec()).unwrap().into_message()
}

/// One HTTP exchange: status, content type, body.
pub async fn http(server: SocketAddr, method: &str, target: &str, body: &str) -> (u16, String, serde_json::Value) {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {}\r\n", body.len());
    http_raw(server, &format!("{head}Connection: close\r\n\r\n{body}")).await
}

pub async fn http_raw(server: SocketAddr, request: &str) -> (u16, String, serde_json::Value) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut response)).await.expect("a response in time").unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    (status, content_type.unwrap_or_default(), serde_json::from_str(body).unwrap_or(serde_json::Value::Null))
}
