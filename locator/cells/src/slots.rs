//! The cells of one area, as the file keeps them: a table of slots of 17 bytes, in the order of a
//! hash of the cell's number.
//!
//! A cell lies at its home, which the hash says, or a few slots behind it: whoever looks for it
//! waits for one or two neighbouring cache lines. The hash is made again and not stored.

use crate::key::Key;
use crate::record::{REST_BYTES, Record};

const CELL_BYTES: usize = 5;
/// Bytes of a slot: the number of the cell and what a record says of it.
pub(crate) const SLOT_BYTES: usize = CELL_BYTES + REST_BYTES;
/// No cell; numbers of cells have 36 bits.
const EMPTY: u64 = (1 << (8 * CELL_BYTES)) - 1;

pub(crate) type Slot = [u8; SLOT_BYTES];

/// Of a table that four fifths of are taken: with fewer free slots a cell lies further from its
/// home, with more of them it takes more than 24 bytes.
fn homes(cells: u32) -> u64 {
    // A file has fewer than 2^32 slots; more could only be said by one that is forged.
    (u64::from(cells) + u64::from(cells) / 4).min(u32::MAX.into())
}

/// Neighbouring numbers, and those that differ in some bits only, get scattered hashes: two rounds
/// of multiply and shift, with odd factors from the golden ratio and from SplitMix64.
pub(crate) fn mixed(number: u64) -> u64 {
    let once = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (once ^ once >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

/// The cell of a slot, or [`EMPTY`].
fn cell_of(slot: &Slot) -> u64 {
    let [a, b, c, d, e, ..] = *slot;
    u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
}

/// The table of an area's cells, each of them there once. It ends with an empty slot.
pub(crate) fn lay_out(cells: &mut [Record]) -> Vec<Slot> {
    cells.sort_unstable_by_key(|record| (mixed(record.key.cell()), record.key.cell()));
    let homes = homes(u32::try_from(cells.len()).unwrap_or(u32::MAX));
    let mut slots = Vec::with_capacity(cells.len() + cells.len() / 2);
    let fill = |slots: &mut Vec<Slot>, up_to| {
        while (slots.len() as u64) < up_to {
            slots.push([0xff; SLOT_BYTES]);
        }
    };
    for record in cells {
        fill(&mut slots, (mixed(record.key.cell()) * homes) >> 32);
        let mut slot = [0; SLOT_BYTES];
        let (cell, rest) = slot.split_at_mut(CELL_BYTES);
        cell.copy_from_slice(&record.key.cell().to_le_bytes()[..CELL_BYTES]);
        rest.copy_from_slice(&record.rest());
        slots.push(slot);
    }
    fill(&mut slots, homes);
    // Whoever looks for a cell stops here, and reads nothing of the next area.
    if slots.last().is_none_or(|slot| cell_of(slot) != EMPTY) {
        slots.push([0xff; SLOT_BYTES]);
    }
    slots
}

/// Looks for a cell in the table of its area, which has so many `cells` and begins with `slots`.
pub(crate) fn find(slots: &[Slot], cells: u32, key: Key) -> Option<Record> {
    let (wanted, hash) = (key.cell(), mixed(key.cell()));
    let home = usize::try_from((hash * homes(cells)) >> 32).ok()?;
    for slot in slots.get(home..)? {
        let cell = cell_of(slot);
        if cell == wanted {
            return record(slot, key);
        }
        if cell == EMPTY || mixed(cell) > hash {
            return None;
        }
    }
    None
}

/// All cells of a table, in the order of the hash.
pub(crate) fn records(slots: &[Slot], area: Key) -> impl Iterator<Item = Record> {
    slots.iter().filter_map(move |slot| record(slot, area))
}

fn record(slot: &Slot, area: Key) -> Option<Record> {
    let cell = cell_of(slot);
    let rest = slot.last_chunk()?;
    (cell != EMPTY).then(|| Record::from_parts(area.with_cell(cell), rest))
}

#[cfg(test)]
mod tests {
    use vocabulary::Coordinates;

    use super::*;
    use crate::key::{CELL_MAX, Radio};

    #[test]
    fn every_cell_is_found_and_none_of_the_next_area() {
        let at = Coordinates::new(50.0, 10.0).unwrap();
        let key = |cell| Key::new(Radio::Lte, (262, 1), 7, cell);
        for count in [1_u32, 2, 3, 4, 5, 90, 5_000] {
            let numbers = || (0..u64::from(count)).map(|cell| cell * 256 % CELL_MAX);
            let mut cells: Vec<_> = numbers().map(|cell| Record::new(key(cell), at, 8)).collect();
            cells.reverse();
            let mut slots = lay_out(&mut cells);
            assert_eq!(records(&slots, key(0)).count(), cells.len());
            let mut next = [Record::new(key(CELL_MAX), at, 16)];
            slots.extend(lay_out(&mut next));
            for cell in numbers() {
                let found = find(&slots, count, key(cell)).unwrap();
                assert_eq!((found.key, found.range_m()), (key(cell), 8));
                assert_eq!(find(&slots, count, key(cell + 1)), None);
            }
            assert_eq!(find(&slots, count, key(CELL_MAX)), None, "{count}");
        }
    }
}
