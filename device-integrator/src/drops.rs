//! Datagrams that the kernel dropped because a socket's receive buffer was full.
//!
//! The kernel counts them per socket and lists them, by the socket's inode, in the last column of
//! /proc/net/udp and /proc/net/udp6.

use std::collections::HashMap;

/// Datagrams dropped so far for each of `inodes`; empty where /proc cannot be read.
pub(crate) fn read(inodes: &[u64]) -> HashMap<u64, u64> {
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|table| parse(&table, inodes))
        .collect()
}

fn parse(table: &str, inodes: &[u64]) -> Vec<(u64, u64)> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            let inode: u64 = columns.nth(9)?.parse().ok()?;
            let drops: u64 = columns.nth(2)?.parse().ok()?;
            inodes.contains(&inode).then_some((inode, drops))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = concat!(
            "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n",
            "  393: 0100007F:115D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17\n",
            "  394: 0100007F:1633 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0\n",
        );
        assert_eq!(parse(table, &[4711]), [(4711, 17)]);
    }

    #[test]
    fn a_flooded_socket_is_found() {
        let bound = crate::udp::BoundSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let device = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let bytes = vec![0; 1_400];
        for _ in 0..20_000 {
            device.send_to(&bytes, bound.address).unwrap();
        }
        assert!(read(&[bound.inode])[&bound.inode] > 0);
    }
}
