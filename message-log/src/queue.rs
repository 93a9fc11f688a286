//! The queue in front of the writer, and the answer that an append waits for.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vocabulary::EventId;

use crate::error::AppendError;
use crate::options::Options;
use crate::types::{NewRecord, Offset};

/// What an append made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The place of the first record; the others follow without gaps.
    pub first: Offset,
    /// The id of each record.
    pub ids: Vec<EventId>,
}

impl Appended {
    /// Place and id of each record, in the order of the call.
    pub fn records(&self) -> impl Iterator<Item = (Offset, EventId)> + '_ {
        (self.first.as_u64()..).map(Offset::from_u64).zip(self.ids.iter().copied())
    }
}

/// The answer to an append, still to come: await it, or [`Appending::wait`] for it.
///
/// Dropping it does not take the records back.
#[derive(Debug)]
#[must_use = "the records are durable only when this has been answered"]
pub struct Appending(State);

#[derive(Debug)]
enum State {
    Answered(Option<Result<Appended, AppendError>>),
    Waiting(oneshot::Receiver<Answer>),
}

pub(crate) type Answer = Result<Appended, AppendError>;

impl Appending {
    pub(crate) fn answered(answer: Answer) -> Self {
        Self(State::Answered(Some(answer)))
    }

    /// Blocks the thread until the answer is there. Not for asynchronous code: await instead.
    pub fn wait(self) -> Result<Appended, AppendError> {
        match self.0 {
            State::Answered(answer) => answer.unwrap_or(Err(AppendError::Failed)),
            State::Waiting(receiver) => {
                receiver.blocking_recv().unwrap_or(Err(AppendError::Failed))
            }
        }
    }
}

impl Future for Appending {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Answered(answer) => {
                Poll::Ready(answer.take().unwrap_or(Err(AppendError::Failed)))
            }
            // The writer answers each request; it is gone without only after a failure.
            State::Waiting(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|answer| answer.unwrap_or(Err(AppendError::Failed))),
        }
    }
}

/// One call of append.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) records: Vec<NewRecord>,
    bytes: usize,
    queued_at: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Request {
    pub(crate) fn answer(self, answer: Answer) {
        // Nobody may be waiting any more.
        let _ = self.answer.send(answer);
    }

    /// Answers what waited too long; gives back what did not.
    pub(crate) fn unless_overdue(self, limit: Duration) -> Option<Self> {
        let waited = self.queued_at.elapsed();
        if waited <= limit {
            return Some(self);
        }
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (waited_ms, limit_ms) = (millis(waited), millis(limit));
        self.answer(Err(AppendError::Overdue { waited_ms, limit_ms }));
        None
    }
}

/// How the writer is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Commit what is queued.
    InOrder,
    /// At once, as a crash does.
    AtOnce,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    records_max: usize,
    bytes_max: usize,
    wait: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    requests: VecDeque<Request>,
    records: usize,
    bytes: usize,
    ending: Option<Ending>,
}

impl Queue {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            inner: Mutex::default(),
            changed: Condvar::new(),
            records_max: options.queue_records,
            bytes_max: options.queue_bytes,
            wait: options.queue_wait,
        }
    }

    /// Takes a call into the queue, or answers why not.
    pub(crate) fn push(&self, records: Vec<NewRecord>) -> Appending {
        let bytes = records.iter().map(|record| record.body.len()).sum();
        let queued_at = Instant::now();
        let mut inner = self.lock();
        let is_overdue = |first: &Request| queued_at.duration_since(first.queued_at) > self.wait;
        if inner.requests.front().is_some_and(is_overdue) {
            // The writer does not move, and the keeper may be at work elsewhere.
            drop(inner);
            self.drop_overdue();
            inner = self.lock();
        }
        if inner.ending.is_some() {
            return Appending::answered(Err(AppendError::Closed));
        }
        let is_full = inner.records + records.len() > self.records_max
            || inner.bytes.saturating_add(bytes) > self.bytes_max;
        // A call larger than the whole queue passes alone, or it could never pass.
        if is_full && inner.records > 0 {
            let full = AppendError::Full { queued: inner.records, limit: self.records_max };
            return Appending::answered(Err(full));
        }
        inner.records += records.len();
        inner.bytes += bytes;
        let (answer, receiver) = oneshot::channel();
        inner.requests.push_back(Request { records, bytes, queued_at, answer });
        let was_empty = inner.requests.len() == 1;
        drop(inner);
        if was_empty {
            self.changed.notify_one();
        }
        Appending(State::Waiting(receiver))
    }

    /// Moves the next requests into `batch`, whole ones, at most `records_max` records if more
    /// than one. Waits until there is one, at most `wait`.
    pub(crate) fn take(&self, batch: &mut Vec<Request>, records_max: usize, wait: Duration) {
        let mut inner = self.lock();
        if inner.requests.is_empty() && inner.ending.is_none() {
            let waited = self.changed.wait_timeout(inner, wait);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut records = 0;
        while let Some(request) = inner.requests.front() {
            records += request.records.len();
            if records > records_max && !batch.is_empty() {
                break;
            }
            batch.extend(inner.pop());
        }
    }

    /// Takes out the requests at the front that waited too long.
    pub(crate) fn drop_overdue(&self) {
        let limit = self.wait;
        loop {
            let mut inner = self.lock();
            let is_overdue =
                inner.requests.front().is_some_and(|first| first.queued_at.elapsed() > limit);
            let first = if is_overdue { inner.pop() } else { None };
            drop(inner);
            match first {
                Some(request) => drop(request.unless_overdue(limit)),
                None => return,
            }
        }
    }

    /// Answers everything that is queued.
    pub(crate) fn refuse_all(&self, error: AppendError) {
        let mut inner = self.lock();
        let requests = std::mem::take(&mut inner.requests);
        inner.records = 0;
        inner.bytes = 0;
        drop(inner);
        requests.into_iter().for_each(|request| request.answer(Err(error)));
    }

    /// Takes no more; the first call says how the writer ends.
    pub(crate) fn end(&self, ending: Ending) {
        self.lock().ending.get_or_insert(ending);
        self.changed.notify_all();
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        self.lock().ending
    }

    /// Records and bytes that wait.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.records, inner.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.records -= request.records.len();
        self.bytes -= request.bytes;
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use vocabulary::Timestamp;

    use super::*;
    use crate::types::{DeviceKey, Kind};

    fn records(count: usize) -> Vec<NewRecord> {
        let record = NewRecord {
            kind: Kind::new(1),
            device: DeviceKey::from_u64(1),
            received_at: Timestamp::EPOCH,
            body: vec![0; 10],
        };
        vec![record; count]
    }

    fn queue(queue_records: usize) -> Queue {
        Queue::new(&Options { queue_records, ..Options::default() })
    }

    fn taken(queue: &Queue, records_max: usize) -> Vec<Request> {
        let mut batch = Vec::new();
        queue.take(&mut batch, records_max, Duration::ZERO);
        batch
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_takes_again_after_the_writer() {
        let queue = queue(4);
        let _first = queue.push(records(3));
        let refused = queue.push(records(2)).wait();
        assert_eq!(refused, Err(AppendError::Full { queued: 3, limit: 4 }));
        assert_eq!(queue.depth(), (3, 30));
        assert_eq!(taken(&queue, 100).len(), 1);
        let _large = queue.push(records(9));
        assert_eq!(queue.depth(), (9, 90), "a call larger than the queue passes alone");
    }

    #[test]
    fn a_commit_takes_whole_calls() {
        let queue = queue(100);
        let _waiting: Vec<_> = [3, 3, 3].map(|count| queue.push(records(count))).into();
        assert_eq!(taken(&queue, 7).len(), 2);
        assert_eq!(taken(&queue, 1).len(), 1);
    }

    #[test]
    fn what_waited_too_long_is_answered() {
        let queue_wait = Duration::from_millis(20);
        let queue = Queue::new(&Options { queue_wait, ..Options::default() });
        let waiting = queue.push(records(1));
        queue.drop_overdue();
        assert_eq!(queue.depth().0, 1);
        std::thread::sleep(queue_wait * 2);
        queue.drop_overdue();
        assert!(matches!(waiting.wait(), Err(AppendError::Overdue { limit_ms: 20, .. })));
        assert_eq!(queue.depth(), (0, 0));
    }

    /// The keeper alone looked for calls that waited too long, and not while it sealed a segment
    /// on a slow disk: their answer came when that was over. Whoever comes next looks as well.
    #[test]
    fn a_new_call_finds_those_that_waited_too_long() {
        let queue_wait = Duration::from_millis(20);
        let queue = Queue::new(&Options { queue_wait, ..Options::default() });
        let waiting = queue.push(records(1));
        std::thread::sleep(queue_wait * 2);
        let _next = queue.push(records(2));
        assert!(matches!(waiting.wait(), Err(AppendError::Overdue { limit_ms: 20, .. })));
        assert_eq!(queue.depth().0, 2);
    }

    #[test]
    fn after_the_end_nothing_is_taken() {
        let queue = queue(100);
        queue.end(Ending::InOrder);
        queue.end(Ending::AtOnce);
        assert_eq!(queue.push(records(1)).wait(), Err(AppendError::Closed));
        assert_eq!(queue.ending(), Some(Ending::InOrder));
    }
}
