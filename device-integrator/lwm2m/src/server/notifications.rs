//! Notifications of devices (RFC 7641, OMA LwM2M Core 1.1 §6.4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use coap::wire::ContentFormat;
use coap::{Exchange, IncomingNotification, IncomingResponse, NotificationOrder};
use hashbrown::HashMap;
use vocabulary::{Iccid, Timestamp};

use super::operations::{Flying, Kind, default_format};
use super::tickets::{Action, BUSY, Noted};
use super::{Server, translate};
use crate::codec;
use crate::contact::{Contact, Device, Moment};
use crate::event::{Event, Exchanged, Origin};
use crate::path::Path;
use crate::record::{Record, by_time, flat_json};
use crate::registration::Observation;
use crate::registry::Flight;
use crate::value::Value;

/// Large notifications of one device that wait to be read whole; more are left to be repeated.
const FETCHES_PER_DEVICE_MAX: usize = 4;

/// A notification of which only the first block came.
#[derive(Debug)]
pub(super) struct Fetch {
    exchange: Exchange<Contact>,
    observation: Observation,
    format: Option<ContentFormat>,
    noted: Noted,
}

/// How often large notifications are looked for whose devices are not heard here any more. After
/// `MAX_TRANSMIT_WAIT`, 93 s (RFC 7252 §4.8.2), such a device does not repeat them either.
const FETCHES_SWEPT_EVERY: Duration = Duration::from_secs(60);

/// Large notifications that wait to be read whole.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    waiting: HashMap<Iccid, VecDeque<Box<Fetch>>>,
    swept_at: Option<Instant>,
}

impl Fetches {
    pub(super) fn has(&self, iccid: Iccid) -> bool {
        self.waiting.contains_key(&iccid)
    }

    fn push(&mut self, iccid: Iccid, fetch: Box<Fetch>) -> Result<(), Box<Fetch>> {
        let waiting = self.waiting.entry(iccid).or_default();
        if waiting.len() >= FETCHES_PER_DEVICE_MAX {
            return Err(fetch);
        }
        waiting.push_back(fetch);
        Ok(())
    }

    fn pop(&mut self, iccid: Iccid) -> Option<Box<Fetch>> {
        let waiting = self.waiting.get_mut(&iccid)?;
        let fetch = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&iccid);
        }
        fetch
    }

    /// Devices that have some, if it is time to look at them.
    fn due_for_sweep(&mut self, now: Instant) -> Vec<Iccid> {
        let is_due =
            self.swept_at.is_none_or(|at| now.saturating_duration_since(at) >= FETCHES_SWEPT_EVERY);
        if !is_due || self.waiting.is_empty() {
            return Vec::new();
        }
        self.swept_at = Some(now);
        self.waiting.keys().copied().collect()
    }
}

impl Server {
    pub(super) fn handle_notification(
        &mut self,
        moment: Moment,
        device: Device,
        notification: IncomingNotification<Contact>,
    ) {
        let iccid = device.iccid;
        let token = notification.exchange.token().as_bytes().try_into().map(u64::from_be_bytes);
        let order =
            notification.sequence.map(|sequence| NotificationOrder { sequence, at: moment.now });
        let found = token.ok().and_then(|token| {
            let found = self.registry.with_own(device, moment.at, |entry| {
                let watched = entry.watched_mut(token)?;
                Some((token, watched.observation.clone(), watched.is_overtaken(order)))
            });
            let watched = found.flatten();
            watched.or_else(|| self.find_ending(moment, device, token))
        });
        let (format, is_partial) = (notification.content_format(), notification.is_partial());
        let exchange = notification.exchange;
        // Of another device, ended, or an answer that came too late.
        let Some((token, observation, is_stale)) = found else {
            self.counters.notifications_unknown += 1;
            self.endpoint.reject(exchange);
            return;
        };
        if !notification.code.is_success() {
            self.end_watch(iccid, token);
            let _answered = self.endpoint.acknowledge(exchange);
            let description = format!("{}: {}", paths_text(&observation), notification.code);
            self.notice(iccid, "Lwm2m[ObservationEnded]", description);
            return;
        }
        if is_stale {
            self.counters.notifications_stale += 1;
            // A confirmable one is a value that the device wants to be kept, if only for the
            // history: it comes late because its first copy was lost, or could not be kept.
            if !exchange.is_confirmable() {
                let _answered = self.endpoint.acknowledge(exchange);
                return;
            }
        }
        // RFC 7641 §3.2: a response without Observe is the last one.
        let noted = Noted { iccid, token, is_last: order.is_none() };
        self.counters.notifications += 1;
        if is_partial {
            let fetch = Box::new(Fetch { exchange, observation, format, noted });
            match self.fetches.push(iccid, fetch) {
                Ok(()) => self.advance_quietly(moment, iccid),
                Err(fetch) => self.decline_fetch(*fetch),
            }
            return;
        }
        self.take_notification(
            moment,
            (exchange, noted),
            &observation,
            (format, &notification.payload),
        );
    }

    /// The observation that is being cancelled: a notification of it was on its way.
    fn find_ending(
        &self,
        moment: Moment,
        device: Device,
        token: u64,
    ) -> Option<(u64, Observation, bool)> {
        let observation = self.flights.ending(device.iccid, token)?;
        let is_own = self.registry.with_own(device, moment.at, |_| ()).is_some();
        is_own.then(|| (token, observation.clone(), false))
    }

    /// Reads a whole notification and hands it on.
    fn take_notification(
        &mut self,
        moment: Moment,
        (exchange, noted): (Exchange<Contact>, Noted),
        observation: &Observation,
        (format, payload): (Option<ContentFormat>, &[u8]),
    ) {
        let base = match &*observation.paths {
            [path] if !observation.composite => *path,
            _ => Path::ROOT,
        };
        let format = format.unwrap_or_else(|| default_format(&base));
        match codec::decode(format, &base, payload, &self.model, unix(moment.at)) {
            Ok(records) => {
                let what = (&records[..], Origin::Notification);
                self.hand_on(moment, noted.iccid, what, Some((exchange, noted)));
            }
            // Repeating it would not help, and what is acknowledged must not be lost: it is handed
            // on as the bytes that came.
            Err(error) => {
                self.counters.notifications_unreadable += 1;
                let description = format!("{}: {error}", paths_text(observation));
                self.notice(noted.iccid, "Lwm2m[NotificationUnreadable]", description);
                let records = [Record::new(base, Value::Opaque(payload.to_vec()))];
                let what = (&records[..], Origin::Notification);
                self.hand_on(moment, noted.iccid, what, Some((exchange, noted)));
            }
        }
    }

    /// Hands values on, one uplink for each moment; a CON that carried them waits until they are
    /// durable.
    pub(super) fn hand_on(
        &mut self,
        moment: Moment,
        iccid: Iccid,
        (records, origin): (&[Record], Origin),
        carrier: Option<(Exchange<Contact>, Noted)>,
    ) {
        let groups = by_time(records);
        let exchanged = carrier.as_ref().map(|(exchange, _)| Exchanged::of(exchange));
        let ticket = match carrier {
            Some((exchange, noted)) if exchange.is_confirmable() && !groups.is_empty() => {
                let action = Action::Notification(exchange, noted);
                let Some(ticket) = self.open(moment, action, groups.len()) else { return };
                Some(ticket)
            }
            Some((exchange, noted)) => {
                self.accept_notification(exchange, &noted);
                None
            }
            None => None,
        };
        for (part, group) in (0..).zip(groups) {
            self.emit(Event::Uplink {
                ticket,
                iccid,
                exchange: exchanged.map(|exchanged| Exchanged { part, ..exchanged }),
                measured_at: group.time.map(timestamp),
                payload: flat_json(&group.records),
                origin,
            });
        }
    }

    /// Acknowledges a notification that is durable, or need not be.
    pub(super) fn accept_notification(&mut self, exchange: Exchange<Contact>, noted: &Noted) {
        let _answered = self.endpoint.acknowledge(exchange);
        if noted.is_last {
            self.end_watch(noted.iccid, noted.token);
        }
    }

    /// Forgets an observation that the device has ended.
    pub(super) fn end_watch(&mut self, iccid: Iccid, token: u64) {
        let state =
            self.registry.with(iccid, |entry| entry.unwatch(token).then(|| entry.save())).flatten();
        if state.is_some() {
            self.emit(Event::SaveSoon { iccid, state });
        }
    }

    /// Asks for the whole of a large notification, if the device is free.
    pub(super) fn begin_fetch(&mut self, moment: Moment, iccid: Iccid) -> bool {
        if !self.drop_fetches(iccid) {
            return false;
        }
        let flight = Flight { seat: self.seat, serial: self.flights.next_serial() };
        let target = self.registry.with(iccid, |entry| {
            let contact = entry.registration.contact?;
            if entry.flight.is_some() || contact.seat != flight.seat {
                return None;
            }
            entry.flight = Some(flight);
            Some(entry.target(contact))
        });
        let Some(target) = target.flatten() else { return false };
        let Some(fetch) = self.fetches.pop(iccid) else { return false };
        let asked = translate::reading(&target, &fetch.observation, fetch.format)
            .ok()
            .and_then(|plan| self.endpoint.request(moment.now, target.contact, plan.request).ok());
        match asked {
            Some(request) => {
                let kind = Kind::Fetch(fetch, flight.serial);
                self.flights.insert(request, Flying { iccid, kind });
                true
            }
            None => {
                self.land(iccid, flight.serial);
                self.decline_fetch(*fetch);
                false
            }
        }
    }

    /// Drops large notifications of a device whose observation has ended, and those of one that is
    /// heard elsewhere, where it repeats them; whether any are left.
    pub(super) fn drop_fetches(&mut self, iccid: Iccid) -> bool {
        let Some(waiting) = self.fetches.waiting.remove(&iccid) else { return false };
        let mut left = VecDeque::new();
        for fetch in waiting {
            let contact = self.registry.with(iccid, |entry| {
                let is_watched = entry.watched_mut(fetch.noted.token).is_some();
                is_watched.then_some(entry.registration.contact)
            });
            match contact.flatten() {
                None => self.endpoint.reject(fetch.exchange),
                Some(Some(contact)) if contact.seat == self.seat => left.push_back(fetch),
                Some(_) => self.decline_fetch(*fetch),
            }
        }
        let has_some = !left.is_empty();
        if has_some {
            self.fetches.waiting.insert(iccid, left);
        }
        has_some
    }

    /// Looks now and then at large notifications whose devices may not be heard any more.
    pub(super) fn sweep_fetches(&mut self, moment: Moment) {
        for iccid in self.fetches.due_for_sweep(moment.now) {
            self.drop_fetches(iccid);
        }
    }

    pub(super) fn conclude_fetch(
        &mut self,
        moment: Moment,
        (fetch, serial): (Fetch, u64),
        response: IncomingResponse<Contact>,
    ) {
        self.land(fetch.noted.iccid, serial);
        if !response.code.is_success() {
            self.decline_fetch(fetch);
            return;
        }
        let format = response.content_format().or(fetch.format);
        let Fetch { exchange, observation, noted, .. } = fetch;
        self.take_notification(
            moment,
            (exchange, noted),
            &observation,
            (format, &response.payload),
        );
    }

    /// Leaves a notification to be repeated.
    pub(super) fn decline_fetch(&mut self, fetch: Fetch) {
        self.decline_notification(fetch.exchange, &fetch.noted, &BUSY);
    }
}

impl Exchanged {
    /// What makes a copy of a message known.
    pub(super) fn of(exchange: &Exchange<Contact>) -> Self {
        Self {
            message_id: exchange.id().0,
            token: exchange.token(),
            confirmable: exchange.is_confirmable(),
            part: 0,
        }
    }
}

fn paths_text(observation: &Observation) -> String {
    let paths: Vec<String> = observation.paths.iter().map(ToString::to_string).collect();
    paths.join(" ")
}

/// Seconds since 1970, as the formats of devices count.
#[expect(clippy::cast_precision_loss, reason = "microseconds of today need 51 bits")]
pub(super) fn unix(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

/// The moment of a measurement.
#[expect(clippy::cast_possible_truncation, reason = "a cast from float saturates")]
pub(super) fn timestamp(seconds: f64) -> Timestamp {
    Timestamp::from_micros((seconds * 1e6) as i64)
}
