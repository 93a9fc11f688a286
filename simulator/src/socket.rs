//! The one socket that all devices share: datagrams in batches, each with a source address of its
//! own, each arrival with the address that it was sent to.
//!
//! This is the crate's only place with system calls of its own (`sendmmsg(2)`, `recvmmsg(2)`,
//! `ppoll(2)`, `setsockopt(2)`). The source address travels beside the datagram as `IP_PKTINFO`
//! (`ip(7)`): `ipi_spec_dst` on the way out, `ipi_addr` on the way in.
#![allow(unsafe_code, reason = "system calls that carry ancillary data")]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

/// Datagrams that one system call moves at most; larger batches gained nothing when measured.
pub(crate) const BATCH: usize = BATCH_COUNT as usize;
const BATCH_COUNT: libc::c_uint = 64;

/// Bytes kept of an arriving datagram; an answer's code and token stand at its beginning.
const ARRIVAL_BYTES: usize = 2_048;

/// Receive buffer asked for, in bytes: a quarter of a second of answers at 200,000 a second, each
/// charged about 768 bytes by the kernel.
const RECEIVE_BUFFER_BYTES: libc::c_int = 32 << 20;

/// Words for the ancillary data of one datagram: `in_pktinfo` takes 32 bytes with its header, the
/// count of dropped datagrams 24.
const CONTROL_WORDS: usize = 8;

/// Datagrams that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    letters: Vec<Letter>,
}

#[derive(Debug, Clone, Copy)]
struct Letter {
    start: usize,
    end: usize,
    source: Ipv4Addr,
    destination: SocketAddrV4,
}

/// A datagram that arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    /// Who sent it.
    pub(crate) from: SocketAddrV4,
    /// Which address it was sent to.
    pub(crate) to: Ipv4Addr,
    /// The first bytes of it.
    pub(crate) bytes: &'a [u8],
}

/// A socket bound to one port, for any source address of this machine.
#[derive(Debug)]
pub(crate) struct FleetSocket {
    socket: UdpSocket,
    inbox: Box<Inbox>,
    dropped: u32,
}

#[derive(Debug)]
struct Inbox {
    bytes: [[u8; ARRIVAL_BYTES]; BATCH],
    names: [libc::sockaddr_in; BATCH],
    controls: [[u64; CONTROL_WORDS]; BATCH],
}

impl Outbox {
    /// Adds the datagram that `write` appends.
    pub(crate) fn push(
        &mut self,
        source: Ipv4Addr,
        destination: SocketAddrV4,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.letters.push(Letter { start, end: self.bytes.len(), source, destination });
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    /// All that waits, as (source, bytes), instead of sending it.
    #[cfg(test)]
    pub(crate) fn take(&mut self) -> Vec<(Ipv4Addr, Vec<u8>)> {
        let letters = self.letters.iter();
        let taken = letters
            .map(|letter| (letter.source, self.bytes[letter.start..letter.end].to_vec()))
            .collect();
        self.clear();
        taken
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.letters.clear();
    }
}

impl FleetSocket {
    /// Binds `address`; port 0 takes a free one.
    pub(crate) fn bind(address: SocketAddrV4) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        for (force, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            // Only root may exceed the system's limit; others get as much as it allows.
            set_option(&socket, libc::SOL_SOCKET, force, RECEIVE_BUFFER_BYTES)
                .or_else(|_| set_option(&socket, libc::SOL_SOCKET, plain, RECEIVE_BUFFER_BYTES))?;
        }
        Ok(Self { socket, inbox: Inbox::boxed(), dropped: 0 })
    }

    /// The address bound.
    pub(crate) fn local_port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Datagrams that the kernel dropped because nobody read them in time, as last heard.
    pub(crate) const fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Sends all that waits, and empties the outbox even where it fails.
    pub(crate) fn send(&self, outbox: &mut Outbox) -> io::Result<()> {
        let mut first = 0;
        let result = loop {
            if first == outbox.letters.len() {
                break Ok(());
            }
            match self.send_some(&outbox.bytes, &outbox.letters[first..]) {
                Ok(count) => first += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The network card's queue is full: that is over in much less than this.
                    if let Err(error) = self.poll(libc::POLLOUT, Duration::from_millis(1)) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        outbox.clear();
        result
    }

    fn send_some(&self, bytes: &[u8], letters: &[Letter]) -> io::Result<usize> {
        let count = letters.len().min(BATCH);
        let mut names = [unspecified(); BATCH];
        let mut controls = [[0_u64; CONTROL_WORDS]; BATCH];
        let mut slices = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
        let mut headers = empty_headers();
        for (index, letter) in letters.iter().take(count).enumerate() {
            let payload = &bytes[letter.start..letter.end];
            slices[index].iov_base = payload.as_ptr().cast_mut().cast();
            slices[index].iov_len = payload.len();
            names[index] = to_name(letter.destination);
            let header = &mut headers[index].msg_hdr;
            address_header(header, &mut names[index], &mut slices[index]);
            header.msg_control = controls[index].as_mut_ptr().cast();
            write_source(header, letter.source);
        }
        // SAFETY: the first `count` headers point to `names`, `slices`, `controls` and `bytes`,
        // all of which outlive the call; the kernel only reads them and writes `msg_len`.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                libc::c_uint::try_from(count).unwrap_or(BATCH_COUNT),
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Hands over what has arrived, at most [`BATCH`] datagrams, without waiting; tells how many.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Arrival<'_>)) -> io::Result<usize> {
        let inbox = &mut *self.inbox;
        let mut slices = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
        let mut headers = empty_headers();
        for index in 0..BATCH {
            slices[index].iov_base = inbox.bytes[index].as_mut_ptr().cast();
            slices[index].iov_len = ARRIVAL_BYTES;
            let header = &mut headers[index].msg_hdr;
            address_header(header, &mut inbox.names[index], &mut slices[index]);
            header.msg_control = inbox.controls[index].as_mut_ptr().cast();
            header.msg_controllen = mem::size_of::<[u64; CONTROL_WORDS]>() as _;
        }
        // SAFETY: all headers point to `slices` and to the inbox, which outlive the call and are
        // not borrowed otherwise; lengths are those of the buffers.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH_COUNT,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        };
        for (index, header) in headers.iter().enumerate().take(received) {
            let (to, dropped) = read_control(&header.msg_hdr);
            self.dropped = dropped.unwrap_or(self.dropped);
            let length = (header.msg_len as usize).min(ARRIVAL_BYTES);
            let from = from_name(&inbox.names[index]);
            each(Arrival { from, to, bytes: &inbox.bytes[index][..length] });
        }
        Ok(received)
    }

    /// Waits until something arrived, at most for `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<()> {
        self.poll(libc::POLLIN, limit)
    }

    fn poll(&self, events: libc::c_short, limit: Duration) -> io::Result<()> {
        let mut entry = libc::pollfd { fd: self.socket.as_raw_fd(), events, revents: 0 };
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(limit.subsec_nanos()),
        };
        // SAFETY: one entry is passed and one is there; both pointers are valid during the call,
        // and a null signal mask leaves the mask alone.
        let ready = unsafe { libc::ppoll(&raw mut entry, 1, &raw const limit, ptr::null()) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Inbox {
    fn boxed() -> Box<Self> {
        Box::new(Self {
            bytes: [[0; ARRIVAL_BYTES]; BATCH],
            names: [unspecified(); BATCH],
            controls: [[0; CONTROL_WORDS]; BATCH],
        })
    }
}

fn set_option(
    socket: &UdpSocket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `value` is a C int that lives during the call, and its size is passed with it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn empty_headers() -> [libc::mmsghdr; BATCH] {
    // SAFETY: `mmsghdr` holds integers and raw pointers only, for which all zeros are valid.
    unsafe { mem::zeroed() }
}

fn address_header(
    header: &mut libc::msghdr,
    name: &mut libc::sockaddr_in,
    slice: &mut libc::iovec,
) {
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in>();
    header.msg_iov = slice;
    header.msg_iovlen = 1;
}

/// Writes the source address into the ancillary data that `header.msg_control` points to.
fn write_source(header: &mut libc::msghdr, source: Ipv4Addr) {
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let size = size_of::<libc::in_pktinfo>();
    // SAFETY: `msg_control` points to CONTROL_WORDS words, aligned for a `cmsghdr` and longer than
    // CMSG_SPACE(in_pktinfo) = 32 bytes, so the first header and its data lie inside of it.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size) as _;
        let control = libc::CMSG_FIRSTHDR(header);
        (*control).cmsg_level = libc::IPPROTO_IP;
        (*control).cmsg_type = libc::IP_PKTINFO;
        (*control).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::write_unaligned(libc::CMSG_DATA(control).cast(), info);
    }
}

/// The address that a datagram was sent to, and the count of dropped ones where it is told.
fn read_control(header: &libc::msghdr) -> (Ipv4Addr, Option<u32>) {
    let (mut to, mut dropped) = (Ipv4Addr::UNSPECIFIED, None);
    // SAFETY: the kernel filled `msg_control` and set `msg_controllen` to what it wrote; the CMSG
    // macros walk inside of these bounds, and each type read is the one that level and type name.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let data = libc::CMSG_DATA(control);
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    dropped = Some(ptr::read_unaligned(data.cast()));
                }
                _ => {}
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    (to, dropped)
}

/// The size of one of the few small types above, as system calls want it.
#[expect(clippy::cast_possible_truncation, reason = "these types have a few bytes each")]
const fn size_of<T>() -> libc::socklen_t {
    mem::size_of::<T>() as libc::socklen_t
}

#[expect(clippy::cast_possible_truncation, reason = "AF_INET is 2")]
const fn unspecified() -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    }
}

fn to_name(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        ..unspecified()
    }
}

fn from_name(name: &libc::sockaddr_in) -> SocketAddrV4 {
    let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
    SocketAddrV4::new(address, u16::from_be(name.sin_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_datagram_leaves_from_its_own_address_and_answers_find_their_way_back() {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let mut socket = FleetSocket::bind(any).unwrap();
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, server.local_addr().unwrap().port());

        let sources: Vec<Ipv4Addr> = (0..100).map(|last| Ipv4Addr::new(127, 20, 1, last)).collect();
        let mut outbox = Outbox::default();
        for source in &sources {
            outbox.push(*source, target, |bytes| bytes.extend_from_slice(&source.octets()));
        }
        socket.send(&mut outbox).unwrap();
        assert_eq!(outbox.len(), 0);

        let mut bytes = [0; 16];
        for source in &sources {
            let (length, peer) = server.recv_from(&mut bytes).unwrap();
            assert_eq!(peer.ip(), *source);
            assert_eq!(bytes[..length], source.octets());
            server.send_to(&bytes[..length], peer).unwrap();
        }
        let mut arrived = Vec::new();
        while arrived.len() < sources.len() {
            socket.wait(Duration::from_secs(5)).unwrap();
            let count = socket
                .receive(|arrival| {
                    assert_eq!(arrival.from, target);
                    assert_eq!(arrival.bytes, arrival.to.octets());
                    arrived.push(arrival.to);
                })
                .unwrap();
            assert!(count > 0, "{} answers are missing", sources.len() - arrived.len());
        }
        assert_eq!(arrived, sources);
        assert_eq!(socket.dropped(), 0);
        assert_eq!(socket.receive(|_| {}).unwrap(), 0);
    }
}
