//! Datagrams in and out, in batches: nothing else.
//!
//! One socket per core shares the port by SO_REUSEPORT; the kernel spreads devices over them by
//! address and port, so that all datagrams of one device meet the same socket. Reading takes up
//! to [`BATCH`] datagrams per system call (recvmmsg), writing likewise (sendmmsg).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, MultiHeaders, SockaddrStorage};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

/// Datagrams per system call. 32 costs 1 % more per datagram than 64 and half the memory (measured
/// on loopback with 64-byte datagrams).
pub(crate) const BATCH: usize = 32;

/// Bytes kept of one datagram: above what a network delivers unfragmented. The kernel cuts what is
/// longer, so that a message of [`MESSAGE_BYTES_MAX`] counts as too long and never as a valid one;
/// a DTLS record around it takes up to 77 bytes more (header, connection ID, IV, MAC and padding).
pub(crate) const DATAGRAM_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 128;

/// The length from which a message is too long.
pub(crate) const MESSAGE_BYTES_MAX: usize = 2_048;

/// Receive buffer asked of the kernel for each socket: about 5,000 small datagrams, 50 ms at
/// 100,000 per second. Without CAP_NET_ADMIN the kernel grants at most net.core.rmem_max.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// A socket that has its port, but is not yet driven by a runtime.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    socket: Socket,
    /// The address that it is bound to.
    pub(crate) address: SocketAddr,
    /// The number by which the kernel lists it in /proc/net/udp.
    pub(crate) inode: u64,
}

/// A read that failed is tried again after this, so that a shortage does not spin.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// One of the sockets of a listener.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    socket: tokio::net::UdpSocket,
}

/// Datagrams as they came from the kernel; the memory is used again by the next read.
pub(crate) struct Received {
    buffers: Vec<u8>,
    headers: MultiHeaders<SockaddrStorage>,
    datagrams: Vec<(SocketAddr, usize)>,
}

/// Datagrams to be sent; the memory is used again.
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    datagrams: Vec<(SocketAddr, std::ops::Range<usize>)>,
    headers: MultiHeaders<SockaddrStorage>,
}

impl BoundSocket {
    /// Binds to `address`, together with the other sockets of the same listener.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = open(address)?;
        socket.set_nonblocking(true)?;
        let inode = nix::sys::stat::fstat(&socket)?.st_ino;
        let unnamed = || io::Error::other("the kernel names no internet address of the socket");
        let address = socket.local_addr()?.as_socket().ok_or_else(unnamed)?;
        Ok(Self { socket, address, inode })
    }
}

impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl UdpSocket {
    /// Hands the socket to the tokio runtime that this runs in.
    pub(crate) fn new(bound: BoundSocket) -> io::Result<Self> {
        Ok(Self { socket: tokio::net::UdpSocket::from_std(bound.socket.into())? })
    }

    /// Waits until a read will find something.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Reads what is there, at most [`BATCH`] datagrams; nothing when none is there. An error is
    /// one that no later read can mend.
    pub(crate) async fn receive(&self, received: &mut Received) -> io::Result<()> {
        received.datagrams.clear();
        let fd = self.socket.as_raw_fd();
        match self.socket.try_io(Interest::READABLE, || received.fill(fd)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // An ICMP answer to something sent before, or a shortage: says nothing of the next.
            Err(error) if !is_fatal(&error) => {
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                Ok(())
            }
            other => other,
        }
    }

    /// Sends all of `outgoing`, waiting where the kernel's buffer is full. A datagram that the
    /// kernel refuses for good is dropped: its device will retransmit. Returns how many were.
    pub(crate) async fn send(&self, outgoing: &mut Outgoing) -> io::Result<usize> {
        let fd = self.socket.as_raw_fd();
        let (mut next, mut refused) = (0, 0);
        while next < outgoing.datagrams.len() {
            match self.socket.try_io(Interest::WRITABLE, || outgoing.write(fd, next)) {
                Ok(sent) => next += sent,
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

/// A socket that is bound, but not yet in a runtime.
fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    // The unprivileged call is the fallback: it grants less, never an error that matters.
    if nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::RcvBufForce,
        &RECEIVE_BUFFER_BYTES,
    )
    .is_err()
    {
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Errors after which a socket cannot be used any more. All others are about one destination or
/// the moment: tunnels answer ENOKEY or EDESTADDRREQ for a peer that is away, drivers ENETDOWN.
fn is_fatal(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EBADF | Errno::ENOTSOCK | Errno::EFAULT))
}

impl Default for Received {
    fn default() -> Self {
        Self {
            buffers: vec![0; BATCH * DATAGRAM_BYTES_MAX],
            headers: MultiHeaders::preallocate(BATCH, None),
            datagrams: Vec::with_capacity(BATCH),
        }
    }
}

impl Received {
    /// The datagrams of the last read: who sent, and what.
    pub(crate) fn datagrams(&self) -> impl ExactSizeIterator<Item = (SocketAddr, &[u8])> {
        self.datagrams.iter().enumerate().map(|(index, (peer, length))| {
            let start = index * DATAGRAM_BYTES_MAX;
            (*peer, &self.buffers[start..start + length])
        })
    }

    fn fill(&mut self, fd: i32) -> io::Result<()> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
            .buffers
            .chunks_exact_mut(DATAGRAM_BYTES_MAX)
            .map(|chunk| [IoSliceMut::new(chunk)])
            .collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let results = socket::recvmmsg(fd, &mut self.headers, slices.iter_mut(), flags, None)?;
        for result in results {
            let peer = result.address.as_ref().and_then(socket_address);
            // The kernel names the sender of every UDP datagram; the unspecified address, which
            // no SIM has, stands for one that it could not.
            let peer = peer.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
            self.datagrams.push((peer, result.bytes));
        }
        Ok(())
    }
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(BATCH * 64),
            datagrams: Vec::with_capacity(BATCH),
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }
}

impl Outgoing {
    /// Adds a datagram to `peer`.
    pub(crate) fn push(&mut self, peer: SocketAddr, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.datagrams.push((peer, start..self.bytes.len()));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }

    /// Gives up to [`BATCH`] datagrams from `next` to the kernel; returns how many it took.
    fn write(&mut self, fd: i32, next: usize) -> io::Result<usize> {
        let batch = &self.datagrams[next..self.datagrams.len().min(next + BATCH)];
        let slices: Vec<[IoSlice<'_>; 1]> =
            batch.iter().map(|(_, range)| [IoSlice::new(&self.bytes[range.clone()])]).collect();
        let peers: Vec<Option<SockaddrStorage>> =
            batch.iter().map(|(peer, _)| Some(SockaddrStorage::from(*peer))).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = socket::sendmmsg(fd, &mut self.headers, &slices, &peers, [], flags)?;
        Ok(sent.count())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (UdpSocket, SocketAddr) {
        let bound = BoundSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.address;
        (UdpSocket::new(bound).unwrap(), address)
    }

    async fn next(socket: &UdpSocket, received: &mut Received) {
        while received.datagrams.is_empty() {
            socket.readable().await.unwrap();
            socket.receive(received).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_batch_arrives_with_its_senders_and_is_answered() {
        let (socket, address) = socket();
        let first = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
        let second = std::net::UdpSocket::bind("127.0.0.3:0").unwrap();
        first.send_to(b"one", address).unwrap();
        second.send_to(b"", address).unwrap();
        let mut received = Received::default();
        next(&socket, &mut received).await;
        let seen: Vec<_> =
            received.datagrams().map(|(peer, bytes)| (peer, bytes.to_vec())).collect();
        assert_eq!(seen[0], (first.local_addr().unwrap(), b"one".to_vec()));
        assert_eq!(seen[1], (second.local_addr().unwrap(), Vec::new()));

        let mut outgoing = Outgoing::default();
        for number in 0..100_u8 {
            outgoing.push(first.local_addr().unwrap(), &[number]);
        }
        assert_eq!(socket.send(&mut outgoing).await.unwrap(), 0);
        for number in 0..100_u8 {
            let mut buffer = [0; 8];
            assert_eq!(first.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
    }

    #[test]
    fn only_a_broken_socket_is_fatal() {
        assert!(is_fatal(&io::Error::from(Errno::EBADF)));
        for passing in [Errno::ENOKEY, Errno::EDESTADDRREQ, Errno::ENETDOWN, Errno::ENOMEM] {
            assert!(!is_fatal(&io::Error::from(passing)), "{passing}");
        }
    }

    #[test]
    fn sockets_of_one_listener_share_the_port() {
        let first = BoundSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let second = BoundSocket::bind(first.address).unwrap();
        assert_eq!(first.address, second.address);
        assert_ne!(first.inode, second.inode);
    }

    #[tokio::test]
    async fn an_oversized_datagram_is_seen_as_such() {
        let (socket, address) = socket();
        let device = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
        device.send_to(&[0; 1_501], address).unwrap();
        let mut received = Received::default();
        next(&socket, &mut received).await;
        assert_eq!(received.datagrams().next().unwrap().1.len(), 1_501);
    }
}
