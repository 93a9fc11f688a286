//! The part of the command line that is about LwM2M.

use std::net::SocketAddrV4;
use std::time::Duration;

use clap::Args;
use lwm2m::Path;

use crate::arguments::parse_duration;
use crate::lwm2m::settings::{Format, Lwm2m, Traffic, Version};
use crate::plan::Load;

/// Settings of LwM2M.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "LwM2M (--protocol lwm2m, lwm2ms)")]
pub struct Lwm2mArguments {
    /// Version of the protocol
    #[arg(long, value_enum, default_value_t = Version::V1_1)]
    pub lwm2m_version: Version,
    /// Format of values where the server names none, of what is sent with --send, and preferred in
    /// the bootstrap [default: senml-cbor, with version 1.0 tlv]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Lifetime of a registration in seconds [default: what the bootstrap server writes, or 86400]
    #[arg(long, value_name = "SECONDS")]
    pub lifetime: Option<u32>,
    /// How often a registration is updated [default: after three quarters of the lifetime]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub update_every: Option<Duration>,
    /// De-register at the end
    #[arg(long)]
    pub deregister: bool,
    /// Registrations per second before the traffic [default: 64 at a time]
    #[arg(long, value_name = "RATE")]
    pub register_rate: Option<u64>,
    /// End once each device has registered: --rate and --outstanding are those of registrations,
    /// and the figures of the run theirs
    #[arg(long, group = "traffic")]
    pub register_only: bool,
    /// No traffic: stay registered, answer and update for so long after the last registration. As
    /// with all traffic, a line "N of N devices are registered" on the standard error output says
    /// when that was
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, group = "traffic")]
    pub hold: Option<Duration>,
    /// As traffic: Send (POST /dp) with /3303/0/5700 [default: notifications to whoever observes
    /// /3303/0/5700; the value is the number of the message]
    #[arg(long, group = "traffic")]
    pub send: bool,
    /// As traffic: updates of registrations
    #[arg(long, group = "traffic")]
    pub updates: bool,
    /// With --send: paths sent besides
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "send")]
    pub send_path: Vec<Path>,
    /// Notifications are non-confirmable: nobody knows whether they arrive, and only --rate and the
    /// minimum periods hold them back
    #[arg(long)]
    pub non: bool,
    /// Notify as often as the traffic wants, whatever the minimum period of the observation
    #[arg(long)]
    pub ignore_pmin: bool,
    /// How often /3303/0/5700 changes by itself, besides the traffic [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub change_every: Option<Duration>,
    /// Queue mode: asleep, deaf to everything, when so long has passed since the last message
    /// [default of the duration: 93s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, num_args = 0..=1,
        require_equals = true, default_missing_value = "93s")]
    pub queue: Option<Duration>,
    /// Of a thousand datagrams in either direction so many are lost
    #[arg(long, value_name = "PER_MILLE", default_value_t = 0)]
    pub loss: usize,
    /// Answer requests of the server so much later, after an empty acknowledgement
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub late: Option<Duration>,
    /// Leave every request of the server unanswered, but for those of a bootstrap
    #[arg(long)]
    pub mute: bool,
    /// Bootstrap and register under a name that is not the ICCID
    #[arg(long)]
    pub wrong_endpoint: bool,
    /// Digest of the only firmware package that is taken; another one fails with result 5
    #[arg(long, value_name = "HEX", value_parser = parse_digest)]
    pub firmware_sha256: Option<Digest>,
    /// Version after a firmware update [default: what a package says that begins with the line
    /// version=TEXT, otherwise the first bytes of its SHA-256]
    #[arg(long, value_name = "TEXT")]
    pub firmware_version: Option<String>,
    /// How long a firmware update takes
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "500ms")]
    pub firmware_takes: Duration,
}

/// A SHA-256.
type Digest = [u8; 32];

impl Lwm2mArguments {
    /// The settings that the arguments make.
    pub fn lwm2m(&self, bootstrap: Option<SocketAddrV4>) -> Lwm2m {
        let defaults = Lwm2m::default();
        let traffic = match self.hold {
            Some(duration) => Traffic::Hold(duration),
            None if self.register_only => Traffic::Nothing,
            None if self.send => Traffic::Sends,
            None if self.updates => Traffic::Updates,
            None => Traffic::Notifications,
        };
        Lwm2m {
            bootstrap,
            version: self.lwm2m_version,
            format: self.format,
            lifetime_seconds: self.lifetime,
            update_every: self.update_every,
            deregister: self.deregister,
            registering: self.register_rate.map_or(defaults.registering, Load::PerSecond),
            traffic,
            confirmable_notifications: !self.non,
            respects_pmin: !self.ignore_pmin,
            change_every: self.change_every,
            send_paths: self.send_path.clone(),
            awake: self.queue,
            lost_per_mille: self.loss,
            late: self.late,
            mute: self.mute,
            wrong_endpoint: self.wrong_endpoint,
            firmware_sha256: self.firmware_sha256,
            firmware_version: self.firmware_version.clone(),
            firmware_takes: self.firmware_takes,
        }
    }
}

fn parse_digest(text: &str) -> Result<Digest, String> {
    let refused = || "allowed: 64 hexadecimal digits".to_owned();
    let bytes = crate::payload::parse_hex(text).ok_or_else(refused)?;
    bytes.try_into().map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use clap::Parser;

    use super::*;
    use crate::Arguments;
    use crate::plan::{Plan, Protocol};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn plan(line: &str) -> Plan {
        let words = std::iter::once("simulate").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().arguments.plan().unwrap()
    }

    #[test]
    fn the_command_line_becomes_settings() {
        let plan = plan("10.0.0.1:7 --protocol lwm2ms --psk 0123456789 --queue --send --bootstrap");
        assert_eq!((plan.protocol, plan.lwm2m.traffic), (Protocol::Lwm2ms, Traffic::Sends));
        assert_eq!(plan.lwm2m.bootstrap, Some(plan.target));
        assert_eq!(plan.lwm2m.awake, Some(Lwm2m::AWAKE));
        let plan = self::plan("--bootstrap 127.0.0.1:9 --protocol lwm2m --hold 1m --queue=5s");
        let bootstrap = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        assert_eq!(plan.lwm2m.bootstrap, Some(bootstrap));
        assert_eq!(plan.lwm2m.traffic, Traffic::Hold(Duration::from_secs(60)));
        assert_eq!((plan.lwm2m.awake, plan.target.port()), (Some(Duration::from_secs(5)), 5783));
        assert!(Line::try_parse_from(["simulate", "--hold", "1s", "--send"]).is_err());
    }
}
