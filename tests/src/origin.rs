//! An origin of our own: says hello to every request, and echoes what comes through a WebSocket.
//!
//! HTTP/1.1 by hand, so that nothing stands between the test and what the edge sends.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A running origin; ends when dropped.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Origin {
    /// Starts one.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the origin");
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream) {
    let mut came = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        while let Some(end) = came.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&came[..end]).to_ascii_lowercase();
            came.drain(..end + 4);
            if head.contains("upgrade: websocket") {
                let agreed = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
                if stream.write_all(agreed).await.is_ok() {
                    echo(stream).await;
                }
                return;
            }
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n").await.is_err() {
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => came.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
