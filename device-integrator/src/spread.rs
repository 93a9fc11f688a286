//! Which socket of a listener gets a datagram, where that must not change.
//!
//! A DTLS session lives on one thread, also after its device has changed its address, and after
//! the gateway has started again. The kernel's own choice depends on a number that it draws at
//! boot; so a filter chooses (SO_ATTACH_REUSEPORT_CBPF, `socket(7)`): records with a connection ID
//! (RFC 9146) go where its first byte says, all others where their source address says.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::libc::{self, sock_filter, sock_fprog};
use nix::sys::socket::{self, sockopt};

use crate::udp::BoundSocket;

/// Spreads addresses that differ in their last bits only (Knuth, The Art of Computer Programming,
/// volume 3, §6.4: the golden ratio of the word).
const MULTIPLIER: u32 = 0x9E37_79B1;

/// `tls12_cid` (RFC 9146 §4).
const TYPE_CID: u32 = 25;
/// Where the connection ID stands in such a record.
const CID_AT: u32 = 11;

/// Lets the kernel spread datagrams over the sockets of a listener, in their order.
pub(crate) fn attach(sockets: &[BoundSocket]) -> io::Result<()> {
    let Some(first) = sockets.first() else { return Ok(()) };
    let count = u32::try_from(sockets.len()).map_err(io::Error::other)?;
    let mut program = program(count, first.address.is_ipv6());
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    Ok(socket::setsockopt(first, sockopt::AttachReusePortCbpf, &program)?)
}

/// The number of the socket that gets the datagrams of a saved session. What is no session goes
/// anywhere: it is refused there.
pub(crate) fn place_of_session(saved: &[u8], sockets: usize) -> usize {
    match dtls::saved_place(saved) {
        Some(dtls::SavedPlace::Shard(shard)) => usize::from(shard) % sockets,
        Some(dtls::SavedPlace::Address(address)) => place_of_address(address, sockets),
        None => 0,
    }
}

/// The number of the socket that gets the datagrams of an address.
pub(crate) fn place_of_address(address: SocketAddr, sockets: usize) -> usize {
    let host = match address.ip() {
        IpAddr::V4(v4) => u32::from(v4),
        IpAddr::V6(v6) => v6.octets().chunks_exact(4).fold(0, |sum, word| {
            sum ^ word.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
        }),
    };
    let port = u32::from(address.port());
    let mixed = (host ^ (port << 16 | port)).wrapping_mul(MULTIPLIER) >> 16;
    // At most 16 bits.
    usize::try_from(mixed).unwrap_or(0) % sockets
}

/// The same as a classic BPF program: its data begins at the payload, and the IP header is at
/// SKF_NET_OFF. A load beyond the end of a datagram ends it with socket 0.
fn program(sockets: u32, is_ipv6: bool) -> Vec<sock_filter> {
    let mut program = vec![
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0),
        // No connection ID: three steps ahead.
        sock_filter { jf: 3, ..step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, TYPE_CID) },
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, CID_AT),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sockets),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let header = libc::SKF_NET_OFF.cast_unsigned();
    if is_ipv6 {
        // The port stands behind the fixed header (RFC 8200 §3); behind extension headers, which
        // devices do not send, only sessions with a connection ID are found after a restart. Each
        // of the four words of the source address goes through X into the sum.
        program.push(step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, header + 40));
        program.push(step(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, 0x1_0001));
        for word in [8, 12, 16, 20] {
            program.push(step(libc::BPF_MISC | libc::BPF_TAX, 0));
            program.push(step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, header + word));
            program.push(step(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0));
        }
    } else {
        // The port stands behind a header with a length of its own (RFC 791 §3.1), which X gets.
        program.push(step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, header));
        program.push(step(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, header));
        program.push(step(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, 0x1_0001));
        program.push(step(libc::BPF_MISC | libc::BPF_TAX, 0));
        program.push(step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, header + 12));
        program.push(step(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0));
    }
    program.push(step(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, MULTIPLIER));
    program.push(step(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16));
    program.push(step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sockets));
    program.push(step(libc::BPF_RET | libc::BPF_A, 0));
    program
}

fn step(code: u32, k: u32) -> sock_filter {
    // Codes have eight bits.
    sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::{Received, UdpSocket};

    const SOCKETS: usize = 3;

    async fn listeners(address: &str) -> (Vec<UdpSocket>, SocketAddr) {
        let first = BoundSocket::bind(address.parse().unwrap()).unwrap();
        let address = first.address;
        let rest = (1..SOCKETS).map(|_| BoundSocket::bind(address).unwrap());
        let sockets: Vec<_> = std::iter::once(first).chain(rest).collect();
        attach(&sockets).unwrap();
        (sockets.into_iter().map(|socket| UdpSocket::new(socket).unwrap()).collect(), address)
    }

    /// Sends to the listeners from an address of the system's choice; who gets it, and from where.
    async fn place(
        sockets: &[UdpSocket],
        to: SocketAddr,
        from: &str,
        bytes: &[u8],
    ) -> (usize, SocketAddr) {
        let device = std::net::UdpSocket::bind(from).unwrap();
        device.send_to(bytes, to).unwrap();
        let mut received = Received::default();
        // A socket may call itself readable once too often.
        loop {
            let ready = sockets.iter().map(|socket| Box::pin(socket.readable()));
            let (_, place, _) = futures_util::future::select_all(ready).await;
            sockets[place].receive(&mut received).await.unwrap();
            if received.datagrams().len() == 1 {
                return (place, device.local_addr().unwrap());
            }
        }
    }

    #[tokio::test]
    async fn the_kernel_and_we_agree_about_addresses() {
        let mut seen = [0; SOCKETS];
        for (bind, hosts) in [
            ("127.0.0.1:0", ["127.0.0.1:0", "127.9.8.7:0", "127.255.0.3:0"]),
            ("[::1]:0", ["[::1]:0", "[::1]:0", "[::1]:0"]),
        ] {
            let (sockets, address) = listeners(bind).await;
            for host in hosts.iter().cycle().take(60) {
                for bytes in [&b"\x16\xfe\xfd hello"[..], b"\x17", b"\x16"] {
                    let (place, from) = place(&sockets, address, host, bytes).await;
                    assert_eq!(place, place_of_address(from, SOCKETS), "{from}");
                    seen[place] += 1;
                }
            }
        }
        assert!(seen.iter().all(|count| *count > 40), "{seen:?}");
    }

    #[tokio::test]
    async fn a_connection_id_names_the_socket() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let (sockets, address) = listeners(bind).await;
            for shard in 0..9_u8 {
                let mut record = [25; 40];
                record[11] = shard;
                let (place, _) = place(&sockets, address, bind, &record).await;
                assert_eq!(place, usize::from(shard) % SOCKETS);
            }
            let (place, _) = place(&sockets, address, bind, &[25; 11]).await;
            assert_eq!(place, 0, "too short for a connection ID");
        }
    }
}
