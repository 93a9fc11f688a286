//! The figures of a run over DTLS that other runs do not have.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

use crate::bootstrap::BootstrapReport;
use crate::report::{Latency, histogram, latency, milliseconds, rate, row};

/// Mbed TLS's number for a fatal alert of the peer.
const FATAL_ALERT: i32 = -0x7780;
/// Mbed TLS's number for a flight that nobody answered, after all its repeats.
const TIMEOUT: i32 = -0x6800;
/// Mbed TLS's number for a record that does not decrypt, which with a pre-shared key means that
/// the server's key is another one.
const INVALID_MAC: i32 = -0x7180;

/// What was counted of sessions and handshakes since the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SessionCounts {
    /// Handshakes begun.
    pub handshakes_begun: u64,
    /// Of these, those of devices whose handshake before had failed, after a pause.
    pub handshakes_retried: u64,
    /// Handshakes that ended well.
    pub handshakes_completed: u64,
    /// Of these, full ones.
    pub handshakes_full: u64,
    /// Of these, abbreviated ones.
    pub handshakes_abbreviated: u64,
    /// Handshakes that failed.
    pub handshakes_failed: u64,
    /// The same by cause: `alert` of the server, `timeout`, `wrong key` or a number of Mbed TLS.
    pub handshake_failures: BTreeMap<String, u64>,
    /// Completed handshakes that gave a connection ID.
    pub sessions_with_cid: u64,
    /// Sessions that their devices took for dead, because a request got no answer.
    pub sessions_lost_by_silence: u64,
    /// Sessions that their devices took for dead because of an unprotected fatal alert.
    pub sessions_lost_by_alert: u64,
    /// Sessions that the server ended, with close_notify or an alert.
    pub sessions_ended_by_server: u64,
    /// Changes of a device's address.
    pub address_changes: u64,
    /// Datagrams that came to nothing: for no session or one that has gone, to an address that the
    /// device has left, not authentic, or seen before.
    pub records_discarded: u64,
}

/// What a run over DTLS reports besides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionReport {
    /// All that was counted, also while sessions were opened before the run.
    #[serde(flatten)]
    pub counts: SessionCounts,
    /// Handshakes that were under way when the run ended.
    pub handshakes_unfinished: u64,
    /// How long sessions were opened before the run; 0 where they were not.
    pub opening_seconds: f64,
    /// Handshakes completed within these seconds, divided by them.
    pub opening_handshakes_per_second: f64,
    /// Handshakes completed between the start of the run and the end of its sending, per second.
    pub handshakes_per_second: f64,
    /// Of all completed handshakes, from their beginning (in an open loop of handshakes: from when
    /// they were due) until the session could be used.
    pub handshake_latency: Latency,
    /// How the devices got their keys, if they asked.
    pub bootstrap: Option<BootstrapReport>,
}

/// Counts sessions and handshakes.
#[derive(Debug)]
pub(crate) struct SessionTally {
    pub(crate) counts: SessionCounts,
    failures: BTreeMap<i32, u64>,
    latency: Histogram<u64>,
    /// How long the opening took, and handshakes completed by then.
    opening: (Duration, u64),
    completed_at_end: Option<u64>,
}

impl SessionTally {
    pub(crate) fn new() -> Result<Self, CreationError> {
        Ok(Self {
            counts: SessionCounts::default(),
            failures: BTreeMap::new(),
            latency: histogram()?,
            opening: (Duration::ZERO, 0),
            completed_at_end: None,
        })
    }

    pub(crate) fn complete(&mut self, latency: Duration, is_resumed: bool, has_cid: bool) {
        let counts = &mut self.counts;
        counts.handshakes_completed += 1;
        counts.handshakes_abbreviated += u64::from(is_resumed);
        counts.handshakes_full += u64::from(!is_resumed);
        counts.sessions_with_cid += u64::from(has_cid);
        self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts a failed handshake; `code` is a number of Mbed TLS.
    pub(crate) fn fail(&mut self, code: i32) {
        self.counts.handshakes_failed += 1;
        *self.failures.entry(code).or_default() += 1;
    }

    /// The sessions were opened; what follows is the run.
    pub(crate) fn end_opening(&mut self, span: Duration) {
        self.opening = (span, self.counts.handshakes_completed);
    }

    /// No more is sent from now on.
    pub(crate) fn end_sending(&mut self) {
        self.completed_at_end.get_or_insert(self.counts.handshakes_completed);
    }

    /// How it went; `sending` is how long the run sent.
    pub(crate) fn report(
        &self,
        sending: Duration,
        unfinished: usize,
        bootstrap: Option<BootstrapReport>,
    ) -> SessionReport {
        let named = self.failures.iter().map(|(code, count)| (cause(*code), *count));
        let counts = SessionCounts { handshake_failures: named.collect(), ..self.counts.clone() };
        let (opening, opened) = self.opening;
        let completed = self.completed_at_end.unwrap_or(counts.handshakes_completed);
        SessionReport {
            handshakes_unfinished: unfinished as u64,
            opening_seconds: opening.as_secs_f64(),
            opening_handshakes_per_second: rate(opened, opening),
            handshakes_per_second: rate(completed.saturating_sub(opened), sending),
            handshake_latency: latency(&self.latency),
            bootstrap,
            counts,
        }
    }
}

impl SessionReport {
    /// Writes the rows of a table for people.
    pub(crate) fn write_rows(&self, output: &mut dyn Write) -> io::Result<()> {
        let Self { counts, handshake_latency, .. } = self;
        if let Some(bootstrap) = &self.bootstrap {
            bootstrap.write_rows(output)?;
        }
        if self.opening_seconds > 0.0 {
            row(output, "opening seconds", format!("{:.2}", self.opening_seconds))?;
            let rate = self.opening_handshakes_per_second;
            row(output, "opened/s", format!("{rate:.0}"))?;
        }
        row(output, "handshakes begun", counts.handshakes_begun.to_string())?;
        row(output, "completed", counts.handshakes_completed.to_string())?;
        row(output, "completed/s", format!("{:.0}", self.handshakes_per_second))?;
        row(output, "full", counts.handshakes_full.to_string())?;
        row(output, "abbreviated", counts.handshakes_abbreviated.to_string())?;
        row(output, "with a CID", counts.sessions_with_cid.to_string())?;
        row(output, "handshake p50", milliseconds(handshake_latency.p50_us))?;
        row(output, "handshake p99", milliseconds(handshake_latency.p99_us))?;
        row(output, "handshake p99.9", milliseconds(handshake_latency.p999_us))?;
        row(output, "handshake max", milliseconds(handshake_latency.max_us))?;
        for (cause, count) in &counts.handshake_failures {
            row(output, &format!("failed: {cause}"), count.to_string())?;
        }
        let rare = [
            ("retried", counts.handshakes_retried),
            ("unfinished", self.handshakes_unfinished),
            ("lost by silence", counts.sessions_lost_by_silence),
            ("lost by alert", counts.sessions_lost_by_alert),
            ("ended by server", counts.sessions_ended_by_server),
            ("address changes", counts.address_changes),
            ("discarded", counts.records_discarded),
        ];
        rare.into_iter()
            .filter(|(_, count)| *count > 0)
            .try_for_each(|(name, count)| row(output, name, count.to_string()))
    }
}

fn cause(code: i32) -> String {
    match code {
        FATAL_ALERT => "alert".to_owned(),
        TIMEOUT => "timeout".to_owned(),
        INVALID_MAC => "wrong key".to_owned(),
        // Mbed TLS writes its numbers like this.
        other => format!("-{:#06x}", other.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_before_the_run_and_after_it_have_no_part_in_its_rate() {
        let mut tally = SessionTally::new().unwrap();
        let complete = |tally: &mut SessionTally, count: u64| {
            (0..count).for_each(|_| tally.complete(Duration::from_millis(2), false, true));
        };
        complete(&mut tally, 10);
        tally.end_opening(Duration::from_secs(2));
        complete(&mut tally, 30);
        tally.end_sending();
        complete(&mut tally, 5);
        let report = tally.report(Duration::from_secs(3), 1, None);
        assert!((report.opening_handshakes_per_second - 5.0).abs() < 1e-9);
        assert!((report.handshakes_per_second - 10.0).abs() < 1e-9);
        assert_eq!((report.counts.handshakes_full, report.counts.sessions_with_cid), (45, 45));
        assert_eq!(report.handshake_latency.p50_us, 2_000);
    }

    #[test]
    fn failures_have_names_or_the_numbers_of_the_library() {
        let mut tally = SessionTally::new().unwrap();
        [FATAL_ALERT, FATAL_ALERT, TIMEOUT, -0x7200].into_iter().for_each(|code| tally.fail(code));
        let report = tally.report(Duration::from_secs(1), 0, None);
        let failures: Vec<_> = report.counts.handshake_failures.into_iter().collect();
        let expected = [("-0x7200", 1), ("alert", 2), ("timeout", 1)];
        assert_eq!(failures, expected.map(|(cause, count)| (cause.to_owned(), count)));
    }
}
