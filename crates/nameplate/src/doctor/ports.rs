//! Whether the product has, or will have, the ports that the configuration names.
//!
//! Arrives: the addresses, and whether the product runs. Leaves: a check for each. Goes wrong: a port that somebody else has, or nobody
//! while the product runs.
//!
//! Binding shows whether a port is free, except where this user may not bind it at all: below 1024 the kernel says so before it says that the
//! port is taken. There the running product is asked; while it does not run, nobody is, since a connection would make systemd start it.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use domains::Failure as DnsFailure;
use lookups::{Asking, Wanted, ask};
use tokio::{net::TcpStream, time::timeout};

use super::Check;
use crate::{
    config::{Config, HomePlace},
    files::Endpoints,
};

/// How long connecting to a port of this machine may take.
const REACH: Duration = Duration::from_secs(2);

/// Where systemd-resolved answers by default. Source: systemd-resolved.service(8), resolved.conf(5), DNSStubListener= (read 2026-11).
const RESOLVED_STUB: &str = "127.0.0.53:53";

/// One port, and what it is for.
#[derive(Clone, Copy, Debug)]
struct Port {
    address: SocketAddr,
    key: &'static str,
}

pub(super) async fn check(config: &Config, running: Option<&Endpoints>) -> Vec<Check> {
    let listen = &config.listen;
    // A zone on AWS is served by AWS, so nothing listens for it here.
    let is_answered_here = matches!(config.home, HomePlace::Local);
    let tcp =
        [(listen.https, "listen.https"), (listen.http, "listen.http"), (listen.private, "listen.private"), (listen.api, "listen.api")];
    let mut checks = Vec::new();
    for (address, key) in tcp.into_iter().chain(is_answered_here.then_some((listen.answers, "listen.answers"))) {
        let bound = TcpListener::bind(address).map(drop);
        let answers = match asks_the_product(&bound, running) {
            true => Some(matches!(timeout(REACH, TcpStream::connect(from_here(address))).await, Ok(Ok(_)))),
            false => None,
        };
        checks.push(verdict(Port { address, key }, bound, answers, running));
    }
    if !is_answered_here {
        return checks;
    }
    let bound = UdpSocket::bind(listen.answers).map(drop);
    let answers = match asks_the_product(&bound, running) {
        true => Some(answers_over_udp(config).await),
        false => None,
    };
    checks.push(verdict(Port { address: listen.answers, key: "listen.answers (UDP)" }, bound, answers, running));
    if running.is_none() && listen.answers.ip().is_unspecified() && resolved_stub_listens() {
        checks.push(stub_in_the_way(listen.answers));
    }
    checks
}

fn asks_the_product(bound: &io::Result<()>, running: Option<&Endpoints>) -> bool {
    running.is_some() && bound.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Where an address is reached from this machine.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    SocketAddr::new(ip, address.port())
}

async fn answers_over_udp(config: &Config) -> bool {
    let zone = config.zone.answers_zone();
    let answer = ask(from_here(config.listen.answers), Asking::AuthorityOverUdp, &zone, Wanted::Ns).await;
    // Whatever it says, it is there; whether it is the right answer is another check.
    !matches!(answer.failure(), Some(DnsFailure::Unreachable | DnsFailure::BudgetSpent))
}

/// Judges one port: by whether it could be bound, and, where this user may not bind it, by whether it answers.
fn verdict(port: Port, bound: io::Result<()>, answers: Option<bool>, running: Option<&Endpoints>) -> Check {
    let Port { address, key } = port;
    let Err(error) = bound else {
        return match running {
            None => Check::fine("port", format!("{address} is free for {key}")),
            Some(_) => Check::failed(
                "port",
                format!("{address} is free, though the product runs and {key} names it"),
                "restart the product with this configuration",
            ),
        };
    };
    match (error.kind(), running, answers) {
        (ErrorKind::AddrInUse, Some(endpoints), _) => {
            let ours = [&endpoints.https, &endpoints.http, &endpoints.private];
            let is_known = ours.iter().any(|own| own.parse().is_ok_and(|own: SocketAddr| own.port() == address.port()));
            let by = if is_known { format!(" by the product, process {}", endpoints.pid) } else { String::new() };
            Check::fine("port", format!("{address} ({key}) is held{by}"))
        }
        (ErrorKind::AddrInUse, None, _) => Check::look(
            "port",
            format!("{address} ({key}) is taken, and the product does not run"),
            "fine if a socket unit holds it for the product; otherwise find who does with `ss -lntup` and stop it",
        ),
        (ErrorKind::PermissionDenied, Some(endpoints), Some(true)) => {
            Check::fine("port", format!("{address} ({key}) answers, and the product runs, process {}", endpoints.pid))
        }
        (ErrorKind::PermissionDenied, Some(_), _) => Check::failed(
            "port",
            format!("{address} ({key}) does not answer, though the product runs"),
            "compare ListenStream= and ListenDatagram= of its socket unit with this key (`systemctl status 'nameplate*.socket'`), then restart the product",
        ),
        (ErrorKind::PermissionDenied, None, _) => Check::look(
            "port",
            format!("{address} ({key}) may not be bound by this user, so systemd must hold it for the product"),
            "fine with the socket units of infra/systemd (`systemctl status 'nameplate*.socket'`); without them give the program CAP_NET_BIND_SERVICE",
        ),
        _ => Check::failed("port", format!("{address} ({key}): {error}"), "choose an address that this machine has"),
    }
}

/// Whether systemd-resolved's stub listens beside a port 53 of all addresses. A file that does not read shows nothing.
fn resolved_stub_listens() -> bool {
    let (Ok(stub), Ok(sockets)) = (RESOLVED_STUB.parse::<SocketAddr>(), std::fs::read_to_string("/proc/net/tcp")) else { return false };
    listens(&sockets, stub)
}

/// Whether the kernel's list of IPv4 sockets has one that listens at this address. Source: proc(5), /proc/net/tcp (read 2026-11).
fn listens(sockets: &str, address: SocketAddr) -> bool {
    /// TCP_LISTEN.
    const LISTENS: &str = "0A";
    let IpAddr::V4(ip) = address.ip() else { return false };
    // The address stands there as the number that its bytes in network order are to this machine.
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
    sockets.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(wanted.as_str()) && fields.nth(1) == Some(LISTENS)
    })
}

fn stub_in_the_way(answers: SocketAddr) -> Check {
    Check::look(
        "port",
        format!("systemd-resolved has {RESOLVED_STUB}, and {answers} (listen.answers) is that port of every address: the two collide"),
        "set DNSStubListener=no in /etc/systemd/resolved.conf, or name the public address in listen.answers and in nameplate-answers.socket",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Program, on_aws},
        doctor::Verdict,
    };

    fn running() -> Endpoints {
        Endpoints {
            pid: 7,
            api: "http://127.0.0.1:7080".into(),
            https: "[::]:443".into(),
            http: "[::]:80".into(),
            private: "127.0.0.1:8081".into(),
            dns_admin: None,
            ca_root: None,
            ca_directory: String::new(),
            ca_control: None,
        }
    }

    fn judged(bound: Result<(), ErrorKind>, answers: Option<bool>, running: Option<&Endpoints>) -> Check {
        let port = Port { address: "[::]:443".parse().unwrap(), key: "listen.https" };
        verdict(port, bound.map_err(io::Error::from), answers, running)
    }

    #[test]
    fn a_port_that_systemd_holds_for_the_product_is_no_failure() {
        let running = running();
        let denied = Err(ErrorKind::PermissionDenied);
        let held = judged(denied, Some(true), Some(&running));
        assert_eq!(held.verdict, Verdict::Fine, "{held:?}");
        let not_yet = judged(denied, None, None);
        assert_eq!(not_yet.verdict, Verdict::Look, "{not_yet:?}");
        assert!(not_yet.saw.contains("systemd must hold it"), "{not_yet:?}");
        let silent = judged(denied, Some(false), Some(&running));
        assert_eq!(silent.verdict, Verdict::Failed, "{silent:?}");
    }

    #[test]
    fn a_port_is_judged_by_whether_it_is_taken_and_the_product_runs() {
        let running = running();
        for (bound, running, verdict) in [
            (Ok(()), None, Verdict::Fine),
            (Ok(()), Some(&running), Verdict::Failed),
            (Err(ErrorKind::AddrInUse), Some(&running), Verdict::Fine),
            (Err(ErrorKind::AddrInUse), None, Verdict::Look),
            (Err(ErrorKind::AddrNotAvailable), None, Verdict::Failed),
            (Err(ErrorKind::AddrNotAvailable), Some(&running), Verdict::Failed),
        ] {
            let check = judged(bound, None, running);
            assert_eq!(check.verdict, verdict, "{check:?}");
        }
    }

    #[test]
    fn nobody_is_asked_while_the_product_does_not_run() {
        let denied = Err(io::Error::from(ErrorKind::PermissionDenied));
        assert!(!asks_the_product(&denied, None), "a connection would make systemd start it");
        assert!(asks_the_product(&denied, Some(&running())));
        assert!(!asks_the_product(&Ok(()), Some(&running())));
    }

    #[test]
    fn a_listener_is_found_in_the_kernels_list_and_nothing_else_is() {
        let held = TcpListener::bind("127.0.0.53:0").unwrap();
        let address = held.local_addr().unwrap();
        let listed = || std::fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(listens(&listed(), address));
        assert!(!listens(&listed(), SocketAddr::new("127.0.0.54".parse().unwrap(), address.port())));
        drop(held);
        assert!(!listens(&listed(), address));
    }

    #[tokio::test]
    async fn a_machine_that_does_not_serve_the_answer_zone_is_not_asked_for_its_port() {
        let asked = async |config: &Config| {
            let told = check(config, None).await;
            told.iter().filter(|check| check.saw.contains("listen.answers") && !check.saw.contains("systemd-resolved")).count()
        };
        assert_eq!(asked(&Config::read(Program::Dev, "", []).unwrap()).await, 2, "by TCP and by UDP");
        if let Some(hosted) = on_aws(Some("Z0123")) {
            assert_eq!(asked(&hosted).await, 0);
        }
    }
}
