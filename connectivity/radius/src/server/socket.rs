//! Datagrams in and out, in batches, each answered from the address that it came to.
//!
//! A socket that is bound to no address of its own has several. The kernel would choose one by the
//! route to the sender, and the sender drops an answer that comes from another address than it
//! asked. So the kernel is asked for the address with each datagram, and told with each answer.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::accounting::Path;
use crate::wire::PACKET_BYTES_MAX;

/// Datagrams of one system call.
pub(super) const BATCH: usize = 32;

/// Receive buffer asked of the kernel: about 4,000 packets of 250 bytes, with what the kernel
/// counts beside them. Without CAP_NET_ADMIN it grants at most net.core.rmem_max.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// A read that failed is tried again after this, so that a shortage does not spin.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// The socket of a server.
pub(super) struct BatchSocket {
    socket: UdpSocket,
    /// Whether it has several addresses.
    is_everywhere: bool,
}

/// Datagrams as they came from the kernel; the memory is used again by the next read.
pub(super) struct Received {
    buffers: Vec<u8>,
    datagrams: Vec<(Path, usize)>,
}

impl Default for Received {
    fn default() -> Self {
        Self { buffers: vec![0; BATCH * PACKET_BYTES_MAX], datagrams: Vec::with_capacity(BATCH) }
    }
}

impl Received {
    /// The datagrams of the last read: along which path each came, and what.
    pub(super) fn datagrams(&self) -> impl ExactSizeIterator<Item = (Path, &[u8])> {
        let pieces = self.buffers.chunks_exact(PACKET_BYTES_MAX);
        self.datagrams.iter().zip(pieces).map(|((path, length), piece)| {
            // The kernel cuts what is longer than a packet may be.
            (*path, piece.get(..*length).unwrap_or(piece))
        })
    }

    fn fill(&mut self, fd: i32, is_everywhere: bool) -> io::Result<()> {
        // Made anew each time: the kernel shortens the space for messages to what it has used.
        let space = is_everywhere.then(|| cmsg_space!(in6_pktinfo));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, space);
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
            .buffers
            .chunks_exact_mut(PACKET_BYTES_MAX)
            .map(|piece| [IoSliceMut::new(piece)])
            .collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let results = socket::recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None)?;
        for result in results {
            let remote = result.address.as_ref().and_then(socket_address);
            // The kernel names the sender of every UDP datagram; the unspecified address, which
            // no client has, stands for one that it could not.
            let remote = remote.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
            let local = result.cmsgs().ok().and_then(|mut told| told.find_map(local_address));
            self.datagrams.push((Path { remote, local }, result.bytes));
        }
        Ok(())
    }
}

impl BatchSocket {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        // The unprivileged call is the fallback: it grants less, never an error that matters.
        if socket::setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            socket::setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
        }
        let address = socket.local_addr()?;
        let is_everywhere = address.ip().is_unspecified();
        if is_everywhere && address.is_ipv4() {
            socket::setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else if is_everywhere {
            socket::setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket, is_everywhere })
    }

    /// Waits until a read will find something.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Reads what is there, at most [`BATCH`] datagrams; nothing when none is there. An error is
    /// one that no later read can mend.
    pub(super) async fn receive(&self, received: &mut Received) -> io::Result<()> {
        received.datagrams.clear();
        let fd = self.socket.as_raw_fd();
        let fill = || received.fill(fd, self.is_everywhere);
        match self.socket.try_io(Interest::READABLE, fill) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // An ICMP answer to something sent before, or a shortage: says nothing of the next.
            Err(error) if !is_fatal(&error) => {
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                Ok(())
            }
            other => other,
        }
    }

    /// Sends all of `outgoing`, waiting where the kernel's buffer is full. What the kernel refuses
    /// for good is dropped: its sender asks again. Returns how many were.
    pub(super) async fn send(&self, outgoing: &mut Vec<(Path, Vec<u8>)>) -> io::Result<u64> {
        let fd = self.socket.as_raw_fd();
        let (mut next, mut refused) = (0, 0);
        while let Some(rest) = outgoing.get(next..).filter(|rest| !rest.is_empty()) {
            match self.socket.try_io(Interest::WRITABLE, || write(fd, rest)) {
                // The kernel takes one or says why not.
                Ok(sent) => next += sent.max(1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await?;
                }
                Err(error) if !is_fatal(&error) => {
                    next += 1;
                    refused += 1;
                }
                Err(error) => return Err(error),
            }
        }
        outgoing.clear();
        Ok(refused)
    }
}

/// Gives the first datagrams that leave from one address to the kernel, at most [`BATCH`]; returns
/// how many it took.
fn write(fd: i32, outgoing: &[(Path, Vec<u8>)]) -> io::Result<usize> {
    let local = outgoing.first().and_then(|(path, _)| path.local);
    let batch = || outgoing.iter().take(BATCH).take_while(|(path, _)| path.local == local);
    let slices: Vec<[IoSlice<'_>; 1]> = batch().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
    let peers: Vec<Option<SockaddrStorage>> =
        batch().map(|(path, _)| Some(SockaddrStorage::from(path.remote))).collect();
    let space = local.map(|local| match local {
        IpAddr::V4(_) => cmsg_space!(in_pktinfo),
        IpAddr::V6(_) => cmsg_space!(in6_pktinfo),
    });
    let mut headers = MultiHeaders::preallocate(BATCH, space);
    let flags = MsgFlags::MSG_DONTWAIT;
    let sent = match local {
        None => socket::sendmmsg(fd, &mut headers, &slices, &peers, [], flags)?.count(),
        Some(IpAddr::V4(v4)) => {
            let from = in_addr { s_addr: u32::from_ne_bytes(v4.octets()) };
            let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: from };
            let told = [ControlMessage::Ipv4PacketInfo(&info)];
            socket::sendmmsg(fd, &mut headers, &slices, &peers, told, flags)?.count()
        }
        Some(IpAddr::V6(v6)) => {
            let from = in6_addr { s6_addr: v6.octets() };
            let info = in6_pktinfo { ipi6_addr: from, ipi6_ifindex: 0 };
            let told = [ControlMessage::Ipv6PacketInfo(&info)];
            socket::sendmmsg(fd, &mut headers, &slices, &peers, told, flags)?.count()
        }
    };
    Ok(sent)
}

/// To which of our addresses a datagram came.
fn local_address(told: ControlMessageOwned) -> Option<IpAddr> {
    match told {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    }
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    storage.as_sockaddr_in6().map(|v6| {
        let (flow, scope) = (v6.flowinfo(), v6.scope_id());
        SocketAddr::V6(SocketAddrV6::new(v6.ip(), v6.port(), flow, scope))
    })
}

/// Errors after which a socket cannot be used any more. All others are about one destination or
/// the moment.
fn is_fatal(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EBADF | Errno::ENOTSOCK | Errno::EFAULT))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn socket(address: &str) -> (BatchSocket, u16) {
        let socket = UdpSocket::bind(address).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        (BatchSocket::new(socket).unwrap(), port)
    }

    /// Takes `count` datagrams and sends each back.
    async fn echo(socket: &BatchSocket, count: usize) {
        let (mut received, mut echoed) = (Received::default(), 0);
        while echoed < count {
            socket.readable().await.unwrap();
            socket.receive(&mut received).await.unwrap();
            let mut outgoing: Vec<_> =
                received.datagrams().map(|(path, bytes)| (path, bytes.to_vec())).collect();
            echoed += outgoing.len();
            assert_eq!(socket.send(&mut outgoing).await.unwrap(), 0);
        }
    }

    /// A packet core drops an answer that comes from another address than it asked. On a machine
    /// with several, a server on 0.0.0.0 answered from the one that the route to the sender
    /// prefers.
    #[tokio::test]
    async fn an_answer_comes_from_the_address_that_was_asked() {
        let (server, port) = socket("0.0.0.0:0").await;
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked = ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.1"];
        for address in asked {
            client.send_to(address.as_bytes(), (address, port)).unwrap();
        }
        echo(&server, asked.len()).await;
        for address in asked {
            let mut buffer = [0; 32];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], address.as_bytes());
            assert_eq!(from, SocketAddr::new(address.parse().unwrap(), port));
        }
    }

    /// The unspecified address of IPv6 takes IPv4 as well, where the system leaves it so.
    #[tokio::test]
    async fn a_socket_of_both_families_answers_both() {
        let (server, port) = socket("[::]:0").await;
        let six = std::net::UdpSocket::bind("[::1]:0").unwrap();
        six.send_to(b"six", ("::1", port)).unwrap();
        echo(&server, 1).await;
        let mut buffer = [0; 8];
        let from: SocketAddr = (Ipv6Addr::LOCALHOST, port).into();
        assert_eq!(six.recv_from(&mut buffer).unwrap(), (3, from));

        let four = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        if std::fs::read("/proc/sys/net/ipv6/bindv6only").is_ok_and(|only| only == b"0\n") {
            four.send_to(b"four", ("127.0.0.2", port)).unwrap();
            echo(&server, 1).await;
            let from: SocketAddr = (Ipv4Addr::new(127, 0, 0, 2), port).into();
            assert_eq!(four.recv_from(&mut buffer).unwrap(), (4, from));
        }
    }

    #[tokio::test]
    async fn more_than_a_batch_comes_and_goes() {
        let (server, port) = socket("127.0.0.1:0").await;
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..100_u8 {
            client.send_to(&[number], ("127.0.0.1", port)).unwrap();
        }
        echo(&server, 100).await;
        for number in 0..100_u8 {
            let mut buffer = [0; 8];
            assert_eq!(client.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
    }

    #[test]
    fn only_a_broken_socket_is_fatal() {
        assert!(is_fatal(&io::Error::from(Errno::EBADF)));
        for passing in [Errno::ECONNREFUSED, Errno::ENOBUFS, Errno::EHOSTUNREACH, Errno::ENETDOWN] {
            assert!(!is_fatal(&io::Error::from(passing)), "{passing}");
        }
    }
}
