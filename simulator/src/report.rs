//! The figures of a run: counted while it goes, told each second and at its end.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use coap::wire::Code;
use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

use crate::lwm2m::Lwm2mReport;
use crate::session_report::SessionReport;

/// The longest latency told apart, in microseconds: above MAX_TRANSMIT_WAIT (93 s, RFC 7252 4.8.2)
/// with room for the separate answer.
const LATENCY_US_MAX: u64 = 300_000_000;

/// Digits of a latency that are exact.
const LATENCY_DIGITS: u8 = 3;

/// Characters of a line of the table.
const ROW_CHARS: usize = 30;

/// Latencies of acknowledged messages, in microseconds from the moment at which a message was due
/// until its answer, retransmissions included. All zero where nothing was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Latency {
    /// Half of all were faster.
    pub p50_us: u64,
    /// 99 in 100 were faster.
    pub p99_us: u64,
    /// 999 in 1,000 were faster.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}

/// What was counted since the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Messages sent, each counted once.
    pub sent: u64,
    /// Answered with a success code (2.xx).
    pub acknowledged: u64,
    /// Given up after all repeats, or after the patience with a non-confirmable one.
    pub lost: u64,
    /// Repeats sent.
    pub retransmitted: u64,
    /// Answered otherwise, by code; `reset` where the server reset the message.
    pub rejected: BTreeMap<String, u64>,
    /// Separate answers that were announced by an empty acknowledgement.
    pub separate: u64,
    /// Answers that nobody waited for any more: duplicates, and late ones.
    pub unexpected: u64,
    /// Malformed messages sent besides.
    pub garbage_sent: u64,
    /// Answers to these.
    pub garbage_answered: u64,
    /// Answers that the kernel dropped, because the generator did not read them in time.
    pub dropped: u64,
}

/// How a run goes, told about each second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// Since the start.
    pub seconds: f64,
    /// Since the start.
    pub counts: Counts,
    /// Messages that wait for an answer.
    pub outstanding: u64,
    /// Messages sent per second since the last time.
    pub sent_per_second: f64,
    /// Messages acknowledged per second since the last time.
    pub acknowledged_per_second: f64,
    /// Since the last time.
    pub latency: Latency,
    /// Over DTLS: handshakes completed since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshakes: Option<u64>,
    /// The same per second since the last time; 0 without DTLS.
    pub handshakes_per_second: f64,
    /// LwM2M: devices that have registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered: Option<u64>,
    /// What is to be said once, instead of the figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announcement: Option<String>,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// All that was counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// Messages without an answer when the run ended.
    pub unanswered: u64,
    /// Messages of an open loop that were due and never sent.
    pub behind: u64,
    /// From the start until no more messages were sent.
    pub seconds: f64,
    /// Messages sent, divided by these seconds.
    pub sent_per_second: f64,
    /// Messages acknowledged within these seconds, divided by them.
    pub acknowledged_per_second: f64,
    /// Of all acknowledged messages.
    pub latency: Latency,
    /// Over DTLS: sessions and handshakes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtls: Option<SessionReport>,
    /// LwM2M: registrations, observations, commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lwm2m: Option<Lwm2mReport>,
}

/// Counts a run.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    rejected: BTreeMap<Code, u64>,
    resets: u64,
    total: Histogram<u64>,
    interval: Histogram<u64>,
    told: Told,
    /// When sending ended, and what had been acknowledged by then.
    sending_end: Option<(Duration, u64)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    at: Duration,
    sent: u64,
    acknowledged: u64,
    handshakes: u64,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, CreationError> {
        let total = histogram()?;
        Ok(Self {
            counts: Counts::default(),
            rejected: BTreeMap::new(),
            resets: 0,
            interval: total.clone(),
            total,
            told: Told::default(),
            sending_end: None,
        })
    }

    pub(crate) fn acknowledge(&mut self, latency: Duration) {
        self.counts.acknowledged += 1;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.total.saturating_record(micros);
        self.interval.saturating_record(micros);
    }

    pub(crate) fn reject(&mut self, code: Code) {
        *self.rejected.entry(code).or_default() += 1;
    }

    pub(crate) fn reset(&mut self) {
        self.resets += 1;
    }

    /// Remembers that no more messages are sent from `now` on.
    pub(crate) fn end_sending(&mut self, now: Duration) {
        self.sending_end.get_or_insert((now, self.counts.acknowledged));
    }

    /// When sending ended, once it has.
    pub(crate) fn sending_end(&self) -> Option<Duration> {
        self.sending_end.map(|(at, _)| at)
    }

    /// The time of the run begins anew: what came before was its preparation.
    pub(crate) fn begin(&mut self) {
        self.told = Told { handshakes: self.told.handshakes, ..Told::default() };
    }

    /// How it goes, with the handshakes completed where there are some; begins a new interval.
    pub(crate) fn progress(
        &mut self,
        now: Duration,
        outstanding: usize,
        handshakes: Option<u64>,
    ) -> Progress {
        let counts = self.counts();
        let span = now.saturating_sub(self.told.at);
        let completed = handshakes.unwrap_or_default();
        let progress = Progress {
            seconds: now.as_secs_f64(),
            outstanding: outstanding as u64,
            sent_per_second: rate(counts.sent - self.told.sent, span),
            acknowledged_per_second: rate(counts.acknowledged - self.told.acknowledged, span),
            latency: latency(&self.interval),
            handshakes,
            handshakes_per_second: rate(completed - self.told.handshakes, span),
            registered: None,
            announcement: None,
            counts,
        };
        self.interval.reset();
        let Counts { sent, acknowledged, .. } = progress.counts;
        self.told = Told { at: now, sent, acknowledged, handshakes: completed };
        progress
    }

    /// How it went, with the messages that still wait and those behind schedule.
    pub(crate) fn report(&self, now: Duration, unanswered: usize, behind: u64) -> Report {
        let counts = self.counts();
        let (span, acknowledged) = self.sending_end.unwrap_or((now, counts.acknowledged));
        Report {
            unanswered: unanswered as u64,
            behind,
            seconds: span.as_secs_f64(),
            sent_per_second: rate(counts.sent, span),
            acknowledged_per_second: rate(acknowledged, span),
            latency: latency(&self.total),
            dtls: None,
            lwm2m: None,
            counts,
        }
    }

    fn counts(&self) -> Counts {
        let mut rejected: BTreeMap<String, u64> =
            self.rejected.iter().map(|(code, count)| (code.to_string(), *count)).collect();
        if self.resets > 0 {
            rejected.insert("reset".to_owned(), self.resets);
        }
        Counts { rejected, ..self.counts.clone() }
    }
}

impl Counts {
    /// Answers that were no success, all codes together.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }
}

impl Progress {
    /// One line, without its end.
    pub fn to_line(&self) -> String {
        let Self { counts, latency, .. } = self;
        let rate = self.handshakes_per_second;
        let handshakes = self.handshakes.map(|count| format!("  handshakes {count} ({rate:.0}/s)"));
        let handshakes = handshakes.unwrap_or_default();
        let registered = self.registered.map(|count| format!("  registered {count}"));
        let registered = registered.unwrap_or_default();
        format!(
            "{seconds:6.1} s  sent {sent} ({rate:.0}/s)  acknowledged {acknowledged} \
             ({acknowledged_rate:.0}/s)  lost {lost}  retransmitted {retransmitted}  \
             rejected {rejected}  p50 {p50}  p99 {p99}  p99.9 {p999}{handshakes}{registered}",
            seconds = self.seconds,
            sent = counts.sent,
            rate = self.sent_per_second,
            acknowledged = counts.acknowledged,
            acknowledged_rate = self.acknowledged_per_second,
            lost = counts.lost,
            retransmitted = counts.retransmitted,
            rejected = counts.rejected_total(),
            p50 = milliseconds(latency.p50_us),
            p99 = milliseconds(latency.p99_us),
            p999 = milliseconds(latency.p999_us),
        )
    }
}

impl Report {
    /// Writes a small table for people.
    ///
    /// # Errors
    /// What `output` answers.
    pub fn write_table(&self, output: &mut dyn Write) -> io::Result<()> {
        let Self { counts, latency, .. } = self;
        let mut row = |name: &str, value: String| row(output, name, value);
        row("seconds", format!("{:.2}", self.seconds))?;
        row("sent", counts.sent.to_string())?;
        row("sent/s", format!("{:.0}", self.sent_per_second))?;
        row("acknowledged", counts.acknowledged.to_string())?;
        row("acknowledged/s", format!("{:.0}", self.acknowledged_per_second))?;
        row("lost", counts.lost.to_string())?;
        row("unanswered", self.unanswered.to_string())?;
        row("retransmitted", counts.retransmitted.to_string())?;
        for (code, count) in &counts.rejected {
            row(&format!("rejected {code}"), count.to_string())?;
        }
        row("latency p50", milliseconds(latency.p50_us))?;
        row("latency p99", milliseconds(latency.p99_us))?;
        row("latency p99.9", milliseconds(latency.p999_us))?;
        row("latency max", milliseconds(latency.max_us))?;
        // What is worth a line only where it happened.
        let rare = [
            ("behind", self.behind),
            ("separate", counts.separate),
            ("unexpected", counts.unexpected),
            ("garbage", counts.garbage_sent),
            ("garbage answers", counts.garbage_answered),
            ("dropped here", counts.dropped),
        ];
        rare.into_iter()
            .filter(|(_, count)| *count > 0)
            .try_for_each(|(name, count)| row(name, count.to_string()))?;
        self.dtls.as_ref().map_or(Ok(()), |dtls| dtls.write_rows(output))?;
        self.lwm2m.as_ref().map_or(Ok(()), |lwm2m| lwm2m.write_rows(output))
    }
}

/// An empty distribution of latencies, in microseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS)
}

/// Writes a line of the table.
pub(crate) fn row(output: &mut dyn Write, name: &str, value: String) -> io::Result<()> {
    let width = ROW_CHARS.saturating_sub(name.chars().count()).max(value.len() + 1);
    writeln!(output, "{name}{value:>width$}")
}

pub(crate) fn latency(histogram: &Histogram<u64>) -> Latency {
    Latency {
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    }
}

pub(crate) fn rate(count: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { count as f64 / span.as_secs_f64() }
}

pub(crate) fn milliseconds(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally::new().unwrap();
        for milliseconds in 1..=1_000 {
            tally.counts.sent += 1;
            tally.acknowledge(Duration::from_millis(milliseconds));
        }
        tally
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let latency = tally().report(Duration::from_secs(1), 0, 0).latency;
        for (found, expected) in [
            (latency.p50_us, 500_000_u64),
            (latency.p99_us, 990_000),
            (latency.p999_us, 999_000),
            (latency.max_us, 1_000_000),
        ] {
            assert!(found.abs_diff(expected) <= expected / 1_000, "{found} {expected}");
        }
    }

    #[test]
    fn rates_count_the_time_of_sending_only() {
        let mut tally = tally();
        tally.end_sending(Duration::from_secs(2));
        tally.acknowledge(Duration::from_millis(1));
        let report = tally.report(Duration::from_secs(7), 3, 0);
        assert_eq!(report.counts.acknowledged, 1_001);
        assert!((report.acknowledged_per_second - 500.0).abs() < 1e-9);
        assert!((report.seconds - 2.0).abs() < 1e-9);
    }

    #[test]
    fn each_progress_tells_its_own_interval() {
        let mut tally = tally();
        let first = tally.progress(Duration::from_secs(1), 5, None);
        assert!((first.sent_per_second - 1_000.0).abs() < 1e-9);
        assert_eq!(first.outstanding, 5);
        let second = tally.progress(Duration::from_secs(2), 0, Some(8));
        assert_eq!(second.latency, Latency::default());
        assert!(second.sent_per_second.abs() < 1e-9);
        assert!(second.to_line().contains("sent 1000 (0/s)"), "{}", second.to_line());
        assert!(second.to_line().ends_with("handshakes 8 (8/s)"), "{}", second.to_line());
    }

    #[test]
    fn codes_appear_by_name_in_table_and_json() {
        let mut tally = tally();
        tally.reject(Code::UNAUTHORIZED);
        tally.reset();
        let report = tally.report(Duration::from_secs(1), 0, 0);
        let mut table = Vec::new();
        report.write_table(&mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(table.contains("rejected 4.01                1\n"), "{table}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rejected"]["reset"], 1);
        assert_eq!(json["acknowledged"], 1_000);
    }
}
