//! Compares what devices remember with what a stopped gateway's folder holds.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use message_log::{MessageLog, Offset, ReadLimits};
use simulator::{COUNTER_BYTES, Fleet, Ledger};
use vocabulary::{Event, EventId, Iccid};

use super::load::PROBED;

/// All telemetry of a message log, in its order.
pub(crate) struct Store {
    /// The numbers of the payloads of each device, with their ids.
    pub(crate) devices: HashMap<Iccid, Vec<(u64, EventId)>>,
    /// Telemetry of the fleet, that is, without the probe's.
    pub(crate) records: u64,
}

impl Store {
    /// Reads the log in the folder `messages`, and checks what must hold for any log: ids rise,
    /// the numbers within each device have no gap, nothing is damaged, no payload stands there
    /// twice.
    pub(crate) fn read(messages: &Path) -> Self {
        let log = MessageLog::open_read_only(messages).unwrap();
        let mut store = Self { devices: HashMap::new(), records: 0 };
        let (mut next, mut last_id) = (Offset::BEGINNING, None);
        let mut numbers = HashSet::new();
        loop {
            let batch = log.read(next, ReadLimits { records: 10_000, bytes: 1 << 24 }).unwrap();
            for record in &batch.records {
                assert!(last_id < Some(record.id), "id {} does not rise", record.id);
                last_id = Some(record.id);
                let kind = record.kind.code();
                let event = Event::decode(kind, record.device.as_u64(), &record.body).unwrap();
                let Event::Telemetry(telemetry) = event else { continue };
                let number = number(telemetry.payload);
                assert!(numbers.insert(number), "message {number} has two ids");
                let device = store.devices.entry(telemetry.identity.iccid).or_default();
                device.push((number, record.id));
                assert_eq!(record.device_seq, device.len() as u64, "the number in its device");
                store.records += u64::from(number < PROBED);
            }
            if batch.next == next {
                break;
            }
            next = batch.next;
        }
        assert_eq!(log.status().damaged, 0);
        store
    }

    /// Checks that what was acknowledged is there, and that what is there was sent by that device.
    pub(crate) fn agrees_with(&self, ledger: &Ledger, fleet: &Fleet) {
        let mut stored = HashSet::new();
        for (iccid, messages) in &self.devices {
            for (number, _) in messages.iter().filter(|(number, _)| *number < PROBED) {
                let sent = ledger.find(*number);
                let sender = sent.and_then(|sent| fleet.iccid(sent.device));
                assert_eq!(sender, Some(*iccid), "message {number} was not sent by its device");
                stored.insert(*number);
            }
        }
        let lost: Vec<u64> =
            ledger.acknowledged_numbers().filter(|number| !stored.contains(number)).collect();
        assert!(lost.is_empty(), "{} acknowledged messages are lost: {lost:?}", lost.len());
    }

    /// The numbers that the device `iccid` sent, in the order of the log.
    pub(crate) fn numbers(&self, iccid: Iccid) -> Vec<u64> {
        let messages = self.devices.get(&iccid).map_or(&[][..], Vec::as_slice);
        messages.iter().map(|(number, _)| *number).collect()
    }
}

/// The number of a payload of which all other bytes are zero, as they were sent.
fn number(payload: &[u8]) -> u64 {
    let (number, zeros) = payload.split_first_chunk::<COUNTER_BYTES>().unwrap();
    assert!(zeros.iter().all(|byte| *byte == 0), "a payload was changed: {payload:?}");
    u64::from_be_bytes(*number)
}
