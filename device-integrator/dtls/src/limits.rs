//! What an engine may use, and how it behaves.

use std::time::Duration;

/// A cipher suite with a pre-shared key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// `TLS_PSK_WITH_AES_128_CCM_8` (RFC 6655): what RFC 7252 §9.1.3.1 asks for.
    Aes128Ccm8,
    /// `TLS_PSK_WITH_AES_128_CCM` (RFC 6655).
    Aes128Ccm,
    /// `TLS_PSK_WITH_AES_128_GCM_SHA256` (RFC 5487).
    Aes128GcmSha256,
    /// `TLS_PSK_WITH_AES_128_CBC_SHA256` (RFC 5487): all that one widespread client offers.
    Aes128CbcSha256,
}

impl Suite {
    /// The number in the registry of TLS.
    pub fn number(self) -> u16 {
        match self {
            Self::Aes128Ccm8 => 0xC0A8,
            Self::Aes128Ccm => 0xC0A4,
            Self::Aes128GcmSha256 => 0x00A8,
            Self::Aes128CbcSha256 => 0x00AE,
        }
    }
}

/// What happens to records of a session that we do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownRecords {
    /// Nothing: a spoofed address gets no answer of ours. The default.
    #[default]
    Silence,
    /// An unprotected fatal alert, never longer than the record: a device that believes it begins
    /// a new handshake at once instead of after its time-out.
    Alert,
}

/// Limits on everything that a peer or the owner can grow. Hitting one is counted.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions, the longest idle leave first. Default 200,000.
    pub sessions_max: usize,
    /// Of these, sessions that are not asleep, the longest idle fall asleep first. Default 20,000:
    /// about 7 KiB each.
    pub awake_max: usize,
    /// Of these again, sessions that have not spoken often yet. Default 2,048: a device with one
    /// message to tell has told it before 2,048 others came.
    pub fresh_max: usize,
    /// How long a session idles before it falls asleep. Default 60 s.
    pub sleep_after: Duration,
    /// How long a session idles before it is forgotten. Default 30 days: a meter that reports
    /// once a month keeps its session.
    pub idle_max: Duration,
    /// Sessions of one identity, at least 1, the oldest leave first. Default 4: a device that lost
    /// its session leaves one behind.
    pub sessions_per_identity_max: usize,
    /// Unfinished handshakes after a valid cookie, the oldest leave first. Default 2,048: about
    /// 10 KiB each.
    pub half_open_max: usize,
    /// The same for one network, a /24 or a /48, so that one of them cannot evict all others.
    /// Default 512: a whole /24 may come back at once, twice over.
    pub half_open_per_network_max: usize,
    /// How long a handshake may take after its cookie. Default 10 s.
    pub handshake: Duration,
    /// Handshakes begun per second, the rest gets no answer and tries again. A network, a /24 or a
    /// /48, has a quarter of it for itself, and more while others leave some. Default 12,000:
    /// about an eighth of one core, apart from the socket.
    pub handshakes_per_second: u32,
    /// Handshakes begun at once after a pause. Default 2,048, as many as may be half open.
    pub handshakes_burst: u32,
    /// Sleeping sessions unfolded per second for records from the network, authentic or not; and a
    /// quarter of it again for sessions that a record woke in vain within the last minute, so that
    /// forgeries do not use up the wakes of others. Default 20,000: about a tenth of one core.
    pub wakes_per_second: u32,
    /// Sessions remembered for abbreviated handshakes, of one identity at most four. Default
    /// 100,000: about 350 bytes each.
    pub resumptions_max: usize,
    /// How long. Default 24 h.
    pub resumption_lifetime: Duration,
    /// Bytes of a ClientHello, at most. Default 1,024: clients with pre-shared keys send 70 to 300.
    pub hello_bytes_max: usize,
    /// Events and datagrams not yet polled. Default 65,536: the owner polls after each input.
    pub outputs_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 200_000,
            awake_max: 20_000,
            fresh_max: 2048,
            sleep_after: Duration::from_secs(60),
            idle_max: Duration::from_secs(30 * 24 * 3600),
            sessions_per_identity_max: 4,
            half_open_max: 2048,
            half_open_per_network_max: 512,
            handshake: Duration::from_secs(10),
            handshakes_per_second: 12_000,
            handshakes_burst: 2048,
            wakes_per_second: 20_000,
            resumptions_max: 100_000,
            resumption_lifetime: Duration::from_secs(24 * 3600),
            hello_bytes_max: 1024,
            outputs_max: 65_536,
        }
    }
}

/// How an engine behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Cipher suites, the preferred first. Default: all, the short tag of CCM_8 first.
    pub suites: Vec<Suite>,
    /// Whether a connection ID is given to clients that ask for one. Default: yes.
    pub connection_ids: bool,
    /// The first byte of each [`SessionId`](crate::SessionId), and so of each connection ID: which
    /// of several engines behind one port has the session. Byte 11 of a record with one.
    pub shard: u8,
    /// What happens to records of unknown sessions. Default: nothing.
    pub unknown_records: UnknownRecords,
    /// Whether sessions are tracked for [`Engine::changes`](crate::Engine::changes). Default: no.
    pub persistent: bool,
    /// The number of this start of the program. The owner must count it up durably **before** the
    /// engine takes its first datagram.
    ///
    /// Why: the nonce of a CCM or GCM record is its sequence number, and a nonce that is used
    /// twice breaks both records. A session that was saved in generation g and is imported in
    /// generation h goes on (h - g) * 2 * [`SEQUENCE_JUMP`](crate::SEQUENCE_JUMP) records later
    /// than it was saved, beyond whatever was sent after it was saved; and a session never sends
    /// more than that many records without being saved again
    /// ([`SendError::Unsaved`](crate::SendError::Unsaved)). Default 0.
    pub generation: u32,
    /// First interval between repetitions of a flight; it doubles up to four times this. Default
    /// 2 s: a round trip over NB-IoT takes 1 to 3 s.
    pub retransmit: Duration,
    /// Limits.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suites: vec![
                Suite::Aes128Ccm8,
                Suite::Aes128Ccm,
                Suite::Aes128GcmSha256,
                Suite::Aes128CbcSha256,
            ],
            connection_ids: true,
            shard: 0,
            unknown_records: UnknownRecords::Silence,
            persistent: false,
            generation: 0,
            retransmit: Duration::from_secs(2),
            limits: Limits::default(),
        }
    }
}
