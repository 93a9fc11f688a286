//! The plain UDP listener: one datagram is one message, and nothing is ever answered.

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use vocabulary::{Protocol, Timestamp};

use crate::counters::Counters;
use crate::udp::{Received, UdpSocket};
use crate::uplink::{Ingest, Peer, Uplink};

/// One socket of a plain UDP listener.
pub(crate) struct PlainListener<I: Ingest> {
    pub(crate) socket: UdpSocket,
    pub(crate) is_vouched: bool,
    pub(crate) payload_bytes_max: usize,
    pub(crate) ingest: I,
}

impl<I: Ingest> PlainListener<I> {
    /// Reads until `stop` turns true, then waits for what is being admitted.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let counters = Counters::new(Protocol::Udp);
        let mut received = Received::default();
        let mut admissions: FuturesUnordered<I::Admission> = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(receipts) = admissions.next() => count(&counters, &receipts),
                ready = self.socket.readable() => {
                    ready?;
                    self.socket.receive(&mut received).await?;
                    let uplinks = self.uplinks(&received, &counters);
                    if !uplinks.is_empty() {
                        admissions.push(self.ingest.admit(uplinks));
                    }
                }
            }
        }
        while let Some(receipts) = admissions.next().await {
            count(&counters, &receipts);
        }
        Ok(())
    }

    fn uplinks(&self, received: &Received, counters: &Counters) -> Vec<Uplink> {
        let received_at = Timestamp::from(SystemTime::now());
        let datagrams = received.datagrams();
        counters.received.increment(datagrams.len() as u64);
        let mut uplinks = Vec::with_capacity(datagrams.len());
        for (peer, bytes) in datagrams {
            match self.refusal(bytes) {
                Some(reason) => counters.malformed(reason, 1),
                None => uplinks.push(self.uplink(peer, bytes, received_at)),
            }
        }
        uplinks
    }

    fn refusal(&self, bytes: &[u8]) -> Option<&'static str> {
        if bytes.len() > self.payload_bytes_max {
            return Some("too_long");
        }
        bytes.is_empty().then_some("empty")
    }

    fn uplink(&self, address: SocketAddr, bytes: &[u8], received_at: Timestamp) -> Uplink {
        Uplink {
            peer: Peer { address, is_vouched: self.is_vouched, key: None },
            protocol: Protocol::Udp,
            topic: None,
            exchange: None,
            measured: None,
            asks_command: false,
            payload: bytes.to_vec(),
            received_at,
        }
    }
}

fn count(counters: &Counters, receipts: &[crate::uplink::Receipt]) {
    for receipt in receipts {
        counters.receipt(receipt);
    }
}
