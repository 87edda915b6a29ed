//! Sockets that a supervisor, such as systemd, holds while the edge's program is replaced.
//!
//! Arrives: `LISTEN_FDS` and `LISTEN_FDNAMES` (sd_listen_fds(3)). Leaves: [`Inherited`]. Goes wrong: a socket whose name or kind is not one
//! of ours, which would otherwise never be listened to.

use std::net::TcpListener;

use listenfd::ListenFd;

use crate::edge::Inherited;

/// Takes over the sockets that were handed to this process, named `https`, `http` or `private`. Called before anything else runs, since it
/// edits the environment.
///
/// # Errors
/// What is wrong with the first socket that cannot be taken.
pub fn inherited() -> Result<Inherited, String> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    let names: Vec<&str> = names.split(':').collect();
    let mut sockets = Inherited::default();
    for index in 0..handed.len() {
        let name = names.get(index).copied().unwrap_or_default();
        let taken = match (sockets.place_of(name), handed.take_tcp_listener(index)) {
            (None, _) => Err("which is none of https, http or private (FileDescriptorName= in its socket unit)".to_owned()),
            (Some(Some(_)), _) => Err("of which there is one already".to_owned()),
            (_, Err(error)) => Err(error.to_string()),
            (Some(place), Ok(socket)) => {
                *place = socket;
                Ok(())
            }
        };
        taken.map_err(|why| format!("socket {index} was handed over as `{name}`, {why}"))?;
    }
    Ok(sockets)
}

impl Inherited {
    /// Where a socket of this name belongs.
    pub fn place_of(&mut self, name: &str) -> Option<&mut Option<TcpListener>> {
        match name {
            "https" => Some(&mut self.https),
            "http" => Some(&mut self.http),
            "private" => Some(&mut self.private),
            _ => None,
        }
    }
}
