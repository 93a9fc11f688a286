//! One session: publishes out, acknowledgements in, until the connection or the sink ends.
//!
//! It holds no more publishes without PUBACK than the broker granted, writes and reads at the same
//! time, and sends nothing twice: what has no PUBACK when the connection ends has failed.
//! MQTT 5 §3.3, §3.4 and §4.9.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::mqttbytes::v5::{Disconnect, DisconnectReasonCode, Packet, PingReq, PubAck, Publish};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep_until, timeout};

use super::dial::{Duplex, Malformed, Opened, describe, next_packet, unexpected};
use super::pace::Pace;
use super::reasons::{self, Answered, FAILURE_MIN};
use crate::sink::{Failure, FailureClass};

/// Bytes that wait for the socket before no further event is taken: some hundred events.
const OUTBOX_BYTES_MAX: usize = 128 * 1_024;
/// What is read at a time: two thousand acknowledgements.
const READ_BYTES: usize = 8 * 1_024;
/// The longest that a broker has for PINGRESP, and we for the goodbye.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// An event on its way.
pub(super) struct Job {
    pub(super) publish: Publish,
    /// Closed when nobody waits any more.
    pub(super) reply: oneshot::Sender<Result<(), Failure>>,
}

/// Why a session ended.
pub(super) enum End {
    /// The sink was dropped.
    Dropped,
    /// The connection broke, or was broken by us.
    Broken(Failure),
}

/// An open session.
pub(super) struct Session {
    wire: Wire,
    flights: Flights,
    pace: Option<Pace>,
    packet_bytes_max: Option<u32>,
    keep_alive: Duration,
    /// The longest that an attempt takes.
    attempt: Duration,
    sent_at: Instant,
    pinged_at: Option<Instant>,
    aws: bool,
}

/// The connection with its two buffers.
struct Wire {
    stream: Box<dyn Duplex>,
    inbox: BytesMut,
    outbox: BytesMut,
    /// Written and not yet flushed.
    unflushed: bool,
}

/// Publishes without PUBACK, by their packet identifiers.
struct Flights {
    slots: Vec<Option<Flight>>,
    free: Vec<u16>,
}

struct Flight {
    reply: oneshot::Sender<Result<(), Failure>>,
    sent_at: Instant,
}

/// What a session may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) in_flight_max: u16,
    pub(super) attempt: Duration,
    pub(super) publishes_per_second: Option<u32>,
    pub(super) aws: bool,
}

impl Session {
    pub(super) fn new(opened: Opened, terms: Terms) -> Self {
        let now = Instant::now();
        Self {
            wire: Wire {
                stream: opened.stream,
                inbox: opened.inbox,
                outbox: BytesMut::new(),
                unflushed: false,
            },
            flights: Flights::new(opened.in_flight_max.min(terms.in_flight_max)),
            pace: terms.publishes_per_second.map(|rate| Pace::new(rate, now)),
            packet_bytes_max: opened.packet_bytes_max,
            keep_alive: opened.keep_alive,
            attempt: terms.attempt,
            sent_at: now,
            pinged_at: None,
            aws: terms.aws,
        }
    }

    /// Publishes what comes from `jobs` until the connection or the sink ends.
    pub(super) async fn run(&mut self, jobs: &mut mpsc::Receiver<Job>) -> End {
        let mut taken = Vec::new();
        let mut alarm = Box::pin(sleep_until(Instant::now().into()));
        loop {
            if let Err(failure) = self.take_packets() {
                return self.broken(failure);
            }
            let room = self.room(Instant::now());
            self.set_alarm(alarm.as_mut(), room);
            tokio::select! {
                biased;
                moved = self.wire.exchange() => {
                    if let Err(error) = moved {
                        let closed = self.closed();
                        return self.broken(describe(&error, closed));
                    }
                }
                count = jobs.recv_many(&mut taken, room), if room > 0 => {
                    if count == 0 {
                        self.say_goodbye().await;
                        return End::Dropped;
                    }
                    self.start(&mut taken);
                }
                () = alarm.as_mut() => {
                    if let Err(failure) = self.look_at_the_clock() {
                        return self.broken(failure);
                    }
                }
            }
        }
    }

    /// How many events may be sent now.
    fn room(&self, now: Instant) -> usize {
        if self.wire.outbox.len() > OUTBOX_BYTES_MAX {
            return 0;
        }
        let paced = self.pace.as_ref().map_or(usize::MAX, |pace| pace.room(now));
        self.flights.free.len().min(paced)
    }

    fn start(&mut self, taken: &mut Vec<Job>) {
        let now = Instant::now();
        let mut sent = 0;
        for job in taken.drain(..) {
            // Who has given up is not published for.
            if !job.reply.is_closed() && self.send(job, now) {
                sent += 1;
            }
        }
        if let (Some(pace), true) = (&mut self.pace, sent > 0) {
            pace.take(sent, now);
        }
    }

    /// Whether it went out.
    fn send(&mut self, job: Job, now: Instant) -> bool {
        let Job { mut publish, reply } = job;
        let Some(id) = self.flights.free.pop() else {
            return false;
        };
        publish.pkid = id;
        let start = self.wire.outbox.len();
        match Packet::Publish(publish).write(&mut self.wire.outbox, self.packet_bytes_max) {
            Ok(_) => {
                self.flights.begin(id, Flight { reply, sent_at: now });
                self.sent_at = now;
                true
            }
            Err(error) => {
                // The library may have written its first half.
                self.wire.outbox.truncate(start);
                self.flights.free.push(id);
                // Nobody waiting is no failure.
                let _ = reply.send(Err(unsendable(&error)));
                false
            }
        }
    }

    fn take_packets(&mut self) -> Result<(), Failure> {
        loop {
            let packet = match next_packet(&mut self.wire.inbox) {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(()),
                Err(Malformed::Packet(failure)) => return Err(failure),
                Err(Malformed::Code(code)) => {
                    let text = format!("the broker sent the unknown reason code 0x{code:02x}");
                    return Err(Failure::new(FailureClass::Transport, text));
                }
            };
            match packet {
                Packet::PubAck(answer) => self.take_puback(answer)?,
                // One that was not asked for is none: a flood of them would keep us from everything
                // else, because what comes is looked at first.
                Packet::PingResp if self.pinged_at.is_some() => self.pinged_at = None,
                Packet::Disconnect(goodbye) => return Err(self.sent_away(&goodbye)),
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn take_puback(&mut self, answer: PubAck) -> Result<(), Failure> {
        let Some(flight) = self.flights.end(answer.pkid) else {
            let text = "the broker acknowledged an event that was not sent";
            return Err(Failure::new(FailureClass::Transport, text));
        };
        let code = answer.reason as u8;
        let result = if code < FAILURE_MIN {
            Ok(())
        } else {
            let reason = answer.properties.and_then(|properties| properties.reason_string);
            Err(reasons::failure(Answered::Publish, code, reason.as_deref()))
        };
        // Nobody waiting is no failure.
        let _ = flight.reply.send(result);
        Ok(())
    }

    fn sent_away(&self, goodbye: &Disconnect) -> Failure {
        let properties = goodbye.properties.as_ref();
        let reason = properties.and_then(|properties| properties.reason_string.as_deref());
        let answered = Answered::Disconnect { in_flight: self.flights.count() };
        reasons::failure(answered, goodbye.reason_code as u8, reason)
    }

    /// What it means that the broker closed without a word.
    fn closed(&self) -> Failure {
        let count = self.flights.count();
        let mut text = format!("the broker closed the connection with {count} events unconfirmed");
        if self.aws && count > 0 {
            text.push_str(
                "; AWS IoT Core does so where the policy of the certificate does not allow \
                 iot:Publish to their topics",
            );
        }
        Failure::new(FailureClass::Transport, text)
    }

    fn broken(&mut self, failure: Failure) -> End {
        self.flights.fail(&failure);
        End::Broken(failure)
    }

    fn set_alarm(&self, mut alarm: Pin<&mut Sleep>, room: usize) {
        let due_at = tokio::time::Instant::from_std(self.due_at(room));
        // One that rings early costs a look at the clock; moving it costs more.
        if due_at < alarm.deadline() || alarm.is_elapsed() {
            alarm.as_mut().reset(due_at);
        }
    }

    /// When the clock has to be looked at.
    fn due_at(&self, room: usize) -> Instant {
        let mut due_at = match self.pinged_at {
            Some(pinged_at) => pinged_at + PING_TIMEOUT,
            // Without keep-alive, an hour is as good as never.
            None if self.keep_alive.is_zero() => self.sent_at + Duration::from_secs(3_600),
            None => self.sent_at + self.keep_alive,
        };
        if self.flights.count() > 0 {
            due_at = due_at.min(Instant::now() + self.attempt / 4);
        }
        if let (Some(pace), 0) = (&self.pace, room) {
            due_at = due_at.min(pace.ready_at());
        }
        due_at
    }

    fn look_at_the_clock(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if self.pinged_at.is_some_and(|pinged_at| pinged_at + PING_TIMEOUT <= now) {
            let text = "the broker does not answer any more: no PINGRESP in time";
            return Err(Failure::new(FailureClass::Timeout, text));
        }
        self.check_for_lost(now)?;
        let idle = now.saturating_duration_since(self.sent_at);
        if self.pinged_at.is_none() && !self.keep_alive.is_zero() && idle >= self.keep_alive {
            // Two bytes into memory cannot fail.
            let _ = PingReq::write(&mut self.wire.outbox);
            self.sent_at = now;
            self.pinged_at = Some(now);
        }
        Ok(())
    }

    /// Identifiers without PUBACK stay taken. When half of them are lost, only a new connection
    /// brings them back.
    fn check_for_lost(&mut self, now: Instant) -> Result<(), Failure> {
        let (lost, all) = (self.flights.lost(now, self.attempt), self.flights.slots.len());
        if lost == 0 || lost * 2 < all {
            return Ok(());
        }
        let text = format!("the broker owes PUBACK for {lost} of {all} events: a new connection");
        Err(Failure::new(FailureClass::Timeout, text))
    }

    async fn say_goodbye(&mut self) {
        let goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
        if Packet::Disconnect(goodbye).write(&mut self.wire.outbox, None).is_err() {
            return;
        }
        let Wire { stream, outbox, .. } = &mut self.wire;
        // Whoever cannot hear it will notice the closed connection.
        let _ = timeout(GOODBYE_TIMEOUT, async {
            stream.write_all_buf(outbox).await?;
            stream.shutdown().await
        })
        .await;
    }
}

fn unsendable(error: &PacketError) -> Failure {
    match error {
        PacketError::OutgoingPacketTooLarge { pkt_size, max } => {
            let text = format!("packet of {pkt_size} bytes exceeds the broker's limit of {max}");
            Failure::new(FailureClass::TooLarge, text)
        }
        other => Failure::new(FailureClass::Request, format!("no valid PUBLISH: {other}")),
    }
}

impl Wire {
    /// Writes what waits and returns when something was read.
    async fn exchange(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_exchange(context)).await
    }

    fn poll_exchange(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_outbox(context)?;
        let mut bytes = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.inbox.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    /// Writes as much as the socket takes.
    fn poll_outbox(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.outbox) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.outbox.advance(count),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(flushed) => {
                    flushed?;
                    self.unflushed = false;
                }
                Poll::Pending => {}
            }
        }
        Ok(())
    }
}

impl Flights {
    /// Room for `max` of them: 0 is not valid in MQTT (§3.2.2.3.3) and counts as 1.
    fn new(max: u16) -> Self {
        let max = max.max(1);
        Self {
            slots: std::iter::repeat_with(|| None).take(usize::from(max)).collect(),
            // Identifiers begin with 1; the lowest is taken first.
            free: (1..=max).rev().collect(),
        }
    }

    fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn begin(&mut self, id: u16, flight: Flight) {
        if let Some(slot) = self.slots.get_mut(usize::from(id) - 1) {
            *slot = Some(flight);
        }
    }

    fn end(&mut self, id: u16) -> Option<Flight> {
        let flight = self.slots.get_mut(usize::from(id).checked_sub(1)?)?.take()?;
        self.free.push(id);
        Some(flight)
    }

    fn lost(&self, now: Instant, attempt: Duration) -> usize {
        let is_lost =
            |flight: &&Flight| flight.reply.is_closed() && flight.sent_at + attempt <= now;
        self.slots.iter().flatten().filter(is_lost).count()
    }

    fn fail(&mut self, failure: &Failure) {
        for flight in self.slots.iter_mut().filter_map(Option::take) {
            // Nobody waiting is no failure.
            let _ = flight.reply.send(Err(failure.clone()));
        }
        self.free = (1..=u16::try_from(self.slots.len()).unwrap_or(u16::MAX)).rev().collect();
    }
}
