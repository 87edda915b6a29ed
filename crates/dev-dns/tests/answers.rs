//! The answers as they travel: real sockets, and a real resolver.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use dev_dns::{DevDns, Quirk, RecordType, Transport};
use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{DNSClass, RData, RecordType as WireType},
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use support::{PATIENCE, question, record, start, tcp, udp, udp_bytes, with_payload};
use tokio::{net::UdpSocket, time::timeout};

fn resolver(server: &DevDns) -> TokioResolver {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (server.dns_addr().port(), server.dns_addr().port());
    let servers = vec![NameServerConfig::new(server.dns_addr().ip(), true, vec![udp, tcp])];
    let config = ResolverConfig::from_name_servers(servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = PATIENCE;
    options.attempts = 1;
    options.case_randomization = true;
    builder.build().unwrap()
}

#[tokio::test]
async fn a_resolver_follows_a_customers_alias_through_the_operators_wildcard() {
    let server = start().await;
    let zone = server.zone();
    zone.set("*.t.edge.np.test", RecordType::A, &["127.0.0.7"]).unwrap();
    zone.set("shop.brand.test", RecordType::Cname, &["claim.t.edge.np.test"]).unwrap();
    zone.set("_proof.brand.test", RecordType::Txt, &["\"first \" \"second\"", "other"]).unwrap();
    let resolver = resolver(&server);

    let addresses: Vec<_> = resolver.lookup_ip("shop.brand.test.").await.unwrap().iter().collect();
    assert_eq!(addresses, ["127.0.0.7".parse::<std::net::IpAddr>().unwrap()]);
    let texts = resolver.lookup("_proof.brand.test.", WireType::TXT).await.unwrap();
    let texts: Vec<String> = texts.answers().iter().map(|record| record.data.to_string()).collect();
    assert_eq!(texts, ["first second", "other"]);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_resolver_tells_an_absent_name_from_a_name_without_such_data() {
    let server = start().await;
    let zone = server.zone();
    zone.set("_acme-challenge.shop.brand.test", RecordType::Txt, &["x"]).unwrap();
    let resolver = resolver(&server);

    let empty_non_terminal = resolver.lookup("shop.brand.test.", WireType::A).await.unwrap_err();
    assert!(empty_non_terminal.is_no_records_found() && !empty_non_terminal.is_nx_domain());
    let other_type = resolver.lookup("_acme-challenge.shop.brand.test.", WireType::A).await.unwrap_err();
    assert!(other_type.is_no_records_found() && !other_type.is_nx_domain());
    for absent in ["www.brand.test.", "www.unknown.test."] {
        assert!(resolver.lookup(absent, WireType::A).await.unwrap_err().is_nx_domain(), "{absent}");
    }
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn recursion_is_what_the_client_asks_for() {
    let server = start().await;
    let zone = server.zone();
    zone.set("shop.brand.test", RecordType::Cname, &["claim.t.edge.np.test"]).unwrap();
    zone.set("claim.t.edge.np.test", RecordType::Aaaa, &["::1"]).unwrap();

    let whole = udp(server.dns_addr(), &question("shop.brand.test.", WireType::AAAA, true)).await;
    assert_eq!(whole.answers.len(), 2);
    assert!(whole.metadata.authoritative && whole.metadata.recursion_available && whole.metadata.recursion_desired);
    let own_zone = udp(server.dns_addr(), &question("shop.brand.test.", WireType::AAAA, false)).await;
    assert_eq!(own_zone.answers.len(), 1);
    assert!(matches!(&own_zone.answers[0].data, RData::CNAME(target) if target.to_string() == "claim.t.edge.np.test."));

    let unknown = |recursion| question("www.unknown.example.", WireType::A, recursion);
    assert_eq!(udp(server.dns_addr(), &unknown(false)).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(udp(server.dns_addr(), &unknown(true)).await.metadata.response_code, ResponseCode::NXDomain);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_into_the_clients_datagram_comes_over_tcp() {
    let server = start().await;
    let texts: Vec<String> = (0..20).map(|n| format!("{n:0100}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    server.zone().set("big.brand.test", RecordType::Txt, &texts).unwrap();
    let plain = question("big.brand.test.", WireType::TXT, false);

    for (asked, limit) in [(plain.clone(), 512), (with_payload(plain.clone(), 1232), 1232)] {
        let datagram = udp_bytes(server.dns_addr(), &asked.to_vec().unwrap()).await;
        let truncated = Message::from_vec(&datagram).unwrap();
        assert!(truncated.metadata.truncation && datagram.len() <= limit);
        assert_eq!((truncated.answers.len(), truncated.edns.is_some()), (0, asked.edns.is_some()));
    }
    let roomy = udp(server.dns_addr(), &with_payload(plain.clone(), 4096)).await;
    assert_eq!((roomy.metadata.truncation, roomy.answers.len()), (false, 20));
    let whole = tcp(server.dns_addr(), &plain).await;
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 20));

    let found = resolver(&server).lookup("big.brand.test.", WireType::TXT).await.unwrap();
    assert_eq!(found.answers().len(), 20);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn glue_gives_way_before_the_answer_does() {
    let server = start().await;
    let zone = server.zone();
    let servers: Vec<String> = (0..12).map(|n| format!("ns{n:02}.brand.test")).collect();
    let addresses: Vec<String> = (1..=4).map(|n| format!("127.0.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    zone.set("brand.test", RecordType::Ns, &servers.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    zone.set_all(servers.iter().map(|name| record(name, RecordType::A, &addresses)).collect()).unwrap();

    let asked = question("brand.test.", WireType::NS, false);
    let small = udp(server.dns_addr(), &asked).await;
    assert_eq!((small.metadata.truncation, small.answers.len(), small.additionals.len()), (false, 12, 0));
    assert_eq!(tcp(server.dns_addr(), &asked).await.additionals.len(), 48);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_question_comes_back_in_the_very_letters_it_was_asked_in() {
    let server = start().await;
    server.zone().set("Shop.Brand.test", RecordType::A, &["127.0.0.1"]).unwrap();
    let asked = question("sHoP.bRaNd.TeSt.", WireType::A, true);
    let answer = udp(server.dns_addr(), &asked).await;
    assert!(answer.queries[0].name().eq_case(asked.queries[0].name()));
    assert!(answer.answers[0].name.eq_case(asked.queries[0].name()));
    assert_eq!(answer.metadata.id, asked.metadata.id);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn requests_that_are_no_questions_get_the_code_that_says_so() {
    let server = start().await;
    server.zone().set("shop.brand.test", RecordType::A, &["127.0.0.1"]).unwrap();
    let plain = question("shop.brand.test.", WireType::A, false);
    let code = async |request: &Message| udp(server.dns_addr(), request).await.metadata.response_code;

    let mut chaos = plain.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos).await, ResponseCode::Refused);
    let mut transfer = plain.clone();
    transfer.queries[0].set_query_type(WireType::AXFR);
    assert_eq!(code(&transfer).await, ResponseCode::Refused);
    let mut notify = plain.clone();
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&notify).await, ResponseCode::NotImp);
    let mut two = plain.clone();
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two).await, ResponseCode::FormErr);
    let mut newer = with_payload(plain.clone(), 1232);
    newer.edns.as_mut().unwrap().set_version(1);
    // The number 16 is BADVERS in an OPT record and BADSIG in a TSIG record; reading it back cannot tell.
    assert_eq!(u16::from(code(&newer).await), u16::from(ResponseCode::BADVERS));

    let mut broken = plain.to_vec().unwrap();
    broken.truncate(broken.len() - 3);
    let answer = Message::from_vec(&udp_bytes(server.dns_addr(), &broken).await).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(code(&plain).await, ResponseCode::NoError, "and it still answers");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn quirks_change_the_answer_until_they_are_cleared() {
    let server = start().await;
    let zone = server.zone();
    zone.set("shop.brand.test", RecordType::Cname, &["target.edge.np.test"]).unwrap();
    zone.set("target.edge.np.test", RecordType::A, &["127.0.0.1"]).unwrap();
    let asked = question("shop.brand.test.", WireType::A, true);
    let answer = async || udp(server.dns_addr(), &asked).await;

    for (rcode, code) in [("servfail", ResponseCode::ServFail), ("REFUSED", ResponseCode::Refused), ("9", ResponseCode::NotAuth)] {
        zone.quirk(Quirk { name: "Shop.brand.test.".into(), rcode: Some(rcode.into()), ..Quirk::default() }).unwrap();
        let changed = answer().await;
        assert_eq!((changed.metadata.response_code, changed.answers.len()), (code, 0));
    }
    assert_eq!(zone.clear_quirks(Some("shop.brand.test")).unwrap(), 1);
    assert_eq!(answer().await.answers.len(), 2);

    let on_target = Quirk { name: "target.edge.np.test".into(), rcode: Some("SERVFAIL".into()), ..Quirk::default() };
    zone.quirk(Quirk { record_type: Some(RecordType::Caa), ..on_target.clone() }).unwrap();
    assert_eq!(answer().await.metadata.response_code, ResponseCode::NoError, "the quirk is for another type");
    zone.quirk(on_target).unwrap();
    assert_eq!(answer().await.metadata.response_code, ResponseCode::ServFail, "the quirk of an alias's target counts");
    assert_eq!(zone.clear_quirks(None).unwrap(), 2);

    zone.quirk(Quirk { name: "shop.brand.test".into(), truncate_udp: true, ..Quirk::default() }).unwrap();
    let truncated = answer().await;
    assert_eq!((truncated.metadata.truncation, truncated.answers.len()), (true, 0));
    assert_eq!(tcp(server.dns_addr(), &asked).await.answers.len(), 2);

    let delay = Duration::from_millis(150);
    zone.quirk(Quirk { name: "shop.brand.test".into(), delay_ms: Some(150), ..Quirk::default() }).unwrap();
    let started = Instant::now();
    assert_eq!(answer().await.answers.len(), 2);
    assert!(started.elapsed() >= delay);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_dropped_question_gets_no_answer_while_others_do() {
    let server = start().await;
    let zone = server.zone();
    zone.set("shop.brand.test", RecordType::A, &["127.0.0.1"]).unwrap();
    zone.quirk(Quirk { name: "silent.brand.test".into(), drop: true, ..Quirk::default() }).unwrap();

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.dns_addr()).await.unwrap();
    let mut silent = question("silent.brand.test.", WireType::A, true);
    silent.metadata.id = 1;
    socket.send(&silent.to_vec().unwrap()).await.unwrap();
    socket.send(&question("shop.brand.test.", WireType::A, true).to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 512];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().metadata.id, 4711);
    let more = timeout(Duration::from_millis(100), socket.recv(&mut buffer)).await;
    assert!(more.is_err(), "the dropped question was answered");
    assert_eq!(zone.queries().dropped, 1);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn every_question_is_counted_and_the_last_ones_can_be_read() {
    let server = start().await;
    let zone = server.zone();
    zone.set("shop.brand.test", RecordType::A, &["127.0.0.1"]).unwrap();
    udp(server.dns_addr(), &question("SHOP.brand.test.", WireType::A, true)).await;
    tcp(server.dns_addr(), &question("absent.brand.test.", WireType::CAA, false)).await;

    let seen = zone.queries();
    assert_eq!((seen.total, seen.udp, seen.tcp), (2, 1, 1));
    assert_eq!(seen.rcodes.iter().map(|(code, count)| (code.as_str(), *count)).collect::<Vec<_>>(), [("NOERROR", 1), ("NXDOMAIN", 1)]);
    let last = &seen.queries[1];
    assert_eq!((last.name.as_str(), last.record_type.as_str(), last.transport), ("absent.brand.test", "CAA", Transport::Tcp));
    assert!(!last.recursion_desired);
    let one = zone.queries_for("shop.brand.test.");
    assert_eq!((one.queries.len(), one.queries[0].name.as_str(), one.total), (1, "SHOP.brand.test", 2));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_burst_of_questions_from_one_client_loses_no_answer() {
    let server = start().await;
    let names: Vec<String> = (0..100).map(|n| format!("h{n}.brand.test")).collect();
    server.zone().set_all(names.iter().map(|name| record(name, RecordType::A, &["127.0.0.1"])).collect()).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.dns_addr()).await.unwrap();
    for (id, name) in names.iter().enumerate() {
        let mut asked = question(name, WireType::A, true);
        asked.metadata.id = id.try_into().unwrap();
        socket.send(&asked.to_vec().unwrap()).await.unwrap();
    }
    let mut ids = std::collections::BTreeSet::new();
    let mut buffer = [0; 512];
    while ids.len() < names.len() {
        let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("all answers in time").unwrap();
        ids.insert(Message::from_vec(&buffer[..length]).unwrap().metadata.id);
    }
    server.shutdown().await.unwrap();
}
