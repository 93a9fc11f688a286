//! Reports of network feeds on their way: into the log, and from there into the table of data
//! sessions, in the order of the log.
//!
//! A feed gets its answer when its report is durable and applied, so that the next datagram of the
//! device is known by it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use data_sessions::Sessions;
use device_authenticator::SimDirectory;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use message_log::{AppendError, Appended, DeviceKey, Kind, MessageLog, NewRecord};
use metrics::counter;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use vocabulary::{EventKind, Notice, SessionReport, Timestamp};

use crate::feeds::Feeds;
use crate::ingest::notice_record;

/// Batches that may wait: RADIUS servers send again after seconds, so a longer queue would hold
/// what was sent anew already.
const WAITING_MAX: usize = 1_024;
/// Batches that go into the log together at most.
const BATCHES: usize = 256;
/// Reports with which an append is large enough. What is larger than the log's queue passes only
/// when nobody else waits there.
const REPORTS: usize = 4_096;
/// Appends under way at most. The log commits one while the next one fills.
const UNDER_WAY_MAX: usize = 4;
/// How often it is said that reports wait: each batch of a full disk is one.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Takes reports. The task ends with the last clone.
#[derive(Clone)]
pub(crate) struct NetworkDesk {
    queue: mpsc::Sender<Batch>,
    log: MessageLog,
}

struct Batch {
    reports: Vec<SessionReport>,
    stored: oneshot::Sender<bool>,
}

/// Resolves to whether the reports are durable and applied.
pub(crate) struct Storing(Option<oneshot::Receiver<bool>>);

/// What the task works with.
pub(crate) struct NetworkParts {
    pub(crate) log: MessageLog,
    pub(crate) sessions: Sessions,
    pub(crate) directory: Arc<SimDirectory>,
    pub(crate) feeds: Feeds,
}

impl NetworkDesk {
    /// Starts the task.
    pub(crate) fn open(parts: NetworkParts) -> Self {
        let (queue, batches) = mpsc::channel(WAITING_MAX);
        let log = parts.log.clone();
        tokio::spawn(parts.serve(batches));
        Self { queue, log }
    }

    /// Says something in the administration log.
    pub(crate) fn note(&self, notice: Notice) {
        // Nobody waits for it.
        drop(self.log.append(vec![notice_record(&notice, Timestamp::from(SystemTime::now()))]));
    }

    /// Stores reports. Never blocks.
    pub(crate) fn store(&self, reports: Vec<SessionReport>) -> Storing {
        let (stored, told) = oneshot::channel();
        let queued = self.queue.try_send(Batch { reports, stored });
        Storing(queued.is_ok().then_some(told))
    }
}

impl Future for Storing {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        match &mut self.0 {
            None => Poll::Ready(false),
            Some(told) => Pin::new(told).poll(context).map(|told| told.unwrap_or(false)),
        }
    }
}

/// What goes into the log together.
struct Append {
    batches: Vec<Batch>,
    arrived: Timestamp,
}

impl NetworkParts {
    async fn serve(self, mut queue: mpsc::Receiver<Batch>) {
        let mut under_way = FuturesOrdered::new();
        let mut is_open = true;
        let mut said_at: Option<Instant> = None;
        while is_open || !under_way.is_empty() {
            tokio::select! {
                // What is durable is applied first: somebody waits for it.
                biased;
                Some((append, result)) = under_way.next(), if !under_way.is_empty() => {
                    if let Err(error) = &result
                        && said_at.is_none_or(|said| said.elapsed() >= SAID_EVERY)
                    {
                        warn!(%error, "session reports wait");
                        said_at = Some(Instant::now());
                    }
                    self.settle(append, result);
                }
                first = queue.recv(), if is_open && under_way.len() < UNDER_WAY_MAX => {
                    let Some(first) = first else {
                        is_open = false;
                        continue;
                    };
                    let mut reports = first.reports.len();
                    let mut batches = vec![first];
                    while batches.len() < BATCHES
                        && reports < REPORTS
                        && let Ok(next) = queue.try_recv()
                    {
                        reports += next.reports.len();
                        batches.push(next);
                    }
                    let mut append =
                        Append { batches, arrived: Timestamp::from(SystemTime::now()) };
                    let appending = self.log.append(self.records(&mut append));
                    under_way.push_back(async move { (append, appending.await) });
                }
            }
        }
    }

    /// The records of reports, which learn here whose SIMs they are about.
    fn records(&self, append: &mut Append) -> Vec<NewRecord> {
        let arrived = append.arrived;
        let reports = append.batches.iter_mut().flat_map(|batch| &mut batch.reports);
        let record = |report: &mut SessionReport| {
            if report.iccid.is_none() {
                let sim = report.imsi.and_then(|imsi| self.directory.find_imsi(imsi));
                report.iccid = sim.map(|found| found.identity.iccid);
            }
            let device = report.iccid.map(|iccid| DeviceKey::from_u64(iccid.as_u64()));
            NewRecord {
                kind: Kind::new(EventKind::Session.code()),
                device: device.unwrap_or(DeviceKey::NONE),
                received_at: arrived,
                body: report.encode(),
            }
        };
        reports.map(record).collect()
    }

    fn settle(&self, append: Append, result: Result<Appended, AppendError>) {
        let Append { batches, arrived } = append;
        let Ok(appended) = result else {
            for batch in batches {
                let _ = batch.stored.send(false);
            }
            return;
        };
        let mut places = appended.records().map(|(place, _)| place.as_u64());
        let mut notices = Vec::new();
        for batch in batches {
            notices.extend(self.feeds.heard(&batch.reports, arrived));
            for (report, place) in batch.reports.iter().zip(places.by_ref()) {
                let applied = self.sessions.apply((place, arrived), report);
                count(report, applied.outcome.as_str());
                notices.extend(applied.notice);
            }
            // Whoever waits no more sends again.
            let _ = batch.stored.send(true);
        }
        if !notices.is_empty() {
            let records = notices.iter().map(|notice| notice_record(notice, arrived)).collect();
            // Nobody waits for it.
            drop(self.log.append(records));
        }
    }
}

fn count(report: &SessionReport, outcome: &'static str) {
    let feed = report.feed.clone();
    counter!("simgate_session_reports_total", "feed" => feed, "outcome" => outcome).increment(1);
}
