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

/// Datagrams read with one system call.
pub(super) const BATCH: usize = 32;

/// Datagrams that leave together at most (`UDP_MAX_SEGMENTS` of Linux 4.18).
const SEGMENTS_MAX: usize = 64;

/// A longer datagram leaves alone: the kernel makes no fragments of those that leave together, and
/// every network of IPv4 takes so much (RFC 791 §3.2).
const SEGMENT_BYTES_MAX: usize = 512;

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
    /// Whether answers leave together, until the kernel refuses it.
    is_segmenting: bool,
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
        Ok(Self { socket, is_everywhere, is_segmenting: true })
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
    pub(super) async fn send(&mut self, outgoing: &mut Vec<(Path, Vec<u8>)>) -> io::Result<u64> {
        let fd = self.socket.as_raw_fd();
        let (mut next, mut refused) = (0, 0);
        while let Some(rest) = outgoing.get(next..).filter(|rest| !rest.is_empty()) {
            let together = if self.is_segmenting { leading_alike(rest) } else { 1 };
            let write = || write(fd, &rest[..together]);
            match self.socket.try_io(Interest::WRITABLE, write) {
                Ok(()) => next += together,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await?;
                }
                Err(error) if together > 1 && is_against_segments(&error) => {
                    self.is_segmenting = false;
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

/// How many of the first datagrams can leave together: those of one path and one length.
fn leading_alike(outgoing: &[(Path, Vec<u8>)]) -> usize {
    let Some((path, first)) = outgoing.first() else { return 0 };
    let most = if first.len() <= SEGMENT_BYTES_MAX { SEGMENTS_MAX } else { 1 };
    let is_alike = |(other, bytes): &&(Path, Vec<u8>)| other == path && bytes.len() == first.len();
    outgoing.iter().take(most).take_while(is_alike).count()
}

/// Gives datagrams of one path and one length to the kernel, which takes all or none of them.
///
/// More than one pass through it as one, and are cut apart at its end (`UDP_SEGMENT`, see udp(7)).
/// An answer is 20 bytes: nearly all that it costs is its way through the kernel.
fn write(fd: i32, alike: &[(Path, Vec<u8>)]) -> io::Result<()> {
    let Some((path, first)) = alike.first() else { return Ok(()) };
    let slices: Vec<IoSlice<'_>> = alike.iter().map(|(_, bytes)| IoSlice::new(bytes)).collect();
    let (v4, v6, length);
    let mut told = Vec::with_capacity(2);
    match path.local {
        None => {}
        Some(IpAddr::V4(from)) => {
            let from = in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
            v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: from };
            told.push(ControlMessage::Ipv4PacketInfo(&v4));
        }
        Some(IpAddr::V6(from)) => {
            v6 = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: from.octets() }, ipi6_ifindex: 0 };
            told.push(ControlMessage::Ipv6PacketInfo(&v6));
        }
    }
    if alike.len() > 1 {
        length = u16::try_from(first.len()).map_err(io::Error::other)?;
        told.push(ControlMessage::UdpGsoSegments(&length));
    }
    let to = SockaddrStorage::from(path.remote);
    socket::sendmsg(fd, &slices, &told, MsgFlags::MSG_DONTWAIT, Some(&to))?;
    Ok(())
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

/// Where the kernel is too old, or no checksums are made on the way out.
fn is_against_segments(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EINVAL | Errno::EIO))
}

#[cfg(test)]
mod tests {
    use nix::libc;
    use nix::sys::socket::sockopt::SetBool;

    use super::*;

    /// Has a socket make no checksums.
    #[derive(Clone)]
    struct NoCheck;
    nix::setsockopt_impl!(NoCheck, libc::SOL_SOCKET, libc::SO_NO_CHECK, bool, SetBool);

    async fn socket(address: &str) -> (BatchSocket, u16) {
        let socket = UdpSocket::bind(address).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        (BatchSocket::new(socket).unwrap(), port)
    }

    /// Takes `count` datagrams and sends each back.
    async fn echo(socket: &mut BatchSocket, count: usize) {
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
        let (mut server, port) = socket("0.0.0.0:0").await;
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked = ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.1"];
        for address in asked {
            client.send_to(address.as_bytes(), (address, port)).unwrap();
        }
        echo(&mut server, asked.len()).await;
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
        let (mut server, port) = socket("[::]:0").await;
        let six = std::net::UdpSocket::bind("[::1]:0").unwrap();
        six.send_to(b"six", ("::1", port)).unwrap();
        echo(&mut server, 1).await;
        let mut buffer = [0; 8];
        let from: SocketAddr = (Ipv6Addr::LOCALHOST, port).into();
        assert_eq!(six.recv_from(&mut buffer).unwrap(), (3, from));

        let four = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        if std::fs::read("/proc/sys/net/ipv6/bindv6only").is_ok_and(|only| only == b"0\n") {
            four.send_to(b"four", ("127.0.0.2", port)).unwrap();
            echo(&mut server, 1).await;
            let from: SocketAddr = (Ipv4Addr::new(127, 0, 0, 2), port).into();
            assert_eq!(four.recv_from(&mut buffer).unwrap(), (4, from));
        }
    }

    #[tokio::test]
    async fn more_than_a_batch_comes_and_goes() {
        let (mut server, port) = socket("127.0.0.1:0").await;
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..100_u8 {
            client.send_to(&[number], ("127.0.0.1", port)).unwrap();
        }
        echo(&mut server, 100).await;
        for number in 0..100_u8 {
            let mut buffer = [0; 8];
            assert_eq!(client.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
    }

    /// Answers to two clients, short ones and long ones, some of which can leave together.
    async fn answer_two_clients(server: &mut BatchSocket) {
        let lengths = [20, 20, 20, 30, 30, 20, 1_400, 1_400, 3_000, 3_000, 20];
        let mut outgoing = Vec::new();
        let clients = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        for client in &clients {
            let path = Path::from(client.local_addr().unwrap());
            let answers = lengths.iter().zip(1_u8..);
            outgoing.extend(answers.map(|(length, number)| (path, vec![number; *length])));
        }
        assert_eq!(server.send(&mut outgoing).await.unwrap(), 0);
        for client in clients {
            for (length, number) in lengths.iter().zip(1_u8..) {
                let mut buffer = [0; PACKET_BYTES_MAX];
                assert_eq!(client.recv(&mut buffer).unwrap(), *length);
                assert_eq!(&buffer[..*length], vec![number; *length]);
            }
        }
    }

    #[tokio::test]
    async fn answers_of_all_lengths_come_whole_and_in_order() {
        let (mut server, _) = socket("127.0.0.1:0").await;
        answer_two_clients(&mut server).await;
        assert!(server.is_segmenting);
    }

    /// Without checksums the kernel cuts nothing apart.
    #[tokio::test]
    async fn where_answers_cannot_leave_together_each_leaves_alone() {
        let (mut server, _) = socket("127.0.0.1:0").await;
        socket::setsockopt(&server.socket, NoCheck, &true).unwrap();
        answer_two_clients(&mut server).await;
        assert!(!server.is_segmenting);
    }

    #[test]
    fn only_a_broken_socket_is_fatal() {
        assert!(is_fatal(&io::Error::from(Errno::EBADF)));
        for passing in [Errno::ECONNREFUSED, Errno::ENOBUFS, Errno::EHOSTUNREACH, Errno::ENETDOWN] {
            assert!(!is_fatal(&io::Error::from(passing)), "{passing}");
        }
    }
}
