//! A SIM as the registry knows it, and what is allowed to stand in it.

use std::net::IpAddr;

use thiserror::Error;
use vocabulary::{Iccid, Imei, Imsi, Msisdn, Timestamp};

/// Longest label. Of our choosing: four times what fits a column of the portal.
pub const LABEL_CHARS_MAX: usize = 255;

/// One SIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sim {
    /// The card; also the device id of the management API.
    pub iccid: Iccid,
    /// The subscriber.
    pub imsi: Option<Imsi>,
    /// The telephone number.
    pub msisdn: Option<Msisdn>,
    /// The modem.
    pub imei: Option<Imei>,
    /// The static address by which messages of this SIM are known. No two SIMs have the same.
    pub ip: Option<IpAddr>,
    /// The customer's name for it, at most [`LABEL_CHARS_MAX`] characters.
    pub label: String,
    /// Whether it may speak (`Enabled` or `Disabled` in the management API).
    pub active: bool,
    /// When the registry first knew it.
    pub created: Timestamp,
    /// When anything of the above last changed.
    pub updated: Timestamp,
}

/// A SIM to be created: active, and without properties but these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSim {
    /// The card.
    pub iccid: Iccid,
    /// What else is known.
    pub properties: SimPatch,
}

/// Properties to set; `None` leaves a property as it is, `Some(None)` takes it away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SimPatch {
    /// The subscriber.
    pub imsi: Option<Option<Imsi>>,
    /// The telephone number.
    pub msisdn: Option<Option<Msisdn>>,
    /// The modem.
    pub imei: Option<Option<Imei>>,
    /// The static address.
    pub ip: Option<Option<IpAddr>>,
    /// The customer's name for it.
    pub label: Option<String>,
    /// Whether it may speak.
    pub active: Option<bool>,
}

/// A value that no SIM can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidSim {
    /// Too long.
    #[error("label of {chars} characters exceeds the limit of {LABEL_CHARS_MAX}")]
    LabelTooLong {
        /// Characters found.
        chars: usize,
    },
    /// A line break or the like, which would break a table or a log.
    #[error("label holds the control character {0:?}")]
    LabelCharacter(char),
    /// An address that is nobody's.
    #[error("{0} is not the address of one device")]
    Address(IpAddr),
}

/// Something that only one SIM can have. Shows the other SIM masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Conflict {
    /// The SIM exists.
    #[error("{0:?} exists already")]
    Iccid(Iccid),
    /// The address is another SIM's.
    #[error("address {ip} belongs to {owner:?}")]
    Address {
        /// The address.
        ip: IpAddr,
        /// The SIM that has it.
        owner: Iccid,
    },
}

impl SimPatch {
    /// Refuses what cannot stand in the registry and brings an IPv4 address that is written as
    /// IPv6 into its own form.
    pub(crate) fn checked(mut self) -> Result<Self, InvalidSim> {
        if let Some(Some(ip)) = &mut self.ip {
            *ip = check_address(*ip)?;
        }
        if let Some(label) = &self.label {
            check_label(label)?;
        }
        Ok(self)
    }

    /// `sim` with these properties.
    pub(crate) fn applied(&self, mut sim: Sim) -> Sim {
        sim.imsi = self.imsi.unwrap_or(sim.imsi);
        sim.msisdn = self.msisdn.unwrap_or(sim.msisdn);
        sim.imei = self.imei.unwrap_or(sim.imei);
        sim.ip = self.ip.unwrap_or(sim.ip);
        sim.active = self.active.unwrap_or(sim.active);
        if let Some(label) = &self.label {
            sim.label.clone_from(label);
        }
        sim
    }
}

impl Sim {
    /// A SIM of which nothing is known yet.
    pub(crate) fn unknown(iccid: Iccid, now: Timestamp) -> Self {
        Self {
            iccid,
            imsi: None,
            msisdn: None,
            imei: None,
            ip: None,
            label: String::new(),
            active: true,
            created: now,
            updated: now,
        }
    }
}

fn check_address(ip: IpAddr) -> Result<IpAddr, InvalidSim> {
    let ip = ip.to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || is_broadcast {
        return Err(InvalidSim::Address(ip));
    }
    Ok(ip)
}

fn check_label(label: &str) -> Result<(), InvalidSim> {
    let chars = label.chars().count();
    if chars > LABEL_CHARS_MAX {
        return Err(InvalidSim::LabelTooLong { chars });
    }
    match label.chars().find(|character| character.is_control()) {
        Some(character) => Err(InvalidSim::LabelCharacter(character)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_counted_in_characters() {
        let patch = |label: String| SimPatch { label: Some(label), ..SimPatch::default() };
        assert!(patch("ü".repeat(255)).checked().is_ok());
        let error = patch("ü".repeat(256)).checked().unwrap_err();
        assert_eq!(error.to_string(), "label of 256 characters exceeds the limit of 255");
        assert!(patch("a\nb".to_owned()).checked().is_err());
    }

    #[test]
    fn an_address_is_one_devices_and_has_one_form() {
        let patch = |ip: &str| {
            let ip = Some(Some(ip.parse().unwrap()));
            SimPatch { ip, ..SimPatch::default() }.checked()
        };
        for nobody in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
            assert!(patch(nobody).is_err(), "{nobody}");
        }
        assert_eq!(patch("::ffff:10.0.0.1"), patch("10.0.0.1"));
        assert!(patch("127.0.0.2").is_ok());
    }
}
