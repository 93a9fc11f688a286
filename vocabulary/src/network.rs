//! The mobile network: operators, radio access, cells.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::UnknownWord;

/// A mobile network: country and network code (3GPP TS 23.003 §2.2).
///
/// `Display` and JSON are `262-01`; a code of three digits stays one (`310-410`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Plmn {
    mcc: u16,
    mnc: u16,
    mnc_digits: u8,
}

/// A text that names no mobile network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no mobile network, allowed: a country code of 3 digits and a network code of 2 or 3"
)]
pub struct ParsePlmnError(String);

/// By which radio a device is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RadioAccess {
    /// GSM, also with GPRS and EDGE.
    #[serde(rename = "2G")]
    Gsm,
    /// UMTS.
    #[serde(rename = "3G")]
    Umts,
    /// UMTS with HSPA or HSPA+.
    #[serde(rename = "3.5G")]
    Hspa,
    /// LTE.
    #[serde(rename = "4G")]
    Lte,
    /// LTE for narrow bands.
    #[serde(rename = "NB-IoT")]
    NbIot,
    /// LTE for machines (category M).
    #[serde(rename = "LTE-M")]
    LteM,
    /// 5G New Radio.
    #[serde(rename = "5G")]
    Nr,
}

/// A place in a mobile network, as precisely as the network has told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CellTower {
    /// The radio.
    pub access: RadioAccess,
    /// The network.
    pub plmn: Plmn,
    /// The location area or tracking area: 16 bits, 24 in 5G.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area: Option<u32>,
    /// The cell within its network or area: 16 bits in GSM, 28 in UMTS and LTE, 36 in 5G.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<u64>,
}

impl Plmn {
    /// From numbers; `None` where one is too large or `mnc_digits` is neither 2 nor 3.
    pub const fn new(mcc: u16, mnc: u16, mnc_digits: u8) -> Option<Self> {
        let fits = match mnc_digits {
            2 => mnc <= 99,
            3 => mnc <= 999,
            _ => false,
        };
        if fits && mcc >= 1 && mcc <= 999 { Some(Self { mcc, mnc, mnc_digits }) } else { None }
    }

    /// From the texts of both codes, e.g. `262` and `01`.
    pub fn from_codes(mcc: &str, mnc: &str) -> Result<Self, ParsePlmnError> {
        let error = || ParsePlmnError(format!("{mcc}-{mnc}"));
        let is_code = |code: &str| code.bytes().all(|byte| byte.is_ascii_digit());
        if mcc.len() != 3 || !is_code(mcc) || !is_code(mnc) {
            return Err(error());
        }
        let number = |code: &str| code.parse().map_err(|_| error());
        // Longer than 255 is neither 2 nor 3.
        let digits = u8::try_from(mnc.len()).unwrap_or(u8::MAX);
        Self::new(number(mcc)?, number(mnc)?, digits).ok_or_else(error)
    }

    /// The country code, 1 to 999.
    pub const fn mcc(self) -> u16 {
        self.mcc
    }

    /// The network code, 0 to 999.
    pub const fn mnc(self) -> u16 {
        self.mnc
    }

    /// The network code with its leading zeros.
    pub fn mnc_text(self) -> String {
        format!("{:0digits$}", self.mnc, digits = usize::from(self.mnc_digits))
    }
}

impl fmt::Display for Plmn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:03}-{}", self.mcc, self.mnc_text())
    }
}

impl FromStr for Plmn {
    type Err = ParsePlmnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mcc, mnc) = text.split_once('-').ok_or_else(|| ParsePlmnError(text.to_owned()))?;
        Self::from_codes(mcc, mnc)
    }
}

impl TryFrom<String> for Plmn {
    type Error = ParsePlmnError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Plmn> for String {
    fn from(plmn: Plmn) -> Self {
        plmn.to_string()
    }
}

impl RadioAccess {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Gsm, Self::Umts, Self::Hspa, Self::Lte, Self::NbIot, Self::LteM, Self::Nr];

    /// The name in the management API, `radioAccessType`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gsm => "2G",
            Self::Umts => "3G",
            Self::Hspa => "3.5G",
            Self::Lte => "4G",
            Self::NbIot => "NB-IoT",
            Self::LteM => "LTE-M",
            Self::Nr => "5G",
        }
    }
}

impl fmt::Display for RadioAccess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for RadioAccess {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|access| access.as_str().eq_ignore_ascii_case(text));
        named.ok_or_else(|| UnknownWord::new(text, "2G, 3G, 3.5G, 4G, NB-IoT, LTE-M, 5G"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_keep_the_digits_of_their_code() {
        for text in ["262-01", "310-410", "310-004", "001-01"] {
            assert_eq!(text.parse::<Plmn>().unwrap().to_string(), text);
        }
        assert_ne!("310-04".parse::<Plmn>(), "310-004".parse());
        for text in ["262", "26-01", "262-1", "262-0001", "262-", "+62-01", "262-+1", "000-01"] {
            assert!(text.parse::<Plmn>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_tower_is_json_without_what_is_not_known() {
        let mut tower = CellTower {
            access: RadioAccess::NbIot,
            plmn: "262-01".parse().unwrap(),
            area: Some(38_701),
            cell: Some(5_559),
        };
        let json = r#"{"access":"NB-IoT","plmn":"262-01","area":38701,"cell":5559}"#;
        assert_eq!(serde_json::to_string(&tower).unwrap(), json);
        assert_eq!(serde_json::from_str::<CellTower>(json).unwrap(), tower);
        tower.cell = None;
        tower.area = None;
        let json = r#"{"access":"NB-IoT","plmn":"262-01"}"#;
        assert_eq!(serde_json::to_string(&tower).unwrap(), json);
    }

    #[test]
    fn radio_is_read_in_any_case() {
        assert_eq!("nb-iot".parse(), Ok(RadioAccess::NbIot));
        assert!("6G".parse::<RadioAccess>().is_err());
    }
}
