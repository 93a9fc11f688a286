//! The key of a cell, as areas and pieces are sorted: radio, country, network, area, cell.

use vocabulary::{CellTower, RadioAccess};

/// Bytes of a key: 3 bits of radio, 10 and 10 of the network, 24 of the area, 36 of the cell.
pub(crate) const KEY_BYTES: usize = 11;

/// A key as a number; those of one area, and of one network, are neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(u128);

const CELL_BITS: u32 = 36;
const AREA_BITS: u32 = 24;
pub(crate) const CELL_MAX: u64 = (1 << CELL_BITS) - 1;
pub(crate) const AREA_MAX: u32 = (1 << AREA_BITS) - 1;

/// The radios that number their cells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Radio {
    Gsm = 0,
    Umts = 1,
    Lte = 2,
    Nr = 3,
}

impl From<RadioAccess> for Radio {
    fn from(access: RadioAccess) -> Self {
        match access {
            RadioAccess::Gsm => Self::Gsm,
            RadioAccess::Umts | RadioAccess::Hspa => Self::Umts,
            // Both live in cells of LTE.
            RadioAccess::Lte | RadioAccess::NbIot | RadioAccess::LteM => Self::Lte,
            RadioAccess::Nr => Self::Nr,
        }
    }
}

impl Key {
    pub(crate) fn new(radio: Radio, (mcc, mnc): (u16, u16), area: u32, cell: u64) -> Self {
        let network = u128::from(radio as u8) << 20 | u128::from(mcc) << 10 | u128::from(mnc);
        let area = u128::from(area & AREA_MAX);
        Self((network << AREA_BITS | area) << CELL_BITS | u128::from(cell & CELL_MAX))
    }

    /// Of a place in the network, its unknown parts as zeros.
    pub(crate) fn of(tower: &CellTower) -> Self {
        let network = (tower.plmn.mcc(), tower.plmn.mnc());
        let (area, cell) = (tower.area.unwrap_or(0), tower.cell.unwrap_or(0));
        Self::new(tower.access.into(), network, area, cell)
    }

    pub(crate) fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut all = [0; 16];
        all[16 - KEY_BYTES..].copy_from_slice(bytes);
        Self(u128::from_be_bytes(all))
    }

    pub(crate) fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes.copy_from_slice(&self.0.to_be_bytes()[16 - KEY_BYTES..]);
        bytes
    }

    #[expect(clippy::cast_possible_truncation, reason = "the mask has 36 bits")]
    pub(crate) fn cell(self) -> u64 {
        (self.0 & u128::from(CELL_MAX)) as u64
    }

    /// The first key of its area.
    pub(crate) fn area_start(self) -> Self {
        Self(self.0 >> CELL_BITS << CELL_BITS)
    }

    /// The first key of its network.
    pub(crate) fn network_start(self) -> Self {
        Self(self.0 >> (CELL_BITS + AREA_BITS) << (CELL_BITS + AREA_BITS))
    }

    /// The first key after its network.
    pub(crate) fn network_end(self) -> Self {
        Self(((self.0 >> (CELL_BITS + AREA_BITS)) + 1) << (CELL_BITS + AREA_BITS))
    }

    /// Its area, as a number.
    #[expect(clippy::cast_possible_truncation, reason = "a key without its cell has 47 bits")]
    pub(crate) fn area(self) -> u64 {
        (self.0 >> CELL_BITS) as u64
    }

    /// Another cell of its area.
    pub(crate) fn with_cell(self, cell: u64) -> Self {
        Self(self.area_start().0 | u128::from(cell & CELL_MAX))
    }
}
