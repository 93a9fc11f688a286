//! The feeds of the network: what each has told so far, and which have fallen silent.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vocabulary::{Notice, NoticeCategory, NoticeKind, SessionChange, SessionReport, Timestamp};

/// A feed has said nothing for longer than it should.
const SILENT: &str = "NetworkFeed[Silent]";
/// A feed that was silent is heard again.
const HEARD: &str = "NetworkFeed[Heard]";

/// The feeds by name. Clones share them.
#[derive(Clone)]
pub(crate) struct Feeds {
    feeds: Arc<Mutex<BTreeMap<String, Feed>>>,
    silent_after: Duration,
}

/// What a feed has told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feed {
    /// By which protocol.
    pub(crate) kind: &'static str,
    /// Reports since the start.
    pub(crate) reports: u64,
    /// When it was last heard, in this start or an earlier one.
    pub(crate) heard_at: Option<Timestamp>,
    /// Since when it is silent: since then, or since the gateway listens.
    quiet_since: Timestamp,
    /// Whether it was said that it is silent.
    pub(crate) is_silent: bool,
}

impl Feeds {
    /// Feeds by name and protocol, listened to since `now`, and when they were heard in earlier
    /// starts.
    pub(crate) fn new<'a>(
        feeds: impl IntoIterator<Item = (&'a str, &'static str)>,
        heard: &HashMap<String, Timestamp>,
        (silent_after, now): (Duration, Timestamp),
    ) -> Self {
        let feed = |(name, kind): (&str, _)| {
            let heard_at = heard.get(name).copied().map(|heard| heard.min(now));
            let quiet_since = heard_at.unwrap_or(now);
            (name.to_owned(), Feed { kind, heard_at, quiet_since, ..Feed::default() })
        };
        let feeds = Arc::new(Mutex::new(feeds.into_iter().map(feed).collect()));
        Self { feeds, silent_after }
    }

    /// Reports have come; what an operator should know of it.
    pub(crate) fn heard(&self, reports: &[SessionReport], now: Timestamp) -> Option<Notice> {
        let mut feeds = self.lock();
        let mut woken = None;
        // That a SIM has carried octets says nothing of whether sessions are told.
        for report in reports.iter().filter(|report| report.change != SessionChange::Usage) {
            let Some(feed) = feeds.get_mut(&report.feed) else { continue };
            feed.reports += 1;
            (feed.heard_at, feed.quiet_since) = (Some(now), now);
            if std::mem::take(&mut feed.is_silent) {
                let description = format!("The network feed {:?} is heard again.", report.feed);
                woken = Some(notice(NoticeCategory::Info, HEARD, description));
            }
        }
        woken
    }

    /// The feeds that have fallen silent since the last look.
    pub(crate) fn fallen_silent(&self, now: Timestamp) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (name, feed) in &mut *self.lock() {
            if feed.is_silent || now.saturating_since(feed.quiet_since) < self.silent_after {
                continue;
            }
            feed.is_silent = true;
            let description = format!(
                "The network feed {name:?} has said nothing since {}. Data sessions that are not \
                 heard vouch for no address after a while: its devices may be refused.",
                feed.quiet_since
            );
            notices.push(notice(NoticeCategory::Error, SILENT, description));
        }
        notices
    }

    /// All of them.
    pub(crate) fn list(&self) -> BTreeMap<String, Feed> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Feed>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn notice(category: NoticeCategory, message: &str, description: String) -> Notice {
    let mut notice = Notice::new(category, NoticeKind::General, message);
    notice.description = description;
    notice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_that_falls_silent_is_told_once_and_so_is_its_return() {
        let at = |hours: i64| Timestamp::from_millis(hours * 3_600_000);
        let day = Duration::from_hours(24);
        let names = [("one", "RADIUS"), ("two", "STREAM")];
        let feeds = Feeds::new(names, &HashMap::new(), (day, at(0)));
        assert_eq!(feeds.list()["one"].heard_at, None);
        let report = SessionReport::new("one", SessionChange::Start, "pgw", at(1));
        assert_eq!(feeds.heard(std::slice::from_ref(&report), at(1)), None);
        let silent = feeds.fallen_silent(at(24));
        assert_eq!(silent.len(), 1);
        assert!(silent[0].description.contains("\"two\""), "{silent:?}");
        assert_eq!(feeds.fallen_silent(at(25))[0].message, SILENT);
        assert!(feeds.fallen_silent(at(99)).is_empty());
        let woken = feeds.heard(&[report.clone(), report], at(100)).unwrap();
        assert_eq!(woken.message, HEARD);
        assert!(!feeds.list()["one"].is_silent);
        assert_eq!(feeds.list()["one"].reports, 3);
        assert_eq!(feeds.list()["one"].heard_at, Some(at(100)));
    }

    /// A gateway that was restarted each day never said that a feed was silent.
    #[test]
    fn silence_lasts_over_a_restart() {
        let at = |hours: i64| Timestamp::from_millis(hours * 3_600_000);
        let day = Duration::from_hours(24);
        let heard = HashMap::from([("one".to_owned(), at(10)), ("two".to_owned(), at(99))]);
        let names = [("one", "RADIUS"), ("two", "STREAM"), ("three", "STREAM")];
        let feeds = Feeds::new(names, &heard, (day, at(20)));
        assert!(feeds.fallen_silent(at(33)).is_empty());
        let silent = feeds.fallen_silent(at(34));
        assert_eq!(silent.len(), 1, "a clock that went back says nothing: {silent:?}");
        assert!(silent[0].description.contains("\"one\""), "{silent:?}");
    }
}
