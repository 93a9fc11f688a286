//! Where reports come from: a feed, and a server in the network behind it.

use hashbrown::HashMap;

/// Origins at most: ten times the gateways of a large network (estimate). All of them are written
/// when one has begun anew.
pub(crate) const ORIGINS_MAX: usize = 10_000;
/// In place of the number of an origin that found no room.
pub(crate) const NO_ORIGIN: u32 = u32::MAX;

/// All origins, numbered. There are a few, and they stay.
#[derive(Default)]
pub(crate) struct Origins {
    list: Vec<Origin>,
    by_name: HashMap<(Box<str>, Box<str>), u32>,
    pub(crate) changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) feed: Box<str>,
    pub(crate) server: Box<str>,
    /// When it last began anew, in microseconds: sessions of before are gone.
    pub(crate) restarted: i64,
    /// The last report of the sessions that were forgotten: an older report may be of one of them.
    pub(crate) forgotten: i64,
}

impl Origins {
    /// The number of an origin; nothing where it is new and there are too many.
    pub(crate) fn number_of(&mut self, feed: &str, server: &str) -> Option<u32> {
        // The names of one feed are few, so a search by parts is not worth a second map.
        let key: (Box<str>, Box<str>) = (feed.into(), server.into());
        if let Some(number) = self.by_name.get(&key) {
            return Some(*number);
        }
        let (feed, server) = key;
        (self.list.len() < ORIGINS_MAX)
            .then(|| self.add(Origin { feed, server, restarted: i64::MIN, forgotten: i64::MIN }))
    }

    pub(crate) fn add(&mut self, origin: Origin) -> u32 {
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.by_name.insert((origin.feed.clone(), origin.server.clone()), number);
        self.list.push(origin);
        self.changed = true;
        number
    }

    pub(crate) fn restart(&mut self, number: u32, at: i64) {
        if let Some(origin) = self.list.get_mut(number as usize) {
            origin.restarted = origin.restarted.max(at);
            self.changed = true;
        }
    }

    pub(crate) fn forget(&mut self, number: u32, heard: i64) {
        if let Some(origin) = self.list.get_mut(number as usize)
            && origin.forgotten < heard
        {
            origin.forgotten = heard;
            self.changed = true;
        }
    }

    pub(crate) fn forgotten(&self, number: u32) -> i64 {
        self.list.get(number as usize).map_or(i64::MIN, |origin| origin.forgotten)
    }

    pub(crate) fn restarted(&self, number: u32) -> i64 {
        self.list.get(number as usize).map_or(i64::MIN, |origin| origin.restarted)
    }

    pub(crate) fn feed_of(&self, number: u32) -> &str {
        self.list.get(number as usize).map_or("", |origin| &origin.feed)
    }

    pub(crate) fn server_of(&self, number: u32) -> &str {
        self.list.get(number as usize).map_or("", |origin| &origin.server)
    }

    pub(crate) fn list(&self) -> &[Origin] {
        &self.list
    }
}
