//! What an endpoint may use, and how it times its messages.

use std::time::Duration;

use crate::wire::OptionNumber;

/// Transmission parameters (RFC 7252 §4.8).
#[derive(Debug, Clone)]
pub struct Transmission {
    /// `ACK_TIMEOUT`: the least wait for an acknowledgement. Default 2 s.
    pub ack_timeout: Duration,
    /// `ACK_RANDOM_FACTOR`, in percent: the first wait is between 100 % and this. Default 150.
    pub ack_random_factor_percent: u32,
    /// `MAX_RETRANSMIT`. Default 4.
    pub max_retransmit: u8,
    /// `EXCHANGE_LIFETIME`: how long a confirmable message may still be repeated. Default 247 s.
    pub exchange_lifetime: Duration,
    /// `NON_LIFETIME`: the same for a non-confirmable message. Default 145 s.
    pub non_lifetime: Duration,
}

impl Default for Transmission {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(2),
            ack_random_factor_percent: 150,
            max_retransmit: 4,
            exchange_lifetime: Duration::from_secs(247),
            non_lifetime: Duration::from_secs(145),
        }
    }
}

/// Limits on everything that a peer or the owner can grow. Hitting one is counted.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Exchanges remembered against duplicates, the oldest leave first. Default 1,000,000: 4,000
    /// messages per second for the exchange lifetime. Measured: 49 bytes each, and 61 more for
    /// each peer that has any.
    pub exchanges_max: u32,
    /// The same for one peer. Default 4,096: ten messages per second, the usual allowance of a
    /// device, for the exchange lifetime are 2,470.
    pub exchanges_per_peer_max: u32,
    /// Bytes of remembered answers that hold more than a code. Default 64 MiB.
    pub answer_bytes_max: usize,
    /// Body of a block-wise upload, in bytes. Default 65,536.
    pub upload_bytes_max: usize,
    /// Bytes of all unfinished uploads, the longest idle leave first. Default 64 MiB.
    pub uploads_bytes_max: usize,
    /// How long an upload may idle. Default 60 s.
    pub upload_idle: Duration,
    /// Bodies kept for block-wise downloads. Default 10,000, one per peer.
    pub downloads_max: usize,
    /// Bytes of those bodies. Default 64 MiB.
    pub downloads_bytes_max: usize,
    /// How long such a body is kept after its last block was asked for. Default 60 s.
    pub download_idle: Duration,
    /// Size exponent of the largest block sent or asked for, 0 to 6. Default 6: 1,024 bytes.
    pub block_size_exponent: u8,
    /// Observations by peers. Default 100,000.
    pub observations_max: usize,
    /// The same for one peer. Default 16.
    pub observations_per_peer_max: usize,
    /// Our confirmable messages that wait for an acknowledgement. Default 100,000.
    pub confirmables_max: usize,
    /// Our requests under way or waiting, and our observations. Default 1,100,000: one
    /// observation for each of a million devices, and commands.
    pub requests_max: usize,
    /// Our requests to one peer that wait for their turn (`NSTART` is 1). Default 16.
    pub waiting_per_peer_max: usize,
    /// Body of a response collected from blocks, in bytes. Default 65,536.
    pub response_bytes_max: usize,
    /// Events and datagrams not yet polled. Default 65,536: the owner polls after each input.
    pub outputs_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            exchanges_max: 1_000_000,
            exchanges_per_peer_max: 4_096,
            answer_bytes_max: 64 << 20,
            upload_bytes_max: 64 << 10,
            uploads_bytes_max: 64 << 20,
            upload_idle: Duration::from_secs(60),
            downloads_max: 10_000,
            downloads_bytes_max: 64 << 20,
            download_idle: Duration::from_secs(60),
            block_size_exponent: 6,
            observations_max: 100_000,
            observations_per_peer_max: 16,
            confirmables_max: 100_000,
            requests_max: 1_100_000,
            waiting_per_peer_max: 16,
            response_bytes_max: 64 << 10,
            outputs_max: 65_536,
        }
    }
}

/// How an endpoint behaves.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Timing.
    pub transmission: Transmission,
    /// Limits.
    pub limits: Limits,
    /// Critical options that the owner honours itself, beside those that the endpoint knows:
    /// without an entry, If-Match for example is answered with 4.02. Default: none.
    pub understood: Vec<OptionNumber>,
    /// Whether the owner forwards requests with Proxy-Uri or Proxy-Scheme; without it they are
    /// answered with 5.05 (RFC 7252 §5.7.2). Default: no.
    pub forwards: bool,
    /// Whether the owner keeps the observations that it began, so that they outlive a restart and
    /// a new address of the peer. The first response then completes the request, and notifications
    /// come as [`crate::Event::Notification`]. Default: no, the endpoint keeps them.
    pub owner_keeps_observations: bool,
}
