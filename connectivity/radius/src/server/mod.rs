//! The socket around [`Accounting`].

mod socket;

use std::future::Future;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use metrics::counter;
use tokio::net::UdpSocket;
use tracing::{debug, warn};
use vocabulary::{Notice, SessionReport, Timestamp};

use crate::accounting::{Accounting, Fate, Output, Path, Ticket};
use socket::{BATCH, BatchSocket, Received};

/// Batches read in a row before answers are looked for. Their reports are stored together.
const BATCHES_MAX: usize = 8;

/// How often counters are shown.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// Where reports go.
pub trait Reports: Send + 'static {
    /// Resolves to whether the reports are durable.
    type Storing: Future<Output = bool> + Send;

    /// Makes reports durable, all or none of them. Does not block.
    fn store(&self, reports: Vec<SessionReport>) -> Self::Storing;

    /// An operator should know.
    fn note(&self, notice: Notice);
}

/// Serves until the future is dropped. Packets are answered from the address that they came to.
///
/// # Errors
/// Where the socket does not work any more.
pub async fn serve(
    socket: UdpSocket,
    accounting: Accounting,
    reports: impl Reports,
) -> io::Result<()> {
    let socket = BatchSocket::new(socket)?;
    let mut server = Server { socket, accounting, reports, unsent: 0 };
    let mut storing = FuturesUnordered::new();
    let mut received = Received::default();
    let mut outgoing = Vec::new();
    let mut shown = tokio::time::interval(SHOWN_EVERY);
    loop {
        tokio::select! {
            // Somebody waits for what is durable; what is to be read can wait in the kernel. The
            // counters come first, because they come rarely and under load there is always more.
            biased;
            _ = shown.tick() => server.show(),
            Some((tickets, is_stored)) = storing.next(), if !storing.is_empty() => {
                server.settle(tickets, is_stored);
            }
            readable = server.socket.readable() => {
                readable?;
                server.read(&mut received).await?;
            }
        }
        let (tickets, stored) = server.work_off(&mut outgoing);
        server.unsent += server.socket.send(&mut outgoing).await?;
        if !tickets.is_empty() {
            let stored = server.reports.store(stored);
            storing.push(async move { (tickets, stored.await) });
        }
    }
}

/// What a server works with.
struct Server<R> {
    socket: BatchSocket,
    accounting: Accounting,
    reports: R,
    /// Answers that the kernel did not take.
    unsent: u64,
}

impl<R: Reports> Server<R> {
    async fn read(&mut self, received: &mut Received) -> io::Result<()> {
        for _ in 0..BATCHES_MAX {
            self.socket.receive(received).await?;
            let (now, at) = (Instant::now(), Timestamp::from(SystemTime::now()));
            for (path, datagram) in received.datagrams() {
                self.accounting.handle_datagram(now, at, path, datagram);
            }
            if received.datagrams().len() < BATCH {
                break;
            }
        }
        Ok(())
    }

    fn settle(&mut self, tickets: Vec<Ticket>, is_stored: bool) {
        if !is_stored {
            debug!(reports = tickets.len(), "accounting could not be stored");
        }
        let now = Instant::now();
        for ticket in tickets {
            self.accounting.settled(now, ticket, is_stored);
        }
    }

    /// Gathers what is to be sent, and the reports to store.
    fn work_off(
        &mut self,
        outgoing: &mut Vec<(Path, Vec<u8>)>,
    ) -> (Vec<Ticket>, Vec<SessionReport>) {
        let (mut tickets, mut stored) = (Vec::new(), Vec::new());
        while let Some(output) = self.accounting.poll_output() {
            match output {
                Output::Report { ticket, report } => {
                    tickets.push(ticket);
                    stored.push(*report);
                }
                Output::Transmit { to, bytes } => outgoing.push((to, bytes)),
                Output::Notice(notice) => {
                    warn!(feed = self.accounting.feed(), "{}", notice.description);
                    self.reports.note(*notice);
                }
            }
        }
        (tickets, stored)
    }

    fn show(&self) {
        let (counters, feed) = (self.accounting.counters(), self.accounting.feed());
        let labels =
            |fate: Fate| [("feed", feed.to_owned()), ("outcome", fate.as_str().to_owned())];
        for fate in Fate::ALL {
            counter!("simgate_radius_packets_total", &labels(fate)).absolute(counters.of(fate));
        }
        let feed = [("feed", feed.to_owned())];
        counter!("simgate_radius_responses_total", &feed).absolute(counters.responses);
        counter!("simgate_radius_unsent_total", &feed).absolute(self.unsent);
        counter!("simgate_radius_values_ignored_total", &feed).absolute(counters.values_ignored);
        counter!("simgate_radius_forgotten_total", &feed).absolute(counters.forgotten);
    }
}
