//! One integration's reader of the log: drives a [`Sink`] by the decisions of a [`Window`].
//!
//! ```text
//! log --read--> Reader (own thread) --admit--> Window --start--> Sink
//!                                        ^                         |
//!                                        +--------finish-----------+
//!                                  cursor --save--> state file
//! ```
//!
//! What is done is saved at most each [`ForwarderSettings::save_interval`] and at the end. After a
//! crash the records that were delivered since then are delivered again, with the same ids; after
//! a clean end none are.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::{FuturesUnordered, StreamExt};
use message_log::{DeviceKey, Kind, NewRecord, Offset, ReadError};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Sleep, sleep_until, timeout_at};
use vocabulary::{EventKind, Notice, NoticeCategory, NoticeKind, Timestamp};

use crate::event_type::EventType;
use crate::meters::Meters;
use crate::reading::{Reader, Reading, Source, Subscription};
use crate::sink::{Delivery, Outcome, Sink};
use crate::store::{Bookmark, Progress, StoreError};
use crate::window::{Position, RetryPolicy, Verdict, Window, WindowLimits};

/// How a forwarder behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwarderSettings {
    /// What it holds and does at the same time.
    pub window: WindowLimits,
    /// How it answers failures.
    pub retry: RetryPolicy,
    /// The least time between two writes of its cursor.
    pub save_interval: Duration,
}

/// A running forwarder. Dropping it ends it at once, as a crash would.
#[derive(Debug)]
pub struct Forwarder {
    stop: oneshot::Sender<Duration>,
    task: JoinHandle<()>,
}

/// The pause after the log or the state file refused: both recover by themselves.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// While nothing is due: long enough to cost nothing.
const IDLE: Duration = Duration::from_secs(3_600);

impl Default for ForwarderSettings {
    /// 4,096 records or 8 MB are a quarter of a second at the rate that one integration must
    /// reach; 64 attempts at a time carry it up to 4 ms of round trip. 200 ms between saves bound
    /// what a crash repeats to some thousand messages, at five small writes a second.
    fn default() -> Self {
        Self {
            window: WindowLimits { records: 4_096, bytes: 8 << 20, concurrency: 64 },
            retry: RetryPolicy::DOCUMENTED,
            save_interval: Duration::from_millis(200),
        }
    }
}

impl Forwarder {
    /// Starts forwarding from where `bookmark` stands, or from the log's end where it never stood
    /// anywhere. Must be called within a tokio runtime.
    pub fn start<S: Sink>(
        source: Source,
        bookmark: Bookmark,
        subscription: Subscription,
        sink: S,
        settings: ForwarderSettings,
    ) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let end = source.log.end().as_u64();
            let integration: Arc<str> = bookmark.id().into();
            let reader = Reader { source, subscription, integration };
            let position = tokio::select! {
                position = first_position(&bookmark, end) => position,
                _ = &mut stopped => return,
            };
            Run::new(reader, bookmark, sink, settings, position).until_stopped(stopped).await;
        });
        Self { stop, task }
    }

    /// Starts no new attempt, waits up to `grace` for those that run, saves the cursor and ends.
    pub async fn stop(self, grace: Duration) {
        // An error means that it has ended already.
        let _ = self.stop.send(grace);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a forwarder ended by itself");
        }
    }
}

/// The saved position, asked for until the state file gives an answer; the log's `end` where there
/// is none.
async fn first_position(bookmark: &Bookmark, end: u64) -> Position {
    let at_end = Position { resume: end, holes: Vec::new() };
    loop {
        let bookmark = bookmark.clone();
        match spawn_blocking(move || bookmark.position()).await {
            Ok(Ok(Some(position))) if position.resume > end => {
                // Waiting until a new log has grown as long would lose what it receives.
                let resume = position.resume;
                tracing::error!(resume, end, "the cursor is ahead of the log: not the same log?");
                return at_end;
            }
            Ok(Ok(Some(position))) => return position,
            Ok(Ok(None)) => return at_end,
            Ok(Err(error)) => tracing::warn!(%error, "the cursor cannot be read"),
            Err(error) => tracing::error!(%error, "the cursor cannot be read"),
        }
        tokio::time::sleep(REFUSED_PAUSE).await;
    }
}

type Attempt = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// An attempt that ended.
struct Ended {
    place: u64,
    event_type: EventType,
    outcome: Outcome,
}

struct Run<S> {
    reader: Arc<Reader>,
    bookmark: Bookmark,
    sink: Arc<S>,
    settings: ForwarderSettings,
    window: Window<Delivery>,
    attempts: FuturesUnordered<Attempt>,
    end: watch::Receiver<Offset>,
    reading: Option<JoinHandle<Result<Reading, ReadError>>>,
    read_after: Instant,
    /// Holes of the saved position that are still to be read, in rising order.
    holes: Vec<u64>,
    /// Where reading goes on after them.
    resume: u64,
    /// Its position is only up to date in what is being saved.
    progress: Progress,
    /// Something changed since the last save began.
    unsaved: bool,
    saving: Option<JoinHandle<Result<(), StoreError>>>,
    save_after: Instant,
    /// The last save failed: what cannot be recorded is not pushed, or a crash would
    /// repeat all of it.
    paused: bool,
    meters: Meters,
}

impl<S: Sink> Run<S> {
    fn new(
        reader: Reader,
        bookmark: Bookmark,
        sink: S,
        settings: ForwarderSettings,
        position: Position,
    ) -> Self {
        let now = Instant::now();
        let end = reader.source.log.watch();
        let meters = Meters::new(bookmark.id());
        // Jitter only has to differ between integrations and starts.
        let seed = getrandom::u64().unwrap_or(position.resume);
        Self {
            window: Window::new(settings.window, settings.retry, &position, seed),
            reader: Arc::new(reader),
            bookmark,
            sink: Arc::new(sink),
            settings,
            attempts: FuturesUnordered::new(),
            end,
            reading: None,
            read_after: now,
            resume: position.resume,
            holes: position.holes,
            progress: Progress::default(),
            // The first position may be the log's end, which no row holds yet.
            unsaved: true,
            saving: None,
            save_after: now,
            paused: false,
            meters,
        }
    }

    async fn until_stopped(mut self, mut stopped: oneshot::Receiver<Duration>) {
        let mut alarm = Box::pin(sleep_until((Instant::now() + IDLE).into()));
        loop {
            let now = Instant::now();
            self.start_attempts(now);
            self.start_reading(now);
            self.start_saving(now);
            self.set_alarm(alarm.as_mut(), now);
            tokio::select! {
                biased;
                grace = &mut stopped => {
                    // The handle was dropped: end as a crash would, without saving.
                    let Ok(grace) = grace else { return };
                    return self.wind_down(now + grace).await;
                }
                result = ended(&mut self.reading), if self.reading.is_some() => {
                    self.take_reading(result);
                }
                result = ended(&mut self.saving), if self.saving.is_some() => {
                    self.take_saving(result.and_then(|saved| saved));
                }
                Some(ended) = self.attempts.next(), if !self.attempts.is_empty() => {
                    self.take_attempt(ended);
                }
                // Also while the window is full, so that the lag is known. The log outlives its
                // readers; if not, the alarm remains.
                Ok(()) = self.end.changed(), if self.reading.is_none() => {}
                () = alarm.as_mut() => {}
            }
        }
    }

    fn is_behind(&self) -> bool {
        self.window.read_to() < self.end.borrow().as_u64()
    }

    fn start_attempts(&mut self, now: Instant) {
        if self.paused {
            return;
        }
        while let Some((place, delivery)) = self.window.start(now) {
            let sink = Arc::clone(&self.sink);
            let event_type = delivery.event_type;
            self.attempts.push(Box::pin(async move {
                Ended { place, event_type, outcome: sink.deliver(delivery).await }
            }));
        }
    }

    fn start_reading(&mut self, now: Instant) {
        let room = self.window.room();
        let may = self.reading.is_none() && room > 0 && now >= self.read_after;
        if may && self.is_behind() {
            let (reader, from) = (Arc::clone(&self.reader), self.window.read_to());
            let holes = self.holes[..room.min(self.holes.len())].to_vec();
            self.reading = Some(spawn_blocking(move || match holes.as_slice() {
                [] => reader.read(from, room),
                holes => reader.read_holes(holes),
            }));
        }
    }

    fn start_saving(&mut self, now: Instant) {
        let lag = self.end.borrow().as_u64().saturating_sub(self.window.cursor());
        self.meters.levels(self.window.in_flight(), lag);
        if self.may_save() && now >= self.save_after {
            self.unsaved = false;
            self.progress.position = self.window.position();
            let (bookmark, progress) = (self.bookmark.clone(), self.progress.clone());
            self.saving = Some(spawn_blocking(move || bookmark.save(&progress)));
        }
    }

    /// Until the holes of the saved position have been read, the saved one stays valid.
    fn may_save(&self) -> bool {
        self.saving.is_none() && self.unsaved && self.holes.is_empty()
    }

    fn set_alarm(&self, mut alarm: Pin<&mut Sleep>, now: Instant) {
        let save_at = self.may_save().then_some(self.save_after);
        let read_at = (now < self.read_after).then_some(self.read_after);
        let retry_at = if self.paused { None } else { self.window.wake_at() };
        let soonest = [save_at, read_at, retry_at].into_iter().flatten().min();
        match soonest {
            Some(at) if alarm.deadline() != at.into() => alarm.as_mut().reset(at.into()),
            None if alarm.is_elapsed() => alarm.as_mut().reset((now + IDLE).into()),
            _ => {}
        }
    }

    fn take_reading(&mut self, result: Result<Result<Reading, ReadError>, StoreError>) {
        self.reading = None;
        match result {
            Ok(Ok(reading)) => {
                self.meters.unreadable.increment(reading.unreadable);
                self.meters.untranslated.increment(reading.untranslated);
                for prepared in reading.prepared {
                    let bytes = prepared.delivery.body.len();
                    self.window.admit(prepared.place, prepared.device, bytes, prepared.delivery);
                }
                self.advance(reading.next);
                if let Some(error) = reading.cut_short {
                    tracing::warn!(integration = self.bookmark.id(), %error, "reading waits");
                    self.read_after = Instant::now() + REFUSED_PAUSE;
                }
            }
            Ok(Err(ReadError::Overtaken { oldest })) => self.overtaken(oldest),
            Ok(Err(error)) => {
                tracing::warn!(integration = self.bookmark.id(), %error, "the log cannot be read");
                self.read_after = Instant::now() + REFUSED_PAUSE;
            }
            Err(error) => {
                tracing::error!(integration = self.bookmark.id(), %error, "a read was cut off");
                self.read_after = Instant::now() + REFUSED_PAUSE;
            }
        }
    }

    fn advance(&mut self, to: u64) {
        self.holes.retain(|hole| *hole >= to);
        let next = self.holes.first().copied().unwrap_or(self.resume);
        self.window.advance(to.max(next));
        self.unsaved = true;
    }

    /// Retention was faster than the endpoint: go on with what there is, and say so.
    fn overtaken(&mut self, oldest: Offset) {
        let id = self.bookmark.id();
        let (from, to) = (self.window.read_to(), oldest.as_u64());
        tracing::error!(integration = id, from, to, "messages expired before they were delivered");
        let mut notice = Notice::new(
            NoticeCategory::Error,
            NoticeKind::Integration,
            "CloudIntegrator[MessagesExpired]",
        );
        notice.integration = Some(id.to_owned());
        notice.description = format!(
            "Messages for the integration with ID {id} were older than the retention time before \
             they could be delivered. Delivery goes on with the oldest message that is kept."
        );
        let record = NewRecord {
            kind: Kind::new(EventKind::Notice.code()),
            device: DeviceKey::NONE,
            received_at: SystemTime::now().into(),
            body: notice.encode(),
        };
        let appending = self.reader.source.log.append(vec![record]);
        tokio::spawn(async move {
            if let Err(error) = appending.await {
                tracing::warn!(%error, "a notice about expired messages is lost");
            }
        });
        self.advance(to);
    }

    fn take_saving(&mut self, result: Result<(), StoreError>) {
        self.saving = None;
        let now = Instant::now();
        match result {
            Ok(()) => {
                self.paused = false;
                self.save_after = now + self.settings.save_interval;
            }
            Err(error) => {
                tracing::warn!(integration = self.bookmark.id(), %error, "the cursor is not saved");
                self.paused = true;
                self.unsaved = true;
                self.save_after = now + REFUSED_PAUSE;
            }
        }
    }

    fn take_attempt(&mut self, ended: Ended) {
        let now = Instant::now();
        let was_open = self.window.is_open();
        let id = self.bookmark.id();
        let verdict = match ended.outcome {
            Outcome::Delivered => {
                self.meters.delivered.increment(1);
                Verdict::Delivered
            }
            Outcome::Rejected { reason } => {
                tracing::error!(integration = id, %reason, "an event can never be delivered");
                self.meters.rejected.increment(1);
                self.meters.failure(reason.class);
                Verdict::Rejected
            }
            Outcome::Retry { reason, after } => {
                tracing::debug!(integration = id, %reason, "an attempt failed");
                self.meters.retried.increment(1);
                self.meters.failure(reason.class);
                if was_open {
                    self.window.finish(ended.place, Verdict::Again(after), now);
                    if !self.window.is_open() {
                        tracing::warn!(integration = id, %reason, "the endpoint counts as down");
                    }
                    return;
                }
                Verdict::Again(after)
            }
        };
        self.window.finish(ended.place, verdict, now);
        self.unsaved |= !matches!(verdict, Verdict::Again(_));
        if !was_open && self.window.is_open() {
            tracing::info!(integration = id, "the endpoint is back");
        }
        if verdict == Verdict::Delivered {
            self.note_delivery(ended.event_type, now);
        }
    }

    /// The first deliveries change what the customer sees, so they are saved at once.
    fn note_delivery(&mut self, event_type: EventType, now: Instant) {
        let first_of_device =
            event_type == EventType::TelemetryData && self.progress.first_delivery_at.is_none();
        if first_of_device {
            self.progress.first_delivery_at = Some(Timestamp::from(SystemTime::now()));
        }
        if first_of_device || !self.progress.delivered {
            self.progress.delivered = true;
            self.save_after = now;
        }
    }

    /// Waits until `deadline` for the attempts that run, then saves.
    async fn wind_down(mut self, deadline: Instant) {
        while let Ok(Some(ended)) = timeout_at(deadline.into(), self.attempts.next()).await {
            self.take_attempt(ended);
        }
        if self.saving.is_some() {
            let result = ended(&mut self.saving).await;
            self.take_saving(result.and_then(|saved| saved));
        }
        if self.may_save() {
            self.progress.position = self.window.position();
            let (bookmark, progress) = (self.bookmark.clone(), self.progress);
            if let Ok(Err(error)) = spawn_blocking(move || bookmark.save(&progress)).await {
                tracing::warn!(integration = self.bookmark.id(), %error, "the cursor is not saved");
            }
        }
        self.meters.levels(0, 0);
    }
}

/// Waits for the task in `slot`; for ever where there is none.
async fn ended<T>(slot: &mut Option<JoinHandle<T>>) -> Result<T, StoreError> {
    match slot {
        Some(task) => task.await.map_err(|_| StoreError::CutOff),
        None => std::future::pending().await,
    }
}
