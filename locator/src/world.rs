//! What a sighting changes, and what is said of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use geofence::{Observation, Rules};
use vocabulary::{
    CellTower, Coordinates, Crossing, Identity, Located, Position, PositionSource, Timestamp,
};

use crate::outputs::{self, Output};
use crate::sightings::Sighting;
use crate::{Locator, World};

/// How far in the future a device's clock may be. Beyond it nothing is known of the time.
const CLOCK_AHEAD_MAX: Duration = Duration::from_mins(5);
/// A cell that was told this long before or after a position is the cell of that position.
const CELL_AND_POSITION: Duration = Duration::from_mins(15);
/// That a device tells impossible positions is said this often.
const REFUSAL_SILENCE: Duration = Duration::from_hours(1);

impl World {
    /// Takes a sighting whose record stands at `cause` and arrived at `arrived`.
    pub(crate) fn take(
        locator: &Locator,
        sighting: Sighting,
        (cause, arrived): (u64, Timestamp),
    ) -> Vec<Output> {
        let mut world = locator.world();
        // Asked under the lock that `forget` takes: a record that was read before its SIM was
        // removed brings nothing back.
        if !locator.0.settings.held.holds(sighting.device()) {
            return Vec::new();
        }
        match sighting {
            Sighting::Told { identity, at, place, accuracy_m } => {
                let place = place.map_err(|error| error.to_string()).and_then(|place| {
                    let ahead = at.saturating_since(arrived);
                    if ahead > CLOCK_AHEAD_MAX { Err(ahead_by(ahead)) } else { Ok(place) }
                });
                match place {
                    Ok(coordinates) => {
                        world.learn(locator, identity, (coordinates, accuracy_m), at);
                        let position = Position { coordinates, accuracy_m };
                        let gps = (PositionSource::Gps, at.min(arrived));
                        let located = located(identity, gps, Some(position), cause);
                        world.locate(locator, located)
                    }
                    Err(reason) => world.refuse(identity, &reason, (cause, arrived)),
                }
            }
            Sighting::InCell { identity, at, tower, begins } => {
                world.in_cell(locator, (identity, at), (tower, begins), cause)
            }
        }
    }

    fn refuse(
        &mut self,
        identity: Identity,
        reason: &str,
        (cause, arrived): (u64, Timestamp),
    ) -> Vec<Output> {
        let device = self.devices.change(identity.iccid);
        let told = device.refusal_told;
        if told.is_some_and(|told| arrived.saturating_since(told) < REFUSAL_SILENCE) {
            return Vec::new();
        }
        device.refusal_told = Some(arrived);
        vec![Output::Notice(outputs::refused(identity, reason, cause))]
    }

    /// Learns where the cell is that a device is in, from where it says that it is.
    fn learn(
        &mut self,
        locator: &Locator,
        identity: Identity,
        place: (Coordinates, Option<f64>),
        at: Timestamp,
    ) {
        if !locator.0.settings.learn_cells {
            return;
        }
        let known = self.devices.find(identity.iccid).and_then(|device| device.cell.current);
        let Some((tower, since)) = known else { return };
        let apart = at.saturating_since(since).max(since.saturating_since(at));
        if apart <= CELL_AND_POSITION {
            self.cells.learn(tower, place, at);
        }
    }

    fn in_cell(
        &mut self,
        locator: &Locator,
        (identity, at): (Identity, Timestamp),
        (tower, begins): (CellTower, bool),
        cause: u64,
    ) -> Vec<Output> {
        let device = self.devices.change(identity.iccid);
        let is_known = |current| current == (tower, at);
        if device.cell.current.is_some_and(|current| current.1 > at || is_known(current)) {
            return Vec::new();
        }
        device.cell.current = Some((tower, at));
        let interval = locator.0.settings.cell_interval;
        let is_early = |located: Timestamp| at.saturating_since(located) < interval;
        let is_known_in_vain = !begins && device.cell.unknown == Some(tower);
        if !locator.0.settings.by_cells.load(Ordering::Relaxed)
            || device.cell.located_at.is_some_and(is_early)
            || is_known_in_vain
        {
            return Vec::new();
        }
        let fix = self.cells.learned.locate(&tower).or_else(|| locator.0.database.locate(&tower));
        match fix {
            Some(_) => (device.cell.located_at, device.cell.unknown) = (Some(at), None),
            None => device.cell.unknown = Some(tower),
        }
        let by_cell = (PositionSource::CellTower, at);
        let mut located = located(identity, by_cell, fix.map(|fix| fix.position), cause);
        located.cell = Some(tower);
        located.matched = fix.map(|fix| fix.matched);
        self.locate(locator, located)
    }

    /// Remembers a position, and tells what was crossed by it.
    fn locate(&mut self, locator: &Locator, located: Located) -> Vec<Output> {
        let (identity, cause) = (located.identity(), located.cause);
        let mut outputs = vec![Output::Located(located.clone())];
        let Some(position) = located.position else { return outputs };
        let Self { devices, fences, .. } = self;
        let device = devices.change(identity.iccid);
        let is_newest = |latest: &Located| latest.sampled_at <= located.sampled_at;
        if device.latest.as_ref().is_none_or(is_newest) {
            device.latest = Some(located.clone());
        }
        let settings = &locator.0.settings;
        let rules = Rules { hysteresis_m: settings.hysteresis_m, dwell: settings.dwell };
        let observation = Observation {
            coordinates: position.coordinates,
            accuracy_m: position.accuracy_m,
            source: located.source,
            at: located.sampled_at,
        };
        let number = identity.iccid.as_u64();
        let crossed = device.fences.observe((&fences.index, &rules), number, &observation);
        for crossed in crossed {
            let Some(geofence) = fences.numbered(crossed.fence) else { continue };
            let crossing = Crossing {
                id: geofence.id.clone(),
                name: geofence.name.clone(),
                direction: crossed.direction,
                source: located.source,
                position,
                sampled_at: located.sampled_at,
            };
            outputs.push(Output::Notice(outputs::crossed(identity, crossing, cause)));
        }
        outputs
    }
}

fn located(
    identity: Identity,
    (source, sampled_at): (PositionSource, Timestamp),
    position: Option<Position>,
    cause: u64,
) -> Located {
    Located {
        iccid: identity.iccid,
        imsi: identity.imsi,
        ip: identity.ip,
        source,
        sampled_at,
        position,
        cell: None,
        matched: None,
        cause,
    }
}

fn ahead_by(ahead: Duration) -> String {
    format!("it is of a time {} s in the future, allowed: 300", ahead.as_secs())
}
