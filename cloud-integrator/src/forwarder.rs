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
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use message_log::{DeviceKey, Kind, NewRecord, Offset, ReadError};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Sleep, sleep_until, timeout_at};
use vocabulary::{EventKind, Notice, NoticeCategory, NoticeKind, Timestamp};

use crate::event_type::EventType;
use crate::meters::Meters;
use crate::progress::Progress;
use crate::reading::{Prepared, RECORDS_PER_READ, Reader, Reading, Source, Subscription};
use crate::sink::{Delivery, Outcome, Sink};
use crate::store::{Bookmark, StoreError};
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
/// The pause before a forwarder that ended by a panic is started again. It doubles while that goes
/// on: whatever it was is likely still there, and each start repeats what was not saved.
const RESTART_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest such pause. A forwarder that ran for longer has begun anew.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(60);
/// While nothing is due: long enough to cost nothing.
const IDLE: Duration = Duration::from_secs(3_600);

impl Default for ForwarderSettings {
    /// 4,096 records or 8 MB are a quarter of a second at the rate that one integration must
    /// reach; 64 attempts at a time carry it up to 4 ms of round trip. 200 ms between saves bound
    /// what a crash repeats to some thousand messages, at five small writes a second.
    ///
    /// One device may hold a 64th of the records and, since a message can have 64 KiB, a 16th of
    /// the bytes. 16,384 deferred records are four and a half hours of a device that fails and
    /// sends once a second; in the cursor they are 128 KiB for each write.
    fn default() -> Self {
        Self {
            window: WindowLimits {
                records: 4_096,
                bytes: 8 << 20,
                concurrency: 64,
                device_records: 64,
                device_bytes: 512 << 10,
                deferred: 16_384,
            },
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
        let (stop, stopped) = oneshot::channel();
        let integration: Arc<str> = bookmark.id().into();
        let reader = Arc::new(Reader { source, subscription, integration });
        let parts = Parts { reader, bookmark, sink: Arc::new(sink), settings };
        let task = tokio::spawn(parts.run_again_and_again(stopped));
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

/// What a forwarder is made of, each time that it is started.
struct Parts<S> {
    reader: Arc<Reader>,
    bookmark: Bookmark,
    sink: Arc<S>,
    settings: ForwarderSettings,
}

impl<S: Sink> Parts<S> {
    /// Forwards until `stopped`. A panic ends one run as a crash would; the next one goes on from
    /// what is saved, so that a fault of ours costs a pause and repetitions, not the integration.
    async fn run_again_and_again(self, mut stopped: oneshot::Receiver<Duration>) {
        // What was never saved starts where the log ends now, also after a panic.
        let first = self.reader.source.log.end().as_u64();
        let mut pause = RESTART_PAUSE_MIN;
        loop {
            let start = Instant::now();
            // Nothing of a run is used after its panic.
            let run = AssertUnwindSafe(self.run(first, &mut stopped)).catch_unwind().await;
            if run.is_ok() || stopped.is_terminated() {
                return;
            }
            if start.elapsed() > RESTART_PAUSE_MAX {
                pause = RESTART_PAUSE_MIN;
            }
            Meters::new(self.bookmark.id()).faults.increment(1);
            let pause_secs = pause.as_secs();
            let integration = self.bookmark.id();
            tracing::error!(integration, pause_secs, "a forwarder panicked and is started again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut stopped => return,
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    async fn run(&self, first: u64, stopped: &mut oneshot::Receiver<Duration>) {
        let end = self.reader.source.log.end().as_u64();
        let position = tokio::select! {
            position = first_position(&self.bookmark, first, end) => position,
            _ = &mut *stopped => return,
        };
        Run::new(self, position).until_stopped(stopped).await;
    }
}

/// The saved position, asked for until the state file gives an answer; the place `first` where
/// there is none. `end` is that of the log.
async fn first_position(bookmark: &Bookmark, first: u64, end: u64) -> Position {
    loop {
        let bookmark = bookmark.clone();
        match spawn_blocking(move || bookmark.load().map(|saved| saved.position)).await {
            Ok(Ok(Some(position))) if position.resume > end => {
                // Waiting until a new log has grown as long would lose what it receives.
                let resume = position.resume;
                tracing::error!(resume, end, "the cursor is ahead of the log: not the same log?");
                return Position { resume: end, holes: Vec::new() };
            }
            Ok(Ok(Some(position))) => return position,
            Ok(Ok(None)) => return Position { resume: first, holes: Vec::new() },
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
    /// Deferred places that are being read again; empty while `reading` goes on with the log.
    rereading: Vec<u64>,
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
    fn new(parts: &Parts<S>, position: Position) -> Self {
        let now = Instant::now();
        let settings = parts.settings;
        let meters = Meters::new(parts.bookmark.id());
        // Jitter only has to differ between integrations and starts.
        let seed = getrandom::u64().unwrap_or(position.resume);
        Self {
            window: Window::new(settings.window, settings.retry, &position, seed),
            reader: Arc::clone(&parts.reader),
            bookmark: parts.bookmark.clone(),
            sink: Arc::clone(&parts.sink),
            settings,
            attempts: FuturesUnordered::new(),
            end: parts.reader.source.log.watch(),
            reading: None,
            rereading: Vec::new(),
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

    async fn until_stopped(mut self, stopped: &mut oneshot::Receiver<Duration>) {
        let mut alarm = Box::pin(sleep_until((Instant::now() + IDLE).into()));
        loop {
            let now = Instant::now();
            self.start_attempts(now);
            self.start_reading(now);
            self.start_saving(now);
            self.set_alarm(alarm.as_mut(), now);
            tokio::select! {
                biased;
                grace = &mut *stopped => {
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
                Ended { place, event_type, outcome: sink.deliver(vec![delivery]).await }
            }));
        }
    }

    fn start_reading(&mut self, now: Instant) {
        if self.reading.is_some() || now < self.read_after {
            return;
        }
        let reader = Arc::clone(&self.reader);
        let deferred = self.window.wanted(RECORDS_PER_READ);
        let room = self.window.room();
        if !deferred.is_empty() {
            // Before anything newer: their devices wait for them.
            self.rereading.clone_from(&deferred);
            self.reading = Some(spawn_blocking(move || reader.read_holes(&deferred)));
        } else if room > 0 && self.is_behind() {
            let from = self.window.read_to();
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
            self.progress.position = self.position();
            let (bookmark, progress) = (self.bookmark.clone(), self.progress.clone());
            self.saving = Some(spawn_blocking(move || bookmark.save(&progress)));
        }
    }

    fn may_save(&self) -> bool {
        self.saving.is_none() && self.unsaved
    }

    /// How far everything is done. Holes of the first position that are still to be read lie above
    /// all that the window has.
    fn position(&self) -> Position {
        let mut position = self.window.position();
        position.holes.extend(&self.holes);
        position
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
        let deferred = std::mem::take(&mut self.rereading);
        match result {
            Ok(Ok(mut reading)) => {
                self.meters.unreadable.increment(reading.unreadable);
                self.meters.untranslated.increment(reading.untranslated);
                let prepared = std::mem::take(&mut reading.prepared);
                if deferred.is_empty() {
                    self.admit(prepared);
                    self.advance(reading.next);
                } else {
                    self.readmit(&deferred, prepared, reading.next);
                }
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

    fn admit(&mut self, prepared: Vec<Prepared>) {
        for Prepared { place, device, delivery } in prepared {
            self.window.admit(place, device, delivery.body.len(), delivery);
        }
    }

    /// Takes what was read at those of the `deferred` places that lie below `next`.
    fn readmit(&mut self, deferred: &[u64], prepared: Vec<Prepared>, next: u64) {
        let mut prepared = prepared.into_iter().peekable();
        for place in deferred.iter().copied().take_while(|place| *place < next) {
            match prepared.next_if(|found| found.place == place) {
                Some(Prepared { delivery, .. }) => {
                    self.window.readmit(place, delivery.body.len(), delivery);
                }
                None => self.window.pass_over(place),
            }
        }
        self.unsaved = true;
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
        let (from, to) = (self.window.cursor(), oldest.as_u64());
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
        self.window.expire(to);
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
            self.progress.position = self.position();
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
