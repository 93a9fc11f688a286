//! What a run over DTLS is to do beyond other runs: keys, sessions, addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddrV4;
use std::path::Path;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use dtls::{Psk, PskError, Suite};
use zeroize::Zeroizing;

/// Sendings of one request without an answer after which a device takes its session for dead: one
/// loss is common, two in a row are rare, and a person does not want to wait for five.
const RECONNECT_AFTER: u32 = 2;

/// Settings of CoAP over DTLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// Where the devices have their keys from.
    pub keys: KeySource,
    /// The one cipher suite offered; `None` offers all, CCM_8 first.
    pub suite: Option<SuiteName>,
    /// Whether an empty connection ID (RFC 9146) is offered, which asks for one of the server's.
    pub connection_id: bool,
    /// After so many answers a device ends its session with close_notify, and its next request
    /// makes a new one. 0: handshakes only, each ended with close_notify. `None`: sessions are
    /// opened before the run and stay.
    pub requests_per_session: Option<u64>,
    /// Whether a new handshake offers the session of before, to be abbreviated.
    pub resume: bool,
    /// After so many answers the source address of a device changes; `None` is never.
    pub nat_after: Option<u64>,
    /// Sendings of one request without an answer after which a device makes a new handshake.
    pub reconnect_after: u32,
}

/// Where the devices have their keys from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Each asks `GET /bootstrap` there by CoAP, from its own address; `None` is port 5683 of the
    /// target's address.
    Bootstrap(Option<SocketAddrV4>),
    /// All have this key; their identities are the ICCIDs of their SIMs.
    Shared(SharedKey),
    /// Each has its own; one that is not in the table has none and takes no part.
    Table(KeyTable),
}

/// Keys by identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyTable(BTreeMap<String, SharedKey>);

/// A key as text, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey(Zeroizing<String>);

/// A cipher suite as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SuiteName {
    /// TLS_PSK_WITH_AES_128_CCM_8
    #[value(name = "ccm-8")]
    Ccm8,
    /// TLS_PSK_WITH_AES_128_CCM
    Ccm,
    /// TLS_PSK_WITH_AES_128_GCM_SHA256
    Gcm,
    /// TLS_PSK_WITH_AES_128_CBC_SHA256
    Cbc,
}

/// The part of the command line that is about DTLS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys, sessions and bootstrap (--protocol coaps, lwm2m, lwm2ms)")]
pub struct SecurityArguments {
    /// coaps: where each device asks GET /bootstrap by plain CoAP for its identity and key, before
    /// the run and from its own address [default: port 5683 of the target's address]. LwM2M: the
    /// devices begin at this bootstrap server [default of the address: the target; without the
    /// option the devices register at the target]
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1)]
    pub bootstrap: Option<Option<SocketAddrV4>>,
    /// The same key for all devices, 1 to 256 bytes; the identity is the ICCID of the device's SIM
    /// (see --write-sims). lwm2ms: for the bootstrap server, or for the target without bootstrap
    #[arg(long, value_name = "TEXT")]
    pub psk: Option<SharedKey>,
    /// A file with a line ICCID,KEY for each device, instead of --psk
    #[arg(long, value_name = "FILE", value_parser = KeyTable::read, conflicts_with = "psk")]
    pub psk_table: Option<KeyTable>,
    /// The one cipher suite to offer [default: all four, ccm-8 first]
    #[arg(long, value_enum)]
    pub suite: Option<SuiteName>,
    /// Offer a connection ID (RFC 9146)
    #[arg(long)]
    pub cid: bool,
    /// Requests answered before a device says close_notify; its next request makes a new handshake
    /// first, which its latency includes. 0: no requests, only handshakes: --count, --rate and
    /// --outstanding count handshakes, and each is ended with close_notify [default: sessions are
    /// opened before the run and stay open]
    #[arg(long, value_name = "N")]
    pub requests_per_session: Option<u64>,
    /// Offer the last session in new handshakes, to be abbreviated
    #[arg(long)]
    pub resume: bool,
    /// Answers after which a device's source address changes, as behind a NAT that forgot it: to
    /// addresses above the fleet's, back to its own every fourth time [default: never]. LwM2M in
    /// queue mode: so many wakes instead; without DTLS the port changes, not the address
    #[arg(long, value_name = "N")]
    pub nat: Option<u64>,
    /// Transmissions of one request without an answer (see RFC 7252 §4.2 for their times) after
    /// which a device makes a new handshake
    #[arg(long, value_name = "N", default_value_t = RECONNECT_AFTER)]
    pub reconnect_after: u32,
}

impl SecurityArguments {
    /// The settings that the arguments make.
    pub fn security(&self) -> Security {
        let keys = match (&self.psk, &self.psk_table) {
            (Some(key), _) => KeySource::Shared(key.clone()),
            (None, Some(table)) => KeySource::Table(table.clone()),
            (None, None) => KeySource::Bootstrap(self.bootstrap.flatten()),
        };
        Security {
            keys,
            suite: self.suite,
            connection_id: self.cid,
            requests_per_session: self.requests_per_session,
            resume: self.resume,
            nat_after: self.nat,
            reconnect_after: self.reconnect_after,
        }
    }
}

impl KeyTable {
    /// Reads a file with a line `identity,key` for each device.
    ///
    /// # Errors
    /// What is wrong with the file, in words.
    pub fn read(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(Path::new(path)).map_err(|error| error.to_string())?;
        Zeroizing::new(text).parse()
    }

    /// The key of an identity.
    pub(crate) fn key(&self, identity: &str) -> Option<&SharedKey> {
        self.0.get(identity)
    }
}

impl FromStr for KeyTable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut keys = BTreeMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            // The line is not shown: it may hold a key.
            let wrong = |what: &str| format!("line {}: {what}", index + 1);
            let (identity, key) =
                line.split_once(',').ok_or_else(|| wrong("allowed: ICCID,KEY"))?;
            let key = key.parse().map_err(|error: PskError| wrong(&error.to_string()))?;
            keys.insert(identity.to_owned(), key);
        }
        Ok(Self(keys))
    }
}

impl Default for Security {
    /// Keys by bootstrap from the target, all suites, sessions that stay.
    fn default() -> Self {
        Self {
            keys: KeySource::Bootstrap(None),
            suite: None,
            connection_id: false,
            requests_per_session: None,
            resume: false,
            nat_after: None,
            reconnect_after: RECONNECT_AFTER,
        }
    }
}

impl Security {
    /// The cipher suites to offer, the preferred first.
    pub(crate) fn suites(&self) -> Vec<Suite> {
        let all = [SuiteName::Ccm8, SuiteName::Ccm, SuiteName::Gcm, SuiteName::Cbc];
        let chosen = |name: &SuiteName| self.suite.is_none_or(|only| only == *name);
        all.into_iter().filter(chosen).map(SuiteName::suite).collect()
    }
}

impl SuiteName {
    const fn suite(self) -> Suite {
        match self {
            Self::Ccm8 => Suite::Aes128Ccm8,
            Self::Ccm => Suite::Aes128Ccm,
            Self::Gcm => Suite::Aes128GcmSha256,
            Self::Cbc => Suite::Aes128CbcSha256,
        }
    }
}

impl SharedKey {
    /// The key in the form that a session wants.
    pub(crate) fn psk(&self) -> Result<Psk, PskError> {
        Psk::new(self.0.as_bytes().to_vec())
    }
}

impl FromStr for SharedKey {
    type Err = PskError;

    fn from_str(text: &str) -> Result<Self, PskError> {
        let key = Self(Zeroizing::new(text.to_owned()));
        key.psk().map(|_| key)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_the_line_that_is_wrong_and_never_shows_a_key() {
        let table: KeyTable = "8988,secret-one\n\n8989,secret-two\n".parse().unwrap();
        assert_eq!(table.key("8989"), Some(&"secret-two".parse().unwrap()));
        assert_eq!(table.key("8990"), None);
        assert!(!format!("{table:?}").contains("secret"));
        let error = "8988,secret-one\nsecret".parse::<KeyTable>().unwrap_err();
        assert_eq!(error, "line 2: allowed: ICCID,KEY");
        assert!("8988,".parse::<KeyTable>().unwrap_err().starts_with("line 1: "));
    }

    #[test]
    fn one_suite_or_all_are_offered() {
        let all = Security::default().suites();
        assert_eq!((all.len(), all[0]), (4, Suite::Aes128Ccm8));
        let one = Security { suite: Some(SuiteName::Cbc), ..Security::default() };
        assert_eq!(one.suites(), [Suite::Aes128CbcSha256]);
        assert_eq!(SuiteName::from_str("ccm-8", false), Ok(SuiteName::Ccm8));
    }

    #[test]
    fn a_key_has_a_length_and_is_never_shown() {
        let key: SharedKey = "0123456789abcdef".parse().unwrap();
        assert_eq!(format!("{key:?}"), "SharedKey(..)");
        assert!("".parse::<SharedKey>().is_err());
        assert!("k".repeat(257).parse::<SharedKey>().is_err());
    }
}
