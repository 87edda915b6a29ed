//! The zone as resolvers and CAs meet it, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, RwLock},
    time::Duration,
};

use answers::{AnswerServer, Config, Held};
use domains::Hostname;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

const ZONE: &str = "acme.edge.saas.net";

type Book = Arc<RwLock<BTreeMap<String, BTreeSet<String>>>>;

async fn started() -> (AnswerServer, Book) {
    let book = Book::default();
    let read = book.clone();
    let reader = Arc::new(move |name: &str| {
        let book = read.read().unwrap();
        let below = format!(".{name}");
        Held {
            values: book.get(name).into_iter().flatten().cloned().collect(),
            has_below: book.keys().any(|known| known.ends_with(&below)),
        }
    });
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        zone: Hostname::parse_name(ZONE).unwrap(),
        addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
    };
    (AnswerServer::start(config, reader).await.unwrap(), book)
}

fn put(book: &Book, name: &str, value: &str) {
    book.write().unwrap().entry(name.to_owned()).or_default().insert(value.to_owned());
}

fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut asked = Query::query(Name::from_ascii(name).unwrap(), record_type);
    asked.set_query_class(DNSClass::IN);
    message.add_query(asked);
    message
}

async fn over_udp(server: &AnswerServer, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&message.to_vec().unwrap(), server.address()).await.unwrap();
    let mut buffer = [0; 4096];
    let read = timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    Message::from_vec(&buffer[..read]).unwrap()
}

async fn over_tcp(server: &AnswerServer, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let bytes = message.to_vec().unwrap();
    stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = timeout(Duration::from_secs(5), stream.read_u16()).await.expect("an answer").unwrap();
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn texts(message: &Message) -> Vec<String> {
    let text = |data: &RData| match data {
        RData::TXT(txt) => Some(String::from_utf8(txt.txt_data.concat()).unwrap()),
        _ => None,
    };
    message.answers.iter().filter_map(|record| text(&record.data)).collect()
}

#[tokio::test]
async fn several_answers_stand_at_one_name_over_both_transports_with_authority() {
    let (server, book) = started().await;
    let name = format!("c1.{ZONE}");
    put(&book, &name, "of-the-apex");
    put(&book, &name, "of-the-wildcard");
    for answer in [
        over_udp(&server, &query(&format!("{name}."), RecordType::TXT)).await,
        over_tcp(&server, &query(&format!("{name}."), RecordType::TXT)).await,
    ] {
        assert!(answer.metadata.authoritative && !answer.metadata.recursion_available);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(texts(&answer), ["of-the-apex", "of-the-wildcard"]);
    }
    book.write().unwrap().clear();
    let gone = over_udp(&server, &query(&format!("{name}."), RecordType::TXT)).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain, "what is withdrawn is gone at once");
}

#[tokio::test]
async fn what_is_not_there_is_denied_with_the_soa_record_and_by_the_right_code() {
    let (server, book) = started().await;
    put(&book, &format!("a.b.{ZONE}"), "value");
    for (name, record_type, code) in [
        ("a.b", RecordType::A, ResponseCode::NoError),
        ("b", RecordType::TXT, ResponseCode::NoError),
        ("c", RecordType::TXT, ResponseCode::NXDomain),
        ("x.a.b", RecordType::TXT, ResponseCode::NXDomain),
        ("ns1", RecordType::TXT, ResponseCode::NoError),
    ] {
        let answer = over_udp(&server, &query(&format!("{name}.{ZONE}."), record_type)).await;
        assert_eq!(answer.metadata.response_code, code, "{name} {record_type}");
        assert!(answer.metadata.authoritative && answer.answers.is_empty(), "{name} {record_type}");
        let denial = &answer.authorities[0];
        assert_eq!(denial.record_type(), RecordType::SOA, "{name} {record_type}");
        assert!(denial.ttl <= 5, "an absence may be remembered for {} s only", denial.ttl);
    }
}

#[tokio::test]
async fn the_zone_names_its_server_with_its_addresses() {
    let (server, _) = started().await;
    let servers = over_udp(&server, &query(&format!("{ZONE}."), RecordType::NS)).await;
    assert!(matches!(&servers.answers[0].data, RData::NS(ns) if ns.0.to_ascii() == format!("ns1.{ZONE}.")));
    assert_eq!(servers.additionals.iter().filter(|record| record.data.ip_addr().is_some()).count(), 2);
    let soa = over_udp(&server, &query(&format!("{ZONE}."), RecordType::SOA)).await;
    assert_eq!(soa.answers[0].record_type(), RecordType::SOA);
    let address = over_udp(&server, &query(&format!("ns1.{ZONE}."), RecordType::AAAA)).await;
    assert_eq!(address.answers[0].data.ip_addr(), Some("2001:db8::7".parse().unwrap()));
}

#[tokio::test]
async fn everything_outside_the_zone_and_every_other_request_is_refused() {
    let (server, _) = started().await;
    for name in ["edge.saas.net.", "brand.com.", "acme.edge.saas.net.evil.com.", "."] {
        let answer = over_udp(&server, &query(name, RecordType::TXT)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{name}");
        assert!(!answer.metadata.authoritative && answer.answers.is_empty() && answer.authorities.is_empty());
    }
    let transfer = over_tcp(&server, &query(&format!("{ZONE}."), RecordType::AXFR)).await;
    assert_eq!(transfer.metadata.response_code, ResponseCode::Refused);
    let mut chaos = query(&format!("{ZONE}."), RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(over_udp(&server, &chaos).await.metadata.response_code, ResponseCode::Refused);
    let mut update = query(&format!("{ZONE}."), RecordType::SOA);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(over_udp(&server, &update).await.metadata.response_code, ResponseCode::NotImp);
}

#[tokio::test]
async fn questions_keep_their_letters_and_edns_its_limits() {
    let (server, book) = started().await;
    let name = format!("c1.{ZONE}");
    put(&book, &name, "value");
    let mixed = "C1.aCmE.EdGe.SaAs.NeT.";
    let mut message = query(mixed, RecordType::TXT);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.edns = Some(edns);
    let answer = over_udp(&server, &message).await;
    assert_eq!(answer.queries[0].name().to_ascii(), mixed);
    assert_eq!(answer.answers[0].name.to_ascii(), mixed);
    assert_eq!(answer.edns.as_ref().unwrap().max_payload(), 1232);

    // More than a datagram holds: come over TCP.
    for number in 0..20 {
        put(&book, &name, &format!("{number:02}{}", "x".repeat(300)));
    }
    let cut = over_udp(&server, &message).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = over_tcp(&server, &message).await;
    assert_eq!(texts(&whole).len(), 21);
    assert!(texts(&whole).iter().any(|text| text.len() == 302), "a long value comes back in one piece");
}
