//! The origin behind every server: two pages, as fast as can be, on the client's core.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use crate::Failure;

/// The small page.
pub(crate) const SMALL: &[u8] = b"hello from the origin of the bench\n";
/// The large page's size.
pub(crate) const LARGE_BYTES: usize = 1 << 20;

/// The large page: no run of it repeats another nearby, so that a piece lost or doubled is seen.
pub(crate) fn large() -> Vec<u8> {
    (0..LARGE_BYTES as u32 / 4).flat_map(|word| word.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

/// Starts it; it ends with the process.
pub(crate) fn start() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let page = |body: &[u8]| {
        Arc::<[u8]>::from(
            [
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(),
                body,
            ]
            .concat(),
        )
    };
    let (small, large) = (page(SMALL), page(&large()));
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (small, large) = (Arc::clone(&small), Arc::clone(&large));
            // A thread a connection: there are as many as a server keeps, which is few.
            thread::spawn(move || serve(socket, &small, &large));
        }
    });
    Ok(address)
}

fn serve(mut socket: TcpStream, small: &[u8], large: &[u8]) {
    let (mut buffer, mut kept) = (vec![0; 16 * 1024], 0);
    let _ = socket.set_nodelay(true);
    loop {
        match socket.read(&mut buffer[kept..]) {
            Ok(read @ 1..) => kept += read,
            _ => return,
        }
        while let Some(end) = buffer[..kept].windows(4).position(|four| four == b"\r\n\r\n") {
            let page = if buffer.starts_with(b"GET /large") { large } else { small };
            if socket.write_all(page).is_err() {
                return;
            }
            buffer.copy_within(end + 4..kept, 0);
            kept -= end + 4;
        }
    }
}
