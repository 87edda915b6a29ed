//! One question to one server: UDP first, TCP when the answer does not fit or cannot be trusted.
//!
//! Arrives: a [`Question`] and a server's address. Leaves: the server's own message, whatever its response code. Goes wrong: a
//! [`Failure`]: nothing came in time, what came cannot be read, or the look has spent its budget.
//!
//! A forged answer has to guess the message's number, the socket's port and the letters' case (0x20), all new with every try.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use domains::Failure;
use hickory_proto::{
    op::{Edns, Message, MessageType, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout_at,
};

use crate::budget::Budget;

/// The largest answer asked for over UDP: the most that passes everywhere without fragments. Source: DNS Flag Day 2020.
const EDNS_PAYLOAD_BYTES: u16 = 1232;
/// What is read of a datagram; servers that send more than we asked for are forgiven up to here.
const DATAGRAM_BYTES: usize = 4096;
/// The TC bit in a header's third byte. Source: RFC 1035, section 4.1.1.
const TRUNCATED: u8 = 0b0000_0010;
/// How often a query is tried over UDP, since a datagram may be lost.
const TRIES: usize = 2;

/// What is asked, and of what kind of server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) name: &'a Name,
    pub(crate) record_type: RecordType,
    /// Whether the server shall find the answer elsewhere (a resolver), or say what it has itself (an authority).
    pub(crate) recursive: bool,
    /// Whether a resolver may show what fails DNSSEC. For finding servers only, never for the records under judgement: it lets a zone whose
    /// signatures are broken be told apart from one that is not there.
    pub(crate) unchecked: bool,
    /// Whether a resolver shall say that it checked the answer (DO, RFC 4035, section 3.2.1), which makes answers larger.
    pub(crate) signed: bool,
}

/// Sends queries, a bounded number at a time.
#[derive(Debug)]
pub(crate) struct Exchange {
    permits: Semaphore,
    query_timeout: Duration,
}

/// What a datagram was.
enum Received {
    /// Our answer.
    Answer(Box<Message>),
    /// Ours, but in part only, or with the question's letters changed: worth asking again over TCP, where nobody can forge it.
    AskOverTcp,
    /// Ours, and not readable.
    Unreadable(String),
    /// Not an answer to this question; perhaps a forgery.
    Foreign,
}

impl Exchange {
    pub(crate) fn new(query_timeout: Duration, max_in_flight: usize) -> Self {
        Self { permits: Semaphore::new(max_in_flight.clamp(1, Semaphore::MAX_PERMITS)), query_timeout }
    }

    /// Asks the server and returns its message.
    ///
    /// # Errors
    /// [`Failure::Unreachable`], [`Failure::Malformed`] or [`Failure::BudgetSpent`]; a response code is not looked at here.
    pub(crate) async fn ask(&self, server: SocketAddr, question: Question<'_>, budget: &Budget) -> Result<Message, Failure> {
        let Ok(Ok(_permit)) = timeout_at(budget.deadline(), self.permits.acquire()).await else { return Err(Failure::BudgetSpent) };
        for tried in 0..TRIES {
            match budget.take() {
                Ok(()) => {}
                // Asked, and not answered as long as there was time: that is what is known, not that the budget ended meanwhile.
                Err(_) if tried > 0 => return Err(Failure::Unreachable),
                Err(spent) => return Err(spent),
            }
            let (query, bytes) = query_for(question)?;
            let received = match timeout_at(budget.until(self.query_timeout), over_udp(server, &query, &bytes)).await {
                Ok(Ok(received)) => received,
                // The machine's own network, or the server's, said that there is nobody: no use in asking again.
                Ok(Err(_)) => return Err(Failure::Unreachable),
                Err(_elapsed) => continue,
            };
            return match received {
                Received::Answer(message) => Ok(*message),
                Received::Unreadable(detail) => Err(Failure::Malformed { detail }),
                Received::AskOverTcp | Received::Foreign => self.ask_over_tcp(server, question, budget).await,
            };
        }
        Err(Failure::Unreachable)
    }

    /// The same over TCP alone.
    pub(crate) async fn ask_over_tcp(&self, server: SocketAddr, question: Question<'_>, budget: &Budget) -> Result<Message, Failure> {
        budget.take()?;
        let (query, bytes) = query_for(question)?;
        let Ok(Ok(reply)) = timeout_at(budget.until(self.query_timeout), over_tcp(server, &bytes)).await else {
            return Err(Failure::Unreachable);
        };
        match read(&query, &reply, false) {
            Received::Answer(message) => Ok(*message),
            Received::Unreadable(detail) => Err(Failure::Malformed { detail }),
            Received::AskOverTcp => Err(Failure::Malformed { detail: "the answer is cut short over TCP, too".into() }),
            Received::Foreign => Err(Failure::Malformed { detail: "the answer is to another question".into() }),
        }
    }
}

/// A query with a new number and newly mixed letters, and its bytes.
fn query_for(question: Question<'_>) -> Result<(Message, Vec<u8>), Failure> {
    let mut name = question.name.clone();
    name.randomize_label_case();
    let mut query = Message::query();
    query.add_query(Query::query(name, question.record_type));
    query.metadata.recursion_desired = question.recursive;
    query.metadata.checking_disabled = question.unchecked;
    let mut edns = Edns::new();
    edns.set_max_payload(EDNS_PAYLOAD_BYTES);
    edns.set_dnssec_ok(question.signed);
    query.set_edns(edns);
    let bytes = query.to_vec().map_err(|error| Failure::Malformed { detail: format!("the question cannot be asked: {error}") })?;
    Ok((query, bytes))
}

async fn over_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Received> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket of its own for every try: a new port, and, being connected, only this server's datagrams.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut datagram).await?;
        match read(query, datagram.get(..length).unwrap_or_default(), true) {
            Received::Foreign => {}
            received => return Ok(received),
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(query.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(query);
    stream.write_all(&framed).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

/// Tells what a message is to the query it may answer.
fn read(query: &Message, bytes: &[u8], forgeable: bool) -> Received {
    if bytes.get(..2) != Some(&query.metadata.id.to_be_bytes()) {
        return Received::Foreign;
    }
    // Before anything else is read: a message that was cut short may end in the middle of a record.
    if bytes.get(2).is_some_and(|flags| flags & TRUNCATED != 0) {
        return Received::AskOverTcp;
    }
    let message = match Message::from_vec(bytes) {
        Ok(message) => message,
        Err(error) => return Received::Unreadable(error.to_string()),
    };
    if message.metadata.message_type != MessageType::Response {
        return Received::Foreign;
    }
    let (Some(asked), answered) = (query.queries.first(), message.queries.first()) else { return Received::Foreign };
    match answered {
        // Some servers do not repeat the question when they refuse it.
        None if message.metadata.response_code != ResponseCode::NoError => {}
        Some(answered) if answered.query_type == asked.query_type && answered.name == asked.name => {
            if forgeable && !answered.name.eq_case(&asked.name) {
                return Received::AskOverTcp;
            }
        }
        _ => return Received::Foreign,
    }
    Received::Answer(Box::new(message))
}
