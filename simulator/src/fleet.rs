//! The simulated devices: which loopback address each one sends from, and the SIM in it.
//!
//! Linux treats the whole of 127.0.0.0/8 as its own, so a datagram may carry any of its addresses
//! as source without an interface being configured. Device `i` has the address `base + i`.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use thiserror::Error;
use vocabulary::{Iccid, Imsi};

/// The address of device 0 where nothing else is said: far from 127.0.0.1, where servers listen.
pub const BASE: Ipv4Addr = Ipv4Addr::new(127, 16, 0, 1);

/// Addresses above the fleet's that garbage comes from; enough to spread over a server's tables.
pub const GARBAGE_ADDRESSES: u32 = 256;

/// Addresses that a device has in turn behind a NAT, besides its own: enough that the address of
/// one session is not soon that of another.
const NAT_ADDRESSES: u32 = 3;

/// The last address that may be used: 127.255.255.255 is a broadcast address.
const LAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 254);

/// ICCIDs of simulated SIMs start here: 89 for telecommunications, 882 for a global network.
const ICCID_BASE: u64 = 8_988_299_000_000_000_000;
/// Mobile country code 999 is for internal use (ITU-T E.212 annex A), so no real SIM is meant.
const IMSI_BASE: u64 = 999_700_000_000_000;
/// Country code 882 belongs to global networks (ITU-T E.164.1), 99 to none of them.
const MSISDN_BASE: u64 = 882_990_000_000_000;
/// Type allocation codes that begin with 00 are for tests (GSMA TS.06).
const IMEI_BASE: u64 = 101_700_000_000;

/// A number of devices with consecutive addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fleet {
    base: Ipv4Addr,
    devices: u32,
}

/// Why a fleet cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FleetError {
    /// No device.
    #[error("a fleet of 0 devices sends nothing, allowed: 1 and more")]
    Empty,
    /// Not a loopback address.
    #[error("base address {0} is not a loopback address, allowed: 127.0.0.0 to {LAST}")]
    NotLoopback(Ipv4Addr),
    /// The addresses do not fit.
    #[error(
        "{devices} devices from {base} on, and {GARBAGE_ADDRESSES} addresses above them, \
         go beyond {LAST}"
    )]
    TooMany {
        /// The address of device 0.
        base: Ipv4Addr,
        /// Devices asked for.
        devices: u32,
    },
    /// The addresses behind a NAT do not fit.
    #[error(
        "{devices} devices from {base} on, with {NAT_ADDRESSES} more addresses for each, \
         go beyond {LAST}"
    )]
    TooManyBehindNat {
        /// The address of device 0.
        base: Ipv4Addr,
        /// Devices asked for.
        devices: u32,
    },
}

impl Fleet {
    /// A fleet of `devices` devices, device 0 at `base`.
    ///
    /// # Errors
    /// Where an address of the fleet would not be a loopback address.
    pub fn new(base: Ipv4Addr, devices: u32) -> Result<Self, FleetError> {
        if devices == 0 {
            return Err(FleetError::Empty);
        }
        if !base.is_loopback() {
            return Err(FleetError::NotLoopback(base));
        }
        let last = u64::from(u32::from(base)) + u64::from(devices) + u64::from(GARBAGE_ADDRESSES);
        if last > u64::from(u32::from(LAST)) {
            return Err(FleetError::TooMany { base, devices });
        }
        Ok(Self { base, devices })
    }

    /// How many devices.
    pub const fn devices(&self) -> u32 {
        self.devices
    }

    /// The address of device `index`. Indices from [`Fleet::devices`] on are strangers' addresses,
    /// of which [`GARBAGE_ADDRESSES`] exist.
    pub fn address(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).saturating_add(index))
    }

    /// The device at `address`; `None` where it is not of this fleet.
    pub fn index(&self, address: Ipv4Addr) -> Option<u32> {
        let index = u32::from(address).checked_sub(u32::from(self.base))?;
        (index < self.devices).then_some(index)
    }

    /// The address of device `index` after so many changes of address by a NAT; 0 is its own. The
    /// others lie above those of strangers.
    pub(crate) fn nat_address(&self, index: u32, changes: u32) -> Ipv4Addr {
        match changes % (NAT_ADDRESSES + 1) {
            0 => self.address(index),
            turn => {
                let block =
                    self.nat_start().saturating_add((turn - 1).saturating_mul(self.devices));
                Ipv4Addr::from(block.saturating_add(index))
            }
        }
    }

    /// The device that has `address`, now or at another time.
    pub(crate) fn owner(&self, address: Ipv4Addr) -> Option<u32> {
        self.index(address).or_else(|| {
            let offset = u32::from(address).checked_sub(self.nat_start())?;
            (offset / self.devices < NAT_ADDRESSES).then_some(offset % self.devices)
        })
    }

    /// Whether the addresses behind a NAT exist.
    pub(crate) fn check_nat(&self) -> Result<(), FleetError> {
        let Self { base, devices } = *self;
        let last = u64::from(u32::from(base))
            + u64::from(GARBAGE_ADDRESSES)
            + u64::from(devices) * u64::from(NAT_ADDRESSES + 1);
        if last > u64::from(u32::from(LAST)) {
            return Err(FleetError::TooManyBehindNat { base, devices });
        }
        Ok(())
    }

    fn nat_start(&self) -> u32 {
        let strangers = u32::from(self.base).saturating_add(self.devices);
        strangers.saturating_add(GARBAGE_ADDRESSES)
    }

    /// The SIM card of device `index`: the device id of the management API.
    pub fn iccid(&self, index: u32) -> Option<Iccid> {
        Iccid::from_u64(ICCID_BASE + u64::from(index))
    }

    /// The subscriber of device `index`.
    pub fn imsi(&self, index: u32) -> Option<Imsi> {
        Imsi::from_u64(IMSI_BASE + u64::from(index))
    }

    /// Writes the SIMs of the fleet as `simgate sims import` reads them: a line of column names,
    /// then one line for each device.
    ///
    /// # Errors
    /// What `output` answers.
    pub fn write_csv(&self, mut output: impl Write) -> io::Result<()> {
        output.write_all(b"iccid,imsi,msisdn,imei,ip,label\n")?;
        for index in 0..self.devices {
            let offset = u64::from(index);
            writeln!(
                output,
                "{iccid},{imsi},{msisdn},{imei},{ip},Simulated device {label}",
                iccid = ICCID_BASE + offset,
                imsi = IMSI_BASE + offset,
                msisdn = MSISDN_BASE + offset,
                imei = imei(offset),
                ip = self.address(index),
                label = offset + 1,
            )?;
        }
        output.flush()
    }
}

/// The CSV of [`Fleet::write_csv`] for `devices` devices from [`BASE`] on.
///
/// # Errors
/// Where so many devices have no addresses.
pub fn fleet_csv(devices: u32) -> Result<String, FleetError> {
    let mut csv = Vec::new();
    // Writing into memory does not fail, and all columns are ASCII.
    let _ = Fleet::new(BASE, devices)?.write_csv(&mut csv);
    Ok(String::from_utf8_lossy(&csv).into_owned())
}

/// An IMEI with its check digit. Leading zeros do not change a Luhn digit, so the check digit of a
/// SIM card with the same number is the one.
fn imei(offset: u64) -> String {
    let number = IMEI_BASE + offset;
    let with_check = Iccid::from_u64(number).map(Iccid::with_luhn).unwrap_or_default();
    let check = with_check.chars().next_back().unwrap_or('0');
    format!("{number:014}{check}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vocabulary::{Imei, Msisdn};

    #[test]
    fn addresses_and_indices_are_each_others_inverse() {
        let fleet = Fleet::new(BASE, 70_000).unwrap();
        for index in [0, 1, 254, 255, 65_536, 69_999] {
            assert_eq!(fleet.index(fleet.address(index)), Some(index));
        }
        assert_eq!(fleet.address(255), Ipv4Addr::new(127, 16, 1, 0));
        assert_eq!(fleet.index(fleet.address(70_000)), None);
        assert_eq!(fleet.index(Ipv4Addr::LOCALHOST), None);
    }

    #[test]
    fn addresses_behind_a_nat_have_one_owner_each() {
        let fleet = Fleet::new(BASE, 300).unwrap();
        let mut seen = std::collections::HashSet::new();
        for (index, changes) in (0..300).flat_map(|index| (0..4).map(move |turn| (index, turn))) {
            let address = fleet.nat_address(index, changes);
            assert!(seen.insert(address), "{address} twice");
            assert_eq!(fleet.owner(address), Some(index));
        }
        assert_eq!(fleet.nat_address(7, 4), fleet.address(7));
        assert_eq!(fleet.owner(fleet.address(300)), None);
        assert_eq!(fleet.check_nat(), Ok(()));
        let error = Fleet::new(BASE, 5_000_000).unwrap().check_nat().unwrap_err();
        assert!(error.to_string().contains("3 more addresses for each"), "{error}");
    }

    #[test]
    fn a_fleet_that_leaves_loopback_is_refused() {
        assert_eq!(Fleet::new(BASE, 0), Err(FleetError::Empty));
        assert!(matches!(
            Fleet::new(Ipv4Addr::new(10, 0, 0, 1), 1),
            Err(FleetError::NotLoopback(_))
        ));
        let error = Fleet::new(BASE, u32::MAX).unwrap_err();
        assert!(error.to_string().contains("go beyond 127.255.255.254"), "{error}");
    }

    #[test]
    fn each_column_of_the_csv_is_valid_and_unique() {
        let csv = fleet_csv(2_000).unwrap();
        let mut lines = csv.lines();
        assert_eq!(lines.next(), Some("iccid,imsi,msisdn,imei,ip,label"));
        let fleet = Fleet::new(BASE, 2_000).unwrap();
        let mut seen = std::collections::HashSet::new();
        for (index, line) in lines.enumerate() {
            let columns: Vec<&str> = line.split(',').collect();
            assert_eq!(columns.len(), 6);
            let iccid: Iccid = columns[0].parse().unwrap();
            columns[1].parse::<Imsi>().unwrap();
            columns[2].parse::<Msisdn>().unwrap();
            columns[3].parse::<Imei>().unwrap();
            assert_eq!(columns[3].len(), 15);
            let index = u32::try_from(index).unwrap();
            assert_eq!(columns[4], fleet.address(index).to_string());
            assert_eq!(fleet.iccid(index), Some(iccid));
            for column in &columns {
                assert!(seen.insert((*column).to_owned()), "{column} twice");
            }
        }
        assert_eq!(seen.len(), 2_000 * 6);
    }
}
