//! The socket around [`Accounting`].

use std::future::Future;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use metrics::counter;
use tokio::net::UdpSocket;
use tracing::warn;
use vocabulary::{Notice, SessionReport, Timestamp};

use crate::accounting::{Accounting, Fate, Output, Ticket};
use crate::wire::PACKET_BYTES_MAX;

/// Datagrams read in a row before answers are looked for. Their reports are stored together.
const READ_MAX: usize = 256;

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

/// Serves until the future is dropped. Packets are answered from the address that the socket is
/// bound to.
///
/// # Errors
/// Where the socket does not work any more.
pub async fn serve(
    socket: UdpSocket,
    mut accounting: Accounting,
    reports: impl Reports,
) -> io::Result<()> {
    let mut storing = FuturesUnordered::new();
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut shown = tokio::time::interval(SHOWN_EVERY);
    loop {
        tokio::select! {
            biased;
            Some((tickets, is_stored)) = storing.next(), if !storing.is_empty() => {
                let tickets: Vec<Ticket> = tickets;
                let now = Instant::now();
                for ticket in tickets {
                    accounting.settled(now, ticket, is_stored);
                }
            }
            readable = socket.readable() => {
                readable?;
                read(&socket, &mut buffer, &mut accounting)?;
            }
            _ = shown.tick() => show(&accounting),
        }
        let (tickets, stored) = work_off(&socket, &mut accounting, &reports);
        if !tickets.is_empty() {
            let stored = reports.store(stored);
            storing.push(async move { (tickets, stored.await) });
        }
    }
}

fn read(socket: &UdpSocket, buffer: &mut [u8], accounting: &mut Accounting) -> io::Result<()> {
    for _ in 0..READ_MAX {
        match socket.try_recv_from(buffer) {
            Ok((length, from)) => {
                let (now, at) = (Instant::now(), Timestamp::from(SystemTime::now()));
                let datagram = buffer.get(..length).unwrap_or_default();
                accounting.handle_datagram(now, at, from, datagram);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // What an earlier answer met (ICMP): it says nothing of the socket.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends what is to be sent, and gathers the reports to store.
fn work_off(
    socket: &UdpSocket,
    accounting: &mut Accounting,
    reports: &impl Reports,
) -> (Vec<Ticket>, Vec<SessionReport>) {
    let (mut tickets, mut stored) = (Vec::new(), Vec::new());
    while let Some(output) = accounting.poll_output() {
        match output {
            Output::Report { ticket, report } => {
                tickets.push(ticket);
                stored.push(*report);
            }
            Output::Transmit { to, bytes } => {
                // An answer that is lost is asked for again.
                if let Err(error) = socket.try_send_to(&bytes, to) {
                    warn!(%to, %error, "accounting cannot be answered");
                }
            }
            Output::Notice(notice) => reports.note(*notice),
        }
    }
    (tickets, stored)
}

fn show(accounting: &Accounting) {
    let (counters, feed) = (accounting.counters(), accounting.feed());
    let labels = |fate: Fate| [("feed", feed.to_owned()), ("outcome", fate.as_str().to_owned())];
    for fate in Fate::ALL {
        counter!("simgate_radius_packets_total", &labels(fate)).absolute(counters.of(fate));
    }
    let feed = [("feed", feed.to_owned())];
    counter!("simgate_radius_values_ignored_total", &feed).absolute(counters.values_ignored);
}
