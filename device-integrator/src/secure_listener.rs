//! A listener with DTLS (RFC 7252 §9.1): one socket, whose peers are sessions.

use std::io;
use std::time::{Duration, Instant};

use dtls::SessionId;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::alarm;
use crate::clear_listener::METRICS_INTERVAL;
use crate::service::{Arrival, Service};
use crate::sessions::{Message, SAVE_INTERVAL, Sessions};
use crate::udp::{Outgoing, Received, UdpSocket};
use crate::uplink::Ingest;

/// How long the sessions may take to be saved at the end.
const SAVE_ALL_MAX: Duration = Duration::from_secs(3);

/// One socket of a listener with DTLS.
pub(crate) struct SecureListener<S, I: Ingest> {
    socket: UdpSocket,
    sessions: Sessions<I>,
    service: S,
    received: Received,
    outgoing: Outgoing,
    /// Memory for the messages of one read.
    messages: Vec<Message>,
}

impl<S: Service<SessionId>, I: Ingest> SecureListener<S, I> {
    pub(crate) fn new(socket: UdpSocket, sessions: Sessions<I>, service: S) -> Self {
        Self {
            socket,
            sessions,
            service,
            received: Received::default(),
            outgoing: Outgoing::default(),
            messages: Vec::new(),
        }
    }

    /// Serves until `stop` turns true, then answers what was read and saves the sessions.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let mut metrics_due = tokio::time::interval(METRICS_INTERVAL);
        let mut save_due = tokio::time::interval(SAVE_INTERVAL);
        save_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let wake = self.drain();
            self.socket.send(&mut self.outgoing).await?;
            alarm::set(timer.as_mut(), wake);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = self.service.answer_next() => {}
                ready = self.socket.readable() => {
                    ready?;
                    self.receive().await?;
                }
                () = &mut timer, if wake.is_some() => {
                    let now = Instant::now();
                    self.sessions.handle_timeout(now);
                    self.service.handle_timeout(now);
                }
                _ = save_due.tick() => self.sessions.begin_saving(),
                () = std::future::ready(()), if self.sessions.is_collecting() => {
                    self.sessions.save_step();
                }
                () = self.sessions.saved() => {}
                _ = metrics_due.tick() => self.update_metrics(),
            }
        }
        self.finish().await
    }

    async fn finish(mut self) -> io::Result<()> {
        while !self.service.is_idle() {
            self.service.answer_next().await;
            self.drain();
            self.socket.send(&mut self.outgoing).await?;
        }
        self.update_metrics();
        // Beyond it the disk is the trouble, and has been told of.
        let _ = tokio::time::timeout(SAVE_ALL_MAX, self.sessions.save_all()).await;
        Ok(())
    }

    /// Reads one batch and starts to admit its uplinks.
    async fn receive(&mut self) -> io::Result<()> {
        self.socket.receive(&mut self.received).await?;
        let arrival = Arrival::now();
        for datagram in self.received.datagrams() {
            let (messages, outgoing) = (&mut self.messages, &mut self.outgoing);
            self.sessions.handle_datagram(arrival, datagram, messages, outgoing);
        }
        for Message { session, peer, bytes } in self.messages.drain(..) {
            self.service.handle_datagram(arrival, (session, peer), &bytes, &mut self.sessions);
        }
        self.service.admit();
        Ok(())
    }

    /// Queues what is to be sent; when there is something to do next.
    fn drain(&mut self) -> Option<Instant> {
        let service = self.service.drain(&mut self.sessions);
        let sessions = self.sessions.drain(&mut self.outgoing);
        service.into_iter().chain(sessions).min()
    }

    fn update_metrics(&mut self) {
        self.service.update_metrics();
        self.sessions.update_metrics();
    }
}
