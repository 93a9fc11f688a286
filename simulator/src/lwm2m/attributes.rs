//! Notification attributes (OMA LwM2M Core 1.1 §5.1.2), and when they let a notification go.

use std::time::Duration;

/// Attributes of one path. Each is absent until it is written.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Attributes {
    /// Minimum period in seconds.
    pub(crate) pmin: Option<u32>,
    /// Maximum period in seconds.
    pub(crate) pmax: Option<u32>,
    /// Greater than.
    pub(crate) gt: Option<f64>,
    /// Less than.
    pub(crate) lt: Option<f64>,
    /// Step.
    pub(crate) st: Option<f64>,
}

impl Attributes {
    /// Takes the queries of a Write-Attributes; `None` where one is not understood. An attribute
    /// without a value is taken away.
    pub(crate) fn write<'q>(mut self, queries: impl Iterator<Item = &'q str>) -> Option<Self> {
        for query in queries {
            let (name, value) = query.split_once('=').unwrap_or((query, ""));
            match name {
                "pmin" => self.pmin = number(value)?,
                "pmax" => self.pmax = number(value)?,
                "gt" => self.gt = number(value)?,
                "lt" => self.lt = number(value)?,
                "st" => self.st = number(value)?,
                // Evaluation periods and the like: legal, and nothing is measured here in between.
                "epmin" | "epmax" | "edge" | "con" | "hqmax" => {}
                _ => return None,
            }
        }
        let is_consistent = match (self.lt, self.gt, self.st) {
            // "lt" value + 2 * "st" must be below "gt" (§5.1.2).
            (Some(lt), Some(gt), st) => lt + 2.0 * st.unwrap_or(0.0) < gt,
            _ => true,
        };
        is_consistent.then_some(self)
    }

    /// What is written here counts before what is inherited.
    pub(crate) fn or(self, inherited: Self) -> Self {
        Self {
            pmin: self.pmin.or(inherited.pmin),
            pmax: self.pmax.or(inherited.pmax),
            gt: self.gt.or(inherited.gt),
            lt: self.lt.or(inherited.lt),
            st: self.st.or(inherited.st),
        }
    }

    /// As they stand in a link, with a semicolon before each.
    pub(crate) fn link_text(&self) -> String {
        let integer = |name, value: Option<u32>| value.map(|value| format!(";{name}={value}"));
        let float = |name, value: Option<f64>| value.map(|value| format!(";{name}={value}"));
        [
            integer("pmin", self.pmin),
            integer("pmax", self.pmax),
            float("gt", self.gt),
            float("lt", self.lt),
            float("st", self.st),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// No notification comes sooner after the one before.
    pub(crate) fn least_pause(&self) -> Duration {
        Duration::from_secs(self.pmin.unwrap_or(0).into())
    }

    /// The next notification comes at the latest after this; a period below the least pause, and
    /// one of zero, does not count.
    pub(crate) fn longest_pause(&self) -> Option<Duration> {
        let pmax = self.pmax.filter(|pmax| *pmax > 0 && *pmax >= self.pmin.unwrap_or(0))?;
        Some(Duration::from_secs(pmax.into()))
    }

    /// Whether a change from what was notified before to `new` is worth a notification.
    pub(crate) fn is_worth(&self, before: f64, new: f64) -> bool {
        let crosses = |bound: Option<f64>| {
            bound.is_some_and(|bound| {
                (before > bound) != (new > bound) || (before < bound) != (new < bound)
            })
        };
        let steps = self.st.is_some_and(|step| (new - before).abs() >= step);
        let is_free = self.gt.is_none() && self.lt.is_none() && self.st.is_none();
        is_free || steps || crosses(self.gt) || crosses(self.lt)
    }
}

/// `Some(None)` for no text, `None` for a text that is no such number.
#[expect(clippy::option_option, reason = "taken away, or not understood")]
fn number<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(query: &str) -> Option<Attributes> {
        Attributes::default().write(query.split('&'))
    }

    #[test]
    fn attributes_are_written_inherited_and_taken_away() {
        let object = written("pmin=10&pmax=60").unwrap();
        let resource = written("pmin=1&st=0.5").unwrap();
        let both = resource.or(object);
        assert_eq!((both.pmin, both.pmax, both.st), (Some(1), Some(60), Some(0.5)));
        assert_eq!(both.link_text(), ";pmin=1;pmax=60;st=0.5");
        assert_eq!(object.write(["pmax"].into_iter()).unwrap().pmax, None);
        assert_eq!(written("pmin=x"), None);
        assert_eq!(written("color=red"), None);
        assert_eq!(written("lt=5&gt=6&st=1"), None);
    }

    #[test]
    fn periods_bound_the_pause() {
        let attributes = written("pmin=10&pmax=60").unwrap();
        assert_eq!(attributes.least_pause(), Duration::from_secs(10));
        assert_eq!(attributes.longest_pause(), Some(Duration::from_secs(60)));
        assert_eq!(written("pmin=10&pmax=5").unwrap().longest_pause(), None);
        assert_eq!(written("pmax=0").unwrap().longest_pause(), None);
    }

    #[test]
    fn bounds_and_steps_decide_what_is_worth_a_notification() {
        assert!(written("pmin=1").unwrap().is_worth(1.0, 1.0));
        let bound = written("gt=20").unwrap();
        assert!(bound.is_worth(19.0, 21.0) && bound.is_worth(21.0, 19.0));
        assert!(!bound.is_worth(21.0, 22.0));
        let step = written("st=2").unwrap();
        assert!(step.is_worth(1.0, 3.0) && !step.is_worth(1.0, 2.5));
    }
}
