//! A listener without DTLS: one socket, whose peers are addresses.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vocabulary::Iccid;

use crate::alarm;
use crate::service::{Arrival, Carrier, Service};
use crate::udp::{Outgoing, Received, UdpSocket};
use crate::uplink::{Peer, Refused};

/// How often counters are carried to the metrics.
pub(crate) const METRICS_INTERVAL: Duration = Duration::from_millis(500);

/// One socket of a listener.
pub(crate) struct ClearListener<S> {
    socket: UdpSocket,
    is_vouched: bool,
    service: S,
    received: Received,
    outgoing: Outgoing,
}

impl<S: Service<SocketAddr>> ClearListener<S> {
    pub(crate) fn new(socket: UdpSocket, is_vouched: bool, service: S) -> Self {
        Self {
            socket,
            is_vouched,
            service,
            received: Received::default(),
            outgoing: Outgoing::default(),
        }
    }

    /// Serves until `stop` turns true, then answers what was read.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let mut metrics_due = tokio::time::interval(METRICS_INTERVAL);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let wake = self.service.drain(&mut self.outgoing);
            self.socket.send(&mut self.outgoing).await?;
            alarm::set(timer.as_mut(), wake);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = self.service.answer_next() => {}
                ready = self.socket.readable() => {
                    ready?;
                    self.receive().await?;
                }
                () = &mut timer, if wake.is_some() => self.service.handle_timeout(Instant::now()),
                _ = metrics_due.tick() => self.service.update_metrics(),
            }
        }
        self.finish().await
    }

    async fn finish(mut self) -> io::Result<()> {
        while !self.service.is_idle() {
            self.service.answer_next().await;
            self.service.drain(&mut self.outgoing);
            self.socket.send(&mut self.outgoing).await?;
        }
        self.service.update_metrics();
        Ok(())
    }

    /// Reads one batch and starts to admit its uplinks.
    async fn receive(&mut self) -> io::Result<()> {
        self.socket.receive(&mut self.received).await?;
        let arrival = Arrival::now();
        let is_vouched = self.is_vouched;
        for (address, bytes) in self.received.datagrams() {
            let peer = Peer { address, is_vouched, key: None };
            self.service.handle_datagram(arrival, (address, peer), bytes, &mut self.outgoing);
        }
        self.service.admit();
        Ok(())
    }
}

impl Carrier<SocketAddr> for Outgoing {
    fn send(&mut self, to: SocketAddr, bytes: &[u8]) {
        self.push(to, bytes);
    }

    fn reaches(&mut self, _: Iccid, _: SocketAddr) -> bool {
        true
    }

    fn refused(&mut self, _: SocketAddr, _: Refused) {
        // There is no session that could end.
    }
}
