//! The two DNS listeners, on one port number.
//!
//! Arrives: DNS messages over UDP and TCP. Leaves: answers that fit their transport; what does not fit into a datagram comes back with
//! the TC bit set and nothing else. Goes wrong: questions that are none get the response code the standards name; quirks in force may
//! delay or swallow an answer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Record as Answered, RecordType as WireType, rdata::opt::EdnsOption},
    serialize::binary::BinEncoder,
};
use hickory_server::{
    Server,
    net::{runtime::Time, xfer::Protocol},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::{MessageResponse, MessageResponseBuilder},
};
use tokio::net::{TcpListener, UdpSocket};

use crate::{
    forward::{self, Forward},
    handle::Zone,
    observed::Transport,
    zone::{Answer, Question},
};

/// How long a TCP connection may be idle. Source: RFC 7766, section 6.2.3.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// How many answers wait on one TCP connection.
const TCP_BUFFERED_ANSWERS: usize = 64;
/// How often a free port number is looked for that both transports can have.
const PORT_ATTEMPTS: usize = 32;
/// The EDNS option of an extended error. Source: RFC 8914, section 2.
const EXTENDED_ERROR: u16 = 15;
/// The largest datagram sent, whatever the client would take.
const MAX_UDP_BYTES: u16 = 4096;

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

/// The address that the made-up name servers get: where this server is reached.
pub(crate) fn own_address(listening: SocketAddr) -> IpAddr {
    match listening.ip() {
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Starts answering.
pub(crate) fn serve(zone: Zone, forwards: Vec<Forward>, udp: UdpSocket, tcp: TcpListener) -> Server<impl RequestHandler> {
    let mut server = Server::new(Handler { zone, forwards });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_BUFFERED_ANSWERS);
    server
}

struct Handler {
    zone: Zone,
    forwards: Vec<Forward>,
}

impl Handler {
    /// Finishes an answer at the server of another zone.
    async fn follow(&self, mut answer: Answer, wanted: WireType) -> Answer {
        let Some(name) = answer.onward.take() else { return answer };
        match forward::ask(&self.forwards, &name, wanted).await {
            Ok(told) => {
                answer.code = told.metadata.response_code;
                answer.answers.extend(told.answers);
                answer.authorities = told.authorities;
                answer
            }
            Err(error) => {
                tracing::debug!(%error, %name, "the server of a forwarded zone gave no answer");
                Answer::bare(ResponseCode::ServFail)
            }
        }
    }
}

/// An answer on its way into a message.
struct Reply {
    metadata: Metadata,
    edns: Option<Edns>,
    answer: Answer,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let transport = match request.protocol() {
            Protocol::Udp => Transport::Udp,
            _ => Transport::Tcp,
        };
        let (answer, quirk) = match question(request) {
            Ok(question) => {
                let (answer, quirk) = self.zone.consider(&question, transport);
                (self.follow(answer, question.record_type).await, quirk)
            }
            Err(code) => (Answer::bare(code), None),
        };
        let mut reply = Reply::new(request, answer);
        if let Some(quirk) = quirk {
            reply.explain(quirk.ede);
            reply.vouch(quirk.authentic);
            tokio::time::sleep(quirk.delay).await;
            if quirk.drop {
                return reply.unsent();
            }
            if quirk.truncate_udp && transport == Transport::Udp {
                reply.truncate();
            }
        }
        if transport == Transport::Udp {
            reply.fit(request);
        }
        match response.send_response(reply.message(request)).await {
            Ok(sent) => sent,
            Err(error) => {
                tracing::debug!(%error, client = %request.src(), "an answer could not be sent");
                reply.unsent()
            }
        }
    }
}

/// The question of a request, or the response code for a request that this server does not take.
fn question(request: &Request) -> Result<Question, ResponseCode> {
    if request.version() > 0 {
        return Err(ResponseCode::BADVERS);
    }
    if request.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let query = request.request_info().map_err(|_| ResponseCode::FormErr)?.query;
    let is_transfer = matches!(query.query_type(), WireType::AXFR | WireType::IXFR);
    if is_transfer || !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
        return Err(ResponseCode::Refused);
    }
    Ok(Question {
        name: query.original().name().clone(),
        record_type: query.query_type(),
        recursion_desired: request.metadata.recursion_desired,
        checking_disabled: request.metadata.checking_disabled,
    })
}

impl Reply {
    fn new(request: &Request, answer: Answer) -> Self {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload_limit(request));
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        Self { metadata, edns, answer }
    }

    /// Says why it failed, to who understands EDNS.
    fn explain(&mut self, ede: Option<u16>) {
        let failed = self.metadata.response_code == ResponseCode::ServFail;
        if let (Some(code), Some(edns), true) = (ede, &mut self.edns, failed) {
            edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, code.to_be_bytes().to_vec()));
        }
    }

    /// Says that the signatures were checked, to who asks for that.
    fn vouch(&mut self, is_authentic: bool) {
        let is_asked_for = self.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let is_bare = self.metadata.response_code == ResponseCode::ServFail;
        self.metadata.authentic_data = is_authentic && is_asked_for && !is_bare;
    }

    /// Makes the answer fit into a datagram: without glue first, then as an invitation to come over TCP (RFC 2181, section 9).
    fn fit(&mut self, request: &Request) {
        if !self.overflows(request) {
            return;
        }
        self.answer.additionals.clear();
        if self.overflows(request) {
            self.truncate();
        }
    }

    fn overflows(&self, request: &Request) -> bool {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(payload_limit(request));
        self.message(request).destructive_emit(&mut encoder).map_or(true, |written| written.truncation)
    }

    fn truncate(&mut self) {
        self.metadata.truncation = true;
        self.answer.answers.clear();
        self.answer.authorities.clear();
        self.answer.additionals.clear();
    }

    fn message<'a>(
        &'a self,
        request: &'a Request,
    ) -> MessageResponse<
        'a,
        'a,
        impl Iterator<Item = &'a Answered> + Send + 'a,
        impl Iterator<Item = &'a Answered> + Send + 'a,
        impl Iterator<Item = &'a Answered> + Send + 'a,
        impl Iterator<Item = &'a Answered> + Send + 'a,
    > {
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &self.edns {
            builder.edns(edns);
        }
        let Answer { answers, authorities, additionals, .. } = &self.answer;
        builder.build(self.metadata, answers, authorities, &[], additionals)
    }

    /// What is told of an answer that nobody got.
    fn unsent(&self) -> ResponseInfo {
        Header { metadata: self.metadata, counts: HeaderCounts::default() }.into()
    }
}

/// How large a datagram this client takes from this server.
fn payload_limit(request: &Request) -> u16 {
    request.max_payload().min(MAX_UDP_BYTES)
}
