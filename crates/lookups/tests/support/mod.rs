//! A small world of DNS on loopback: a resolver, the zone's servers, and looks at both.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dev_dns::{Config, DevDns, Quirk, RecordType};
use domains::{
    CaChoice, CaaIssuer, ClaimId, DelegationSubject, Finding, Hostname, HostnamePolicy, Judgement, Look, LookSubject, OwnershipLookup,
    OwnershipToken, judge,
};
use hickory_proto::op::{Message, MessageType};
use lookups::{LookupConfig, Lookups};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

pub(crate) const EDGE: &str = "198.51.100.10";

/// The CA as CAA records name it, and our account there.
pub(crate) const CA: &str = "ca.test";
pub(crate) const ACCOUNT: &str = "https://ca.test/acct/7";

/// What the claim of this tenant on this name expects.
pub(crate) fn claim(hostname: &str, tenant: &str) -> LookSubject {
    let policy = HostnamePolicy { allowed_special_use: vec!["test".into()], tenant_wildcards: true, ..HostnamePolicy::default() };
    let hostname = Hostname::parse(hostname, &policy).unwrap();
    LookSubject {
        claim_id: ClaimId::parse(&format!("claim{tenant}")).unwrap(),
        routing_target: format!("claim{tenant}.t.edge.test"),
        targets_zone: "t.edge.test".into(),
        txt_name: format!("_nameplate.{}", hostname.base()),
        token: OwnershipToken::parse(&format!("np-token-of-{tenant}")).unwrap(),
        edge_addresses: vec![EDGE.parse().unwrap(), "2001:db8::10".parse().unwrap()],
        issuers: vec![CaaIssuer {
            ca: CaChoice::First,
            identities: vec![CA.into()],
            account_uri: Some(ACCOUNT.into()),
            methods: vec!["http-01".into(), "dns-01".into()],
        }],
        proved: false,
        delegation: Some(DelegationSubject {
            name: format!("_acme-challenge.{}", hostname.base()),
            target: format!("claim{tenant}.acme.edge.test"),
            answers_zone: "acme.edge.test".into(),
            wanted: hostname.is_wildcard(),
        }),
        hostname,
    }
}

/// A resolver, and, apart from it, the servers of `brand.test`: what one knows the other need not.
pub(crate) struct World {
    pub(crate) resolver: DevDns,
    pub(crate) servers: Vec<DevDns>,
    pub(crate) port: u16,
}

impl World {
    /// One server that is resolver and authority at once.
    pub(crate) async fn of_one() -> Self {
        let resolver = start((Ipv4Addr::LOCALHOST, 0).into()).await;
        let port = resolver.dns_addr().port();
        Self { resolver, servers: Vec::new(), port }
    }

    /// A resolver with its own idea of the zone, and so many servers of the zone.
    pub(crate) async fn with_servers(count: u8) -> Self {
        let resolver = start((Ipv4Addr::LOCALHOST, 0).into()).await;
        let mut servers = vec![start((Ipv4Addr::new(127, 0, 0, 2), 0).into()).await];
        let port = servers[0].dns_addr().port();
        for n in 1..count {
            servers.push(start((Ipv4Addr::new(127, 0, 0, 2 + n), port).into()).await);
        }
        let world = Self { resolver, servers, port };
        let names: Vec<String> = (1..=count).map(|n| format!("ns{n}.brand.test")).collect();
        world.resolver.zone().set("brand.test", RecordType::Ns, &names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        for (n, name) in names.iter().enumerate() {
            world.resolver.zone().set(name, RecordType::A, &[&format!("127.0.0.{}", n + 2)]).unwrap();
        }
        for server in &world.servers {
            // So that the zone is there even while the hostname is not.
            server.zone().set("mail.brand.test", RecordType::A, &["192.0.2.25"]).unwrap();
        }
        world
    }

    /// A resolver, and a zone whose one server does as it is told.
    pub(crate) async fn with_puppet(puppet: &Puppet) -> Self {
        let resolver = start((Ipv4Addr::LOCALHOST, 0).into()).await;
        resolver.zone().set("brand.test", RecordType::Ns, &["ns1.brand.test"]).unwrap();
        resolver.zone().set("ns1.brand.test", RecordType::A, &[&puppet.address.ip().to_string()]).unwrap();
        Self { resolver, servers: Vec::new(), port: puppet.address.port() }
    }

    /// Puts a record where everybody sees it.
    pub(crate) fn everywhere(&self, name: &str, record_type: RecordType, data: &[&str]) {
        for server in self.servers.iter().chain([&self.resolver]) {
            server.zone().set(name, record_type, data).unwrap();
        }
    }

    /// Makes the zone's servers misbehave for a name, or, where there is but one server, everybody.
    pub(crate) fn at_servers(&self, quirk: &Quirk) {
        let only = [&self.resolver];
        let servers: Vec<&DevDns> = if self.servers.is_empty() { only.into() } else { self.servers.iter().collect() };
        for server in servers {
            server.zone().quirk(quirk.clone()).unwrap();
        }
    }

    pub(crate) fn config(&self) -> LookupConfig {
        LookupConfig {
            authority_port: self.port,
            allow_non_global: true,
            query_timeout: Duration::from_millis(250),
            ..LookupConfig::asking(self.resolver.dns_addr())
        }
    }

    pub(crate) async fn look(&self, subject: &LookSubject) -> Look {
        Lookups::new(self.config()).look(subject).await
    }

    pub(crate) async fn judged(&self, subject: &LookSubject) -> Judgement {
        judge(&self.look(subject).await, subject)
    }

    /// The code and the whole finding of a look, which must bring one.
    pub(crate) async fn found(&self, subject: &LookSubject) -> (&'static str, Finding) {
        let judged = self.judged(subject).await;
        let finding = judged.finding.clone().unwrap_or_else(|| panic!("nothing was found wrong: {judged:?}"));
        (finding.code.as_str(), finding)
    }
}

async fn start(dns: SocketAddr) -> DevDns {
    // One zone below a registered domain, for those who delegate.
    DevDns::start(Config { dns, apexes: vec!["eu.brand.test".into()], ..Config::default() }).await.unwrap()
}

pub(crate) fn rcode(name: &str, rcode: &str) -> Quirk {
    Quirk { name: name.into(), rcode: Some(rcode.into()), ..Quirk::default() }
}

pub(crate) fn dropped(name: &str) -> Quirk {
    Quirk { name: name.into(), drop: true, ..Quirk::default() }
}

/// The questions a server was asked, as `TYPE name`, in small letters.
pub(crate) fn questions(server: &DevDns) -> Vec<String> {
    server.zone().queries().queries.iter().map(|query| format!("{} {}", query.record_type, query.name.to_ascii_lowercase())).collect()
}

/// A name server that answers each query with the datagrams it is told to, and over TCP with the last of them.
pub(crate) struct Puppet {
    pub(crate) address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Puppet {
    pub(crate) async fn start(replies: impl Fn(Message) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let replies = Arc::new(replies);
        let tcp = TcpListener::bind("127.0.0.9:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let over_udp = replies.clone();
        let udp = tokio::spawn(async move {
            let mut datagram = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut datagram).await {
                for reply in over_udp(Message::from_vec(&datagram[..length]).unwrap()) {
                    udp.send_to(&reply, peer).await.unwrap();
                }
            }
        });
        let tcp = tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let Ok(length) = stream.read_u16().await else { continue };
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.unwrap();
                let Some(reply) = replies(Message::from_vec(&query).unwrap()).pop() else { continue };
                stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        });
        Self { address, tasks: [udp, tcp] }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// An empty answer with authority to the query.
pub(crate) fn reply_to(query: &Message) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.authoritative = true;
    reply.edns = None;
    reply
}
