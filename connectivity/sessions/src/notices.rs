//! What an operator should know of sessions, said not too often: where two servers give out the
//! same addresses, thousands are contested.

use std::net::IpAddr;
use std::time::Duration;

use vocabulary::{Notice, NoticeCategory, NoticeKind, SessionReport, Timestamp};

use crate::origin::ORIGINS_MAX;
use crate::session::Holder;

/// Notices in each [`SPAN`] at most: what a person reads (estimate).
const NOTICES_MAX: u32 = 10;
const SPAN: Duration = Duration::from_secs(60);

/// How many notices there were. Not saved: after a start it may say a few more.
#[derive(Default)]
pub(crate) struct Notices {
    since: Timestamp,
    said: u32,
    left_out: u64,
    is_full: bool,
}

impl Notices {
    /// Two SIMs claim the address of a report.
    pub(crate) fn contested(&mut self, now: Timestamp, report: &SessionReport) -> Option<Notice> {
        let left_out = self.admit(now)?;
        let message = "DataSession[Contested]";
        let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::Device, message);
        notice.iccid = report.iccid;
        notice.imsi = report.imsi;
        notice.ip = report.ipv4.map(IpAddr::V4).or(report.ipv6_prefix.map(IpAddr::V6));
        let is_nobody = Holder::of(report).is_nobody();
        let somebody = if is_nobody { " of a SIM that is not named" } else { "" };
        notice.description = format!(
            "Session {:?}{somebody} of feed {:?}, server {:?}, and one of another SIM claim the \
             same address at the same time. Its messages are refused until one of the sessions \
             ends, or is heard alone.{left_out}",
            report.session, report.feed, report.server
        );
        Some(notice)
    }

    /// There are more sessions than are allowed.
    pub(crate) fn full_of_sessions(
        &mut self,
        now: Timestamp,
        sessions_max: usize,
    ) -> Option<Notice> {
        self.full(now, || {
            format!(
                "There are more data sessions than the {sessions_max} that are allowed. New ones \
                 are not taken, and messages from their addresses are refused."
            )
        })
    }

    /// There are more servers than are allowed.
    pub(crate) fn full_of_servers(
        &mut self,
        now: Timestamp,
        report: &SessionReport,
    ) -> Option<Notice> {
        self.full(now, || {
            format!(
                "Feed {:?} has named server {:?} beyond the {ORIGINS_MAX} that are allowed: does \
                 each of its packets name another? Sessions of new servers are not taken, and \
                 messages from their addresses are refused.",
                report.feed, report.server
            )
        })
    }

    fn full(&mut self, now: Timestamp, description: impl FnOnce() -> String) -> Option<Notice> {
        self.begin_span(now);
        if std::mem::replace(&mut self.is_full, true) {
            return None;
        }
        let message = "DataSession[Full]";
        let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::General, message);
        notice.description = description();
        Some(notice)
    }

    /// Whether there may be another notice, with what there is to say of those that were left out.
    fn admit(&mut self, now: Timestamp) -> Option<String> {
        self.begin_span(now);
        if self.said >= NOTICES_MAX {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            others => format!(" Of {others} others before nothing was said."),
        })
    }

    fn begin_span(&mut self, now: Timestamp) {
        if now.saturating_since(self.since) >= SPAN || now < self.since {
            (self.since, self.said, self.is_full) = (now, 0, false);
        }
    }
}
