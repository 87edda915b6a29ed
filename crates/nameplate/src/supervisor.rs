//! What a supervisor such as systemd has to do with us: sockets that it holds while we restart, and the word that we are ready.
//!
//! Arrives: `LISTEN_FDS` and `LISTEN_FDNAMES` (sd_listen_fds(3)), `NOTIFY_SOCKET` (sd_notify(3)). Leaves: [`Sockets`]; a datagram. Goes wrong:
//! a socket whose name or kind is not one of ours, which would otherwise never be listened to.

use std::os::unix::net::UnixDatagram;

use listenfd::ListenFd;

use crate::{failure::Failure, product::Sockets};

/// The names that socket units give, by `FileDescriptorName=`.
const NAMES: &str = "https, http, private, api or answers";

/// Takes over the sockets that were handed to this process. Called before anything else runs, since it edits the environment.
pub(crate) fn inherited() -> Result<Sockets, Failure> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    let names: Vec<&str> = names.split(':').collect();
    let mut sockets = Sockets::default();
    for index in 0..handed.len() {
        let name = names.get(index).copied().unwrap_or_default();
        let wrong = |why: &str| {
            Failure::configuration(format!(
                "socket {index} was handed over as `{name}`, {why}\n  name it {NAMES} with FileDescriptorName= in its socket unit"
            ))
        };
        let tcp = handed.take_tcp_listener(index);
        let place = match name {
            "answers" if tcp.is_err() => {
                let udp = handed.take_udp_socket(index).map_err(|error| wrong(&error.to_string()))?;
                if sockets.answers.udp.is_some() {
                    return Err(wrong("of which there is one already"));
                }
                sockets.answers.udp = udp;
                continue;
            }
            "answers" => Some(&mut sockets.answers.tcp),
            "api" => Some(&mut sockets.api),
            of_edge => sockets.edge.place_of(of_edge),
        };
        match (place, tcp) {
            (None, _) => return Err(wrong("which is none of ours")),
            (Some(Some(_)), _) => return Err(wrong("of which there is one already")),
            (_, Err(error)) => return Err(wrong(&error.to_string())),
            (Some(place), Ok(socket)) => *place = socket,
        }
    }
    if sockets.answers.udp.is_some() != sockets.answers.tcp.is_some() {
        return Err(Failure::configuration(
            "the answer zone was handed one socket; it needs two: ListenStream= and ListenDatagram= with the name answers",
        ));
    }
    Ok(sockets)
}

/// Tells the supervisor how we are: `READY=1`, `STOPPING=1`. Without one there is nobody to tell.
pub(crate) fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = UnixDatagram::unbound().and_then(|socket| match path.to_str().and_then(|path| path.strip_prefix('@')) {
        // A name in the abstract namespace.
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(state.as_bytes(), &address)
        }
        None => socket.send_to(state.as_bytes(), &path),
    });
    if let Err(error) = told {
        tracing::warn!(%error, "the supervisor could not be told: {state}");
    }
}
