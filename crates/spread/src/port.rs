//! The port that a host listens on: for addresses of both kinds, where there are both.
//!
//! Whoever comes by IPv4 to a socket for both kinds has an address like `::ffff:10.0.0.9` there. Nobody else calls it
//! that: everywhere else it is `10.0.0.9`.

use rustix::io::Errno;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the kernel has taken and this process not yet.
const BACKLOG: u32 = 1024;

/// Listens on this address; on `[::]` for IPv4, too, whatever the system's default is.
///
/// Errors: the address cannot be listened on.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
            socket
        }
    };
    // The port of a process that ended a moment ago is free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Listens on this port of all addresses; 0: on any port. Of IPv4 alone where there is no IPv6.
///
/// Errors: as [`listen`].
pub fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    match listen((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(e) if is_absent(&e) => listen((Ipv4Addr::UNSPECIFIED, port).into()),
        other => other,
    }
}

/// There is no IPv6: not in the kernel, or not on any link (`disable_ipv6`).
fn is_absent(e: &io::Error) -> bool {
    let errors = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    errors
        .map(Errno::raw_os_error)
        .map(Some)
        .contains(&e.raw_os_error())
}

/// The next connection, and from whom, as others know that.
pub(crate) async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, from) = listener.accept().await?;
    Ok((stream, plain(from)))
}

/// An IPv4 address is one, also where it is written as one of IPv6.
pub fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn both_kinds_come_in_and_have_their_own_addresses() {
        let listener = listen_everywhere(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        // A machine without IPv6 has only the first.
        for address in [v4, v6]
            .into_iter()
            .filter(|a| a.is_ipv4() || listener.local_addr().unwrap().is_ipv6())
        {
            let stream = TcpStream::connect(address).await.unwrap();
            let (_, from) = accept(&listener).await.unwrap();
            assert_eq!(from, stream.local_addr().unwrap());
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_no_lack_of_ipv6() {
        let taken = listen_everywhere(0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let e = listen_everywhere(port).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::AddrInUse);
        assert!(is_absent(&Errno::ADDRNOTAVAIL.into()) && is_absent(&Errno::AFNOSUPPORT.into()));
    }

    #[test]
    fn addresses_are_what_others_know() {
        let plain = |text: &str| plain(text.parse().unwrap()).to_string();
        assert_eq!(plain("[::ffff:10.0.0.9]:7117"), "10.0.0.9:7117");
        assert_eq!(plain("[2001:db8::9]:7117"), "[2001:db8::9]:7117");
        assert_eq!(plain("[fe80::1%3]:7117"), "[fe80::1%3]:7117");
    }
}
