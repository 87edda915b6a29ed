//! HTTP/2 that says whatever it is told: frames and headers by hand, nothing compressed, nothing checked.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals without indexing.
///
/// Source: RFC 7541, sections 5.1, 5.2 and 6.2.2.
pub(crate) fn block(headers: &[(String, String)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn integer(into: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return into.push(value as u8);
    }
    into.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        into.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    into.push(rest as u8);
}

/// What a connection answered on one stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) status: Option<u16>,
    pub(crate) ended: bool,
    pub(crate) reset: bool,
    /// The connection was given up, or is gone.
    pub(crate) gone: bool,
}

/// Reads frames until the stream has ended one way or another, which it must.
pub(crate) async fn answer(stream: &mut TlsStream<TcpStream>, id: u32, wait: Duration) -> Answered {
    let (answered, in_time) = heard(stream, id, wait).await;
    assert!(in_time, "no end of stream {id}: {answered:?}");
    answered
}

/// Reads frames until the stream has ended one way or another, and says whether that was in time.
pub(crate) async fn heard(stream: &mut TlsStream<TcpStream>, id: u32, wait: Duration) -> (Answered, bool) {
    let mut answered = Answered::default();
    let reading = async {
        while !(answered.ended || answered.reset) {
            let Some((kind, flags, on, payload)) = read(stream).await else {
                answered.gone = true;
                return;
            };
            match kind {
                HEADERS if on == id => {
                    answered.status = answered.status.or(status(&payload));
                    answered.ended = flags & END_STREAM != 0;
                }
                DATA if on == id => answered.ended = flags & END_STREAM != 0,
                RST_STREAM if on == id => answered.reset = true,
                // Told and meant: an error, not the polite end of an idle connection.
                GOAWAY if payload[4..8] != [0; 4] => answered.gone = true,
                SETTINGS if flags & ACK == 0 => {
                    let _ = stream.write_all(&frame(SETTINGS, ACK, 0, b"")).await;
                }
                _ => {}
            }
            if answered.gone {
                return;
            }
        }
    };
    let in_time = timeout(wait, reading).await.is_ok();
    (answered, in_time)
}

/// The next frame, `None` at the connection's end.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [high, middle, low, kind, flags, id @ ..] = head;
    let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, flags, u32::from_be_bytes(id) & 0x7fff_ffff, payload))
}

/// The status at the beginning of a connection's first answer: the static table's, or a literal of three digits, plain or by Huffman's code.
///
/// Source: RFC 7541, appendices A and B.
fn status(block: &[u8]) -> Option<u16> {
    match *block {
        [0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(block[0] - 0x88)]),
        [0x48 | 0x08, 3, ref digits @ ..] => std::str::from_utf8(&digits[..3]).ok()?.parse().ok(),
        [0x48 | 0x08, length, ref coded @ ..] => {
            let bits: String = coded[..usize::from(length & 0x7f)].iter().map(|byte| format!("{byte:08b}")).collect();
            let (mut digits, mut at) = (String::new(), 0);
            while digits.len() < 3 {
                let short = u8::from_str_radix(&bits[at..at + 5], 2).ok()?;
                let (digit, size) = match short {
                    0..=2 => (short, 5),
                    _ => (u8::from_str_radix(&bits[at..at + 6], 2).ok()? - 0b01_1001 + 3, 6),
                };
                digits.push((b'0' + digit) as char);
                at += size;
            }
            digits.parse().ok()
        }
        _ => None,
    }
}

#[test]
fn statuses_are_read_in_each_way_they_may_be_written() {
    for (block, expected) in [
        (&[0x88][..], 200),
        (&[0x8c], 400),
        (&[0x48, 3, b'4', b'2', b'1'], 421),
        (&[0x48, 0x82, 0x64, 0x02], 302),
        (&[0x48, 0x82, 0x68, 0x41], 421),
        (&[0x48, 0x83, 0x68, 0x2c, 0xff], 413),
    ] {
        assert_eq!(status(block), Some(expected), "{block:?}");
    }
}
