//! A server that plays its part word by word, for what no stand-in says.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use storage::aws::Access;

/// Answers each request with what comes next, and keeps what it was asked.
pub(crate) struct Played {
    pub(crate) endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Played {
    /// Says `says`, each a status and a body, and the last for ever.
    pub(crate) fn start(says: Vec<(u16, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut says) = (asked.clone(), VecDeque::from(says));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut reader = BufReader::new(connection.try_clone().unwrap());
                let mut request = String::new();
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                        break;
                    }
                    let lower = line.to_ascii_lowercase();
                    length = lower.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
                    request.push_str(&line);
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                request.push_str(&String::from_utf8_lossy(&body));
                kept.lock().unwrap().push(request);
                let (status, body) = if says.len() > 1 { says.pop_front().unwrap() } else { says[0].clone() };
                let length = body.len();
                let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                // Whoever asked may have gone.
                let _ = connection.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { endpoint, asked }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The SDK's own configuration, for what tests make in an account beside the home.
pub(crate) async fn sdk(access: &Access) -> SdkConfig {
    match access {
        Access::Ambient => aws_config::load_defaults(BehaviorVersion::latest()).await,
        Access::StandIn { endpoint } => SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(endpoint)
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test")))
            .build(),
    }
}
