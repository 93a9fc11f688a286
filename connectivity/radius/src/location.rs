//! 3GPP-User-Location-Info: where a device is, as the packet core knows it (3GPP TS 29.061
//! §16.4.7.2, with the codings of TS 29.274 §8.21 and TS 38.413 §9.3.1.7).

use thiserror::Error;
use vocabulary::{CellTower, Plmn, RadioAccess};

/// What the attribute says, by its geographic location type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserLocation {
    /// 0, CGI: a cell of GSM or UMTS.
    Cell {
        /// The network.
        plmn: Plmn,
        /// The location area.
        area: u16,
        /// The cell.
        cell: u16,
    },
    /// 1, SAI: a service area, which is one cell or several and has a number of its own.
    ServiceArea {
        /// The network.
        plmn: Plmn,
        /// The location area.
        area: u16,
        /// The service area.
        service_area: u16,
    },
    /// 2, RAI: a routing area.
    RoutingArea {
        /// The network.
        plmn: Plmn,
        /// The location area.
        area: u16,
        /// The routing area within it.
        routing_area: u8,
    },
    /// 128, TAI; 129, ECGI; 130, both; 131 to 134, a base station instead of the cell, of which
    /// only the network and the area are read.
    Lte {
        /// The network.
        plmn: Plmn,
        /// The tracking area.
        area: Option<u16>,
        /// The cell, 28 bits.
        cell: Option<u32>,
    },
    /// 135, NCGI; 136, 5GS TAI; 137, both; 138 and 139, a base station instead of the cell.
    Nr {
        /// The network.
        plmn: Plmn,
        /// The tracking area, 24 bits.
        area: Option<u32>,
        /// The cell, 36 bits.
        cell: Option<u64>,
    },
}

/// An attribute that says no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnreadableLocation {
    /// Nothing.
    #[error("a location of 0 bytes")]
    Empty,
    /// A type without a meaning here.
    #[error("a location of type {0}, allowed: 0 to 2, 128 to 139")]
    Kind(u8),
    /// Shorter than its type is.
    #[error("a location of type {kind} ends inside its {field}")]
    Short {
        /// Its type.
        kind: u8,
        /// What it ends in.
        field: &'static str,
    },
    /// Digits that are none.
    #[error("a location of type {kind} names no network: {digits:02x?}")]
    Network {
        /// Its type.
        kind: u8,
        /// The three bytes of the network.
        digits: [u8; 3],
    },
}

/// The types of TS 29.061.
mod kind {
    pub(super) const CGI: u8 = 0;
    pub(super) const SAI: u8 = 1;
    pub(super) const RAI: u8 = 2;
    pub(super) const TAI: u8 = 128;
    pub(super) const ECGI: u8 = 129;
    pub(super) const TAI_ECGI: u8 = 130;
    pub(super) const ENODEB: u8 = 131;
    pub(super) const TAI_ENODEB: u8 = 132;
    pub(super) const LONG_ENODEB: u8 = 133;
    pub(super) const TAI_LONG_ENODEB: u8 = 134;
    pub(super) const NCGI: u8 = 135;
    pub(super) const TAI_5G: u8 = 136;
    pub(super) const TAI_5G_NCGI: u8 = 137;
    pub(super) const NODE_5G: u8 = 138;
    pub(super) const TAI_5G_NODE: u8 = 139;
}

impl UserLocation {
    /// Reads the value of the attribute. What follows is ignored: later releases add to it.
    pub fn parse(value: &[u8]) -> Result<Self, UnreadableLocation> {
        let (&kind, rest) = value.split_first().ok_or(UnreadableLocation::Empty)?;
        let mut fields = Fields { kind, rest };
        match kind {
            kind::CGI | kind::SAI | kind::RAI => fields.area_of_2g_and_3g(),
            kind::TAI | kind::TAI_ENODEB | kind::TAI_LONG_ENODEB => {
                let (plmn, area) = (fields.plmn()?, fields.two("area")?);
                Ok(Self::Lte { plmn, area: Some(area), cell: None })
            }
            kind::ECGI => {
                let (plmn, cell) = fields.lte_cell()?;
                Ok(Self::Lte { plmn, area: None, cell: Some(cell) })
            }
            kind::TAI_ECGI => {
                let (_, area) = (fields.plmn()?, fields.two("area")?);
                // A shared cell may be of another network than the area: the cell's counts.
                let (plmn, cell) = fields.lte_cell()?;
                Ok(Self::Lte { plmn, area: Some(area), cell: Some(cell) })
            }
            kind::ENODEB | kind::LONG_ENODEB => {
                Ok(Self::Lte { plmn: fields.plmn()?, area: None, cell: None })
            }
            kind::NCGI => {
                let (plmn, cell) = fields.nr_cell()?;
                Ok(Self::Nr { plmn, area: None, cell: Some(cell) })
            }
            kind::TAI_5G | kind::TAI_5G_NODE => {
                let (plmn, area) = (fields.plmn()?, fields.area_of_5g()?);
                Ok(Self::Nr { plmn, area: Some(area), cell: None })
            }
            kind::TAI_5G_NCGI => {
                let (_, area) = (fields.plmn()?, fields.area_of_5g()?);
                let (plmn, cell) = fields.nr_cell()?;
                Ok(Self::Nr { plmn, area: Some(area), cell: Some(cell) })
            }
            kind::NODE_5G => Ok(Self::Nr { plmn: fields.plmn()?, area: None, cell: None }),
            other => Err(UnreadableLocation::Kind(other)),
        }
    }

    /// The value of the attribute.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = vec![0];
        let kind = match *self {
            Self::Cell { plmn, area, cell } => {
                push_plmn(&mut value, plmn);
                push_numbers(&mut value, &[(area.into(), 2), (cell.into(), 2)]);
                kind::CGI
            }
            Self::ServiceArea { plmn, area, service_area } => {
                push_plmn(&mut value, plmn);
                push_numbers(&mut value, &[(area.into(), 2), (service_area.into(), 2)]);
                kind::SAI
            }
            Self::RoutingArea { plmn, area, routing_area } => {
                push_plmn(&mut value, plmn);
                // One octet, and one that is all ones (TS 29.274 §8.21.3).
                let padded = u64::from(routing_area) << 8 | 0xff;
                push_numbers(&mut value, &[(area.into(), 2), (padded, 2)]);
                kind::RAI
            }
            Self::Lte { plmn, area, cell } => {
                let (area, cell) = (area.map(u64::from), cell.map(u64::from));
                push_area_and_cell(&mut value, plmn, (area, 2), (cell, 4));
                match (area, cell) {
                    (Some(_), Some(_)) => kind::TAI_ECGI,
                    (Some(_), None) => kind::TAI,
                    (None, _) => kind::ECGI,
                }
            }
            Self::Nr { plmn, area, cell } => {
                let padded = cell.map(|cell| cell << 4);
                push_area_and_cell(&mut value, plmn, (area.map(u64::from), 3), (padded, 5));
                match (area, cell) {
                    (Some(_), Some(_)) => kind::TAI_5G_NCGI,
                    (Some(_), None) => kind::TAI_5G,
                    (None, _) => kind::NCGI,
                }
            }
        };
        if let Some(first) = value.first_mut() {
            *first = kind;
        }
        value
    }

    /// The place in the network; `access` is the radio that the report names beside it.
    pub fn tower(&self, access: Option<RadioAccess>) -> CellTower {
        use RadioAccess::{Gsm, Hspa, Lte, LteM, NbIot, Nr, Umts};
        let of = |allowed: &[RadioAccess], usual| {
            access.filter(|access| allowed.contains(access)).unwrap_or(usual)
        };
        let (access, plmn, area, cell) = match *self {
            Self::Cell { plmn, area, cell } => {
                (of(&[Gsm, Umts, Hspa], Gsm), plmn, Some(area.into()), Some(cell.into()))
            }
            // A service area is no cell, though many networks give it the cell's number.
            Self::ServiceArea { plmn, area, service_area } => {
                (of(&[Umts, Hspa], Umts), plmn, Some(area.into()), Some(service_area.into()))
            }
            Self::RoutingArea { plmn, area, .. } => {
                (of(&[Gsm, Umts, Hspa], Gsm), plmn, Some(area.into()), None)
            }
            Self::Lte { plmn, area, cell } => {
                (of(&[Lte, NbIot, LteM], Lte), plmn, area.map(u32::from), cell.map(u64::from))
            }
            Self::Nr { plmn, area, cell } => (Nr, plmn, area, cell),
        };
        CellTower { access, plmn, area, cell }
    }
}

/// What is left of an attribute.
struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], UnreadableLocation> {
        let short = UnreadableLocation::Short { kind: self.kind, field };
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn two(&mut self, field: &'static str) -> Result<u16, UnreadableLocation> {
        self.take(field).map(u16::from_be_bytes)
    }

    fn area_of_5g(&mut self) -> Result<u32, UnreadableLocation> {
        let [high, middle, low] = self.take("area")?;
        Ok(u32::from_be_bytes([0, high, middle, low]))
    }

    /// Digits of a network, swapped in pairs (TS 24.008 §10.5.1.3); a code of two digits is filled
    /// up with ones.
    fn plmn(&mut self) -> Result<Plmn, UnreadableLocation> {
        let digits @ [first, second, third] = self.take::<3>("network")?;
        let (low, high) = (|byte: u8| u16::from(byte & 0xf), |byte: u8| u16::from(byte >> 4));
        let mcc = [low(first), high(first), low(second)];
        let mnc = [low(third), high(third), high(second)];
        let number = |digits: &[u16]| {
            let is_number = digits.iter().all(|digit| *digit < 10);
            is_number.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + digit))
        };
        let (mnc, count) = match mnc {
            [first, second, 0xf] => (number(&[first, second]), 2),
            all => (number(&all), 3),
        };
        let plmn = number(&mcc).zip(mnc).and_then(|(mcc, mnc)| Plmn::new(mcc, mnc, count));
        plmn.ok_or(UnreadableLocation::Network { kind: self.kind, digits })
    }

    fn area_of_2g_and_3g(&mut self) -> Result<UserLocation, UnreadableLocation> {
        let (plmn, area) = (self.plmn()?, self.two("area")?);
        Ok(match self.kind {
            kind::RAI => {
                let [routing_area] = self.take("routing area")?;
                UserLocation::RoutingArea { plmn, area, routing_area }
            }
            kind::SAI => {
                let service_area = self.two("service area")?;
                UserLocation::ServiceArea { plmn, area, service_area }
            }
            _ => UserLocation::Cell { plmn, area, cell: self.two("cell")? },
        })
    }

    fn lte_cell(&mut self) -> Result<(Plmn, u32), UnreadableLocation> {
        let (plmn, cell) = (self.plmn()?, u32::from_be_bytes(self.take("cell")?));
        // The highest four bits are spare.
        Ok((plmn, cell & 0x0fff_ffff))
    }

    /// 36 bits in five octets. As a string of bits they are the upper ones (TS 38.413 §9.3.1.7);
    /// some write them as a number, into the lower ones. What is no padding tells it, where the
    /// last four bits are not zero.
    fn nr_cell(&mut self) -> Result<(Plmn, u64), UnreadableLocation> {
        let plmn = self.plmn()?;
        let mut octets = [0; 8];
        octets[3..].copy_from_slice(&self.take::<5>("cell")?);
        let number = u64::from_be_bytes(octets);
        let cell = if number & 0xf == 0 { number >> 4 } else { number & 0x000f_ffff_ffff };
        Ok((plmn, cell))
    }
}

fn push_plmn(value: &mut Vec<u8>, plmn: Plmn) {
    let digits = format!("{:03}{:f<3}", plmn.mcc(), plmn.mnc_text());
    // All ones in place of a third digit.
    let digit = |digit: u8| if digit == b'f' { 0xf } else { digit - b'0' };
    let digits: Vec<u8> = digits.bytes().map(digit).collect();
    if let [mcc1, mcc2, mcc3, mnc1, mnc2, mnc3] = digits[..] {
        value.extend([mcc2 << 4 | mcc1, mnc3 << 4 | mcc3, mnc2 << 4 | mnc1]);
    }
}

/// The lowest bytes of numbers.
fn push_numbers(value: &mut Vec<u8>, numbers: &[(u64, usize)]) {
    for (number, bytes) in numbers {
        value.extend_from_slice(&number.to_be_bytes()[8 - bytes..]);
    }
}

fn push_area_and_cell(
    value: &mut Vec<u8>,
    plmn: Plmn,
    (area, area_bytes): (Option<u64>, usize),
    (cell, cell_bytes): (Option<u64>, usize),
) {
    if let Some(area) = area {
        push_plmn(value, plmn);
        push_numbers(value, &[(area, area_bytes)]);
    }
    // A network alone is a cell of number 0: there is no type for it.
    if cell.is_some() || area.is_none() {
        push_plmn(value, plmn);
        push_numbers(value, &[(cell.unwrap_or_default(), cell_bytes)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plmn(text: &str) -> Plmn {
        text.parse().unwrap()
    }

    #[test]
    fn places_come_back() {
        let (two, three) = (plmn("262-01"), plmn("310-410"));
        for location in [
            UserLocation::Cell { plmn: two, area: 1, cell: 65_535 },
            UserLocation::ServiceArea { plmn: three, area: 65_535, service_area: 2 },
            UserLocation::RoutingArea { plmn: two, area: 3, routing_area: 4 },
            UserLocation::Lte { plmn: three, area: Some(30_003), cell: Some(0x0fff_ffff) },
            UserLocation::Lte { plmn: two, area: None, cell: Some(7) },
            UserLocation::Lte { plmn: two, area: Some(7), cell: None },
            UserLocation::Nr { plmn: three, area: Some(0x00ff_ffff), cell: Some(0xf_ffff_ffff) },
            UserLocation::Nr { plmn: plmn("001-001"), area: Some(9), cell: None },
            UserLocation::Nr { plmn: two, area: None, cell: Some(1 << 35) },
        ] {
            assert_eq!(UserLocation::parse(&location.encode()), Ok(location));
        }
    }

    /// Bytes as packet cores send them.
    #[test]
    fn places_are_read() {
        let tai_ecgi = [0x82, 0x62, 0xf2, 0x10, 0x75, 0x33, 0x62, 0xf2, 0x10, 0, 0x14, 0xc3, 1];
        let read = UserLocation::parse(&tai_ecgi).unwrap();
        let tower = read.tower(Some(RadioAccess::NbIot));
        assert_eq!(tower.access, RadioAccess::NbIot);
        assert_eq!(
            (tower.plmn, tower.area, tower.cell),
            (plmn("262-01"), Some(30_003), Some(1_360_641))
        );
        let cgi = [0, 0x13, 0x00, 0x14, 0, 1, 0, 2];
        let tower = UserLocation::parse(&cgi).unwrap().tower(Some(RadioAccess::Lte));
        assert_eq!((tower.access, tower.plmn), (RadioAccess::Gsm, plmn("310-410")));
        // Four bits of padding follow the cell of NR. They were once taken for a part of it, so
        // that each cell of a packet core that follows TS 38.413 was another one.
        let ncgi = [135, 0x62, 0xf2, 0x10, 0x12, 0x34, 0x56, 0x78, 0x90];
        let tower = UserLocation::parse(&ncgi).unwrap().tower(None);
        assert_eq!((tower.access, tower.cell), (RadioAccess::Nr, Some(0x1_2345_6789)));
        let as_number = [135, 0x62, 0xf2, 0x10, 0x01, 0x23, 0x45, 0x67, 0x89];
        assert_eq!(UserLocation::parse(&as_number).unwrap().tower(None), tower);
        // A base station says the area, its own number does not matter.
        let station = [0x84, 0x62, 0xf2, 0x10, 0x75, 0x33, 0x62, 0xf2, 0x10, 0, 0x14, 0xc3];
        let tower = UserLocation::parse(&station).unwrap().tower(None);
        assert_eq!((tower.area, tower.cell), (Some(30_003), None));
    }

    #[test]
    fn what_is_no_place_is_named() {
        let refused = |value: &[u8]| UserLocation::parse(value).unwrap_err().to_string();
        assert_eq!(refused(&[]), "a location of 0 bytes");
        assert_eq!(refused(&[3]), "a location of type 3, allowed: 0 to 2, 128 to 139");
        assert_eq!(
            refused(&[129, 0x62, 0xf2, 0x10, 0]),
            "a location of type 129 ends inside its cell"
        );
        assert!(refused(&[128, 0xff, 0xff, 0xff, 0, 1]).contains("names no network"));
    }
}
