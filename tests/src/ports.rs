//! Ports that are free now, and that no outgoing connection takes while a killed product is down.
//!
//! They lie below the system's own range (32768 and up on Linux), because a product that is killed and started again wants the same ports,
//! and a port the system picks may meanwhile have become somebody's end of a connection.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Mutex,
};

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A loopback address that nothing listens at, over TCP and UDP, given out once only.
pub fn free() -> SocketAddr {
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let given = given.get_or_insert_default();
    for turn in 0..10_000_u32 {
        let port = 10_000 + u16::try_from(RandomState::new().hash_one(turn) % 20_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let is_free = TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
        if is_free && given.insert(port) {
            return address;
        }
    }
    panic!("no free port between 10000 and 30000");
}
