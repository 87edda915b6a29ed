//! The two DNS listeners, on one port number.
//!
//! Arrives: DNS messages over UDP and TCP. Leaves: answers that fit their transport; what does not fit into a datagram comes back with
//! the TC bit set and nothing else. Goes wrong: what is no question of ours gets the response code that the standards name.

use std::{io, net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Name, Record, RecordType},
    serialize::binary::BinEncoder,
};
use hickory_server::{
    Server,
    net::{runtime::Time, xfer::Protocol},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::{MessageResponse, MessageResponseBuilder},
};
use tokio::net::{TcpListener, UdpSocket};

use crate::zone::{Reply, Zone};

/// How long a TCP connection may be idle. Source: RFC 7766, section 6.2.3.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// How many answers wait on one TCP connection.
const TCP_BUFFERED_ANSWERS: usize = 64;
/// How often a free port number is looked for that both transports can have.
const PORT_ATTEMPTS: usize = 32;
/// The largest datagram sent: it passes every path in one piece. Source: DNS flag day 2020 (dnsflagday.net/2020, read 2026-11).
const MAX_UDP_BYTES: u16 = 1232;

/// Both listeners on one port; port 0 finds a number that is free for both.
pub(crate) async fn bind(wanted: SocketAddr) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let attempts = if wanted.port() == 0 { PORT_ATTEMPTS } else { 1 };
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..attempts {
        let tcp = TcpListener::bind(wanted).await?;
        let address = tcp.local_addr()?;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok((udp, tcp, address)),
            Err(error) => taken = error,
        }
    }
    Err(taken)
}

/// Takes over sockets that are bound already.
pub(crate) fn adopt(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let address = tcp.local_addr()?;
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?, address))
}

/// Starts answering.
pub(crate) fn serve(zone: Zone, udp: UdpSocket, tcp: TcpListener) -> Server<impl RequestHandler> {
    let mut server = Server::new(Handler { zone });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_BUFFERED_ANSWERS);
    server
}

struct Handler {
    zone: Zone,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let reply = match question(request) {
            Ok((name, record_type)) => self.zone.answer(&name, record_type),
            Err(code) => Reply::bare(code),
        };
        let mut outgoing = Outgoing::new(request, reply);
        if request.protocol() == Protocol::Udp {
            outgoing.fit(request);
        }
        match response.send_response(outgoing.message(request)).await {
            Ok(sent) => sent,
            Err(error) => {
                tracing::debug!(%error, client = %request.src(), "an answer could not be sent");
                Header { metadata: outgoing.metadata, counts: HeaderCounts::default() }.into()
            }
        }
    }
}

/// The question of a request, or the response code for a request that this server does not take.
fn question(request: &Request) -> Result<(Name, RecordType), ResponseCode> {
    if request.version() > 0 {
        return Err(ResponseCode::BADVERS);
    }
    if request.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let query = request.request_info().map_err(|_| ResponseCode::FormErr)?.query;
    let is_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if is_transfer || query.query_class() != DNSClass::IN {
        return Err(ResponseCode::Refused);
    }
    Ok((query.original().name().clone(), query.query_type()))
}

/// A reply on its way into a message.
struct Outgoing {
    metadata: Metadata,
    edns: Option<Edns>,
    reply: Reply,
}

impl Outgoing {
    fn new(request: &Request, reply: Reply) -> Self {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = false;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_BYTES);
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        Self { metadata, edns, reply }
    }

    /// Makes the answer fit into a datagram: without glue first, then as an invitation to come over TCP (RFC 2181, section 9).
    fn fit(&mut self, request: &Request) {
        if !self.overflows(request) {
            return;
        }
        self.reply.additionals.clear();
        if self.overflows(request) {
            self.metadata.truncation = true;
            self.reply.answers.clear();
            self.reply.authorities.clear();
        }
    }

    fn overflows(&self, request: &Request) -> bool {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(request.max_payload().min(MAX_UDP_BYTES));
        self.message(request).destructive_emit(&mut encoder).map_or(true, |written| written.truncation)
    }

    fn message<'a>(
        &'a self,
        request: &'a Request,
    ) -> MessageResponse<
        'a,
        'a,
        impl Iterator<Item = &'a Record> + Send + 'a,
        impl Iterator<Item = &'a Record> + Send + 'a,
        impl Iterator<Item = &'a Record> + Send + 'a,
        impl Iterator<Item = &'a Record> + Send + 'a,
    > {
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &self.edns {
            builder.edns(edns);
        }
        let Reply { answers, authorities, additionals, .. } = &self.reply;
        builder.build(self.metadata, answers, authorities, &[], additionals)
    }
}
