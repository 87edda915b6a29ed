//! Zones that another server answers for: where a resolver would follow the delegation, this one asks that server.
//!
//! Arrives: a name below a forwarded apex, and a type. Leaves: what that server says of it. Goes wrong: no usable answer in time, which a
//! resolver tells its client as SERVFAIL. On one machine all servers share an address, and a delegation cannot name a port; that is why
//! the port is configured.

use std::{io, net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long the other server may take over either transport.
const PATIENCE: Duration = Duration::from_secs(1);
/// The largest datagram taken.
const MAX_UDP_BYTES: usize = 4096;

/// A zone and who answers for it.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    pub(crate) apex: Name,
    pub(crate) server: SocketAddr,
}

/// Asks the server of the deepest forwarded zone around the name.
pub(crate) async fn ask(forwards: &[Forward], name: &Name, record_type: RecordType) -> io::Result<Message> {
    let around = forwards.iter().filter(|forward| forward.apex.zone_of(name)).max_by_key(|forward| forward.apex.num_labels());
    let server = around.ok_or_else(|| io::Error::other("no server is configured for this zone"))?.server;
    let mut question = Message::new(rand_id(name), MessageType::Query, OpCode::Query);
    question.add_query(Query::query(name.clone(), record_type));
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let answer = timeout(PATIENCE, over_udp(server, &bytes)).await.map_err(late)??;
    if answer.metadata.truncation {
        return timeout(PATIENCE, over_tcp(server, &bytes)).await.map_err(late)?;
    }
    Ok(answer)
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Message> {
    let local: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local).await?;
    // Connected: datagrams of others do not reach it.
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MAX_UDP_BYTES];
    let read = socket.recv(&mut buffer).await?;
    Message::from_vec(&buffer[..read]).map_err(io::Error::other)
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(io::Error::other)
}

/// An identifier; the socket is connected to a server of this machine, so nobody has to be kept from guessing it.
fn rand_id(name: &Name) -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let hash = RandomState::new().hash_one(name);
    u16::try_from(hash & 0xffff).unwrap_or_default()
}
