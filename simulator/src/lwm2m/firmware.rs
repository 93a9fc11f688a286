//! Object 5, Firmware Update (OMA LwM2M Core 1.1 Appendix E.6): states, results, and what becomes
//! of a package. The package itself is not kept: its digest and its length are.

use std::time::Duration;

use sha2::{Digest, Sha256};

/// Characters of a version that a package names.
const VERSION_CHARS_MAX: usize = 64;

/// What a package begins with that names its own version; the line ends with a line feed.
const VERSION_MARK: &[u8] = b"version=";

/// /5/0/3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    #[default]
    Idle = 0,
    Downloading = 1,
    Downloaded = 2,
    Updating = 3,
}

/// /5/0/5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Outcome {
    #[default]
    Initial = 0,
    Updated = 1,
    ConnectionLost = 4,
    IntegrityFailed = 5,
    InvalidUri = 7,
    UnsupportedProtocol = 9,
}

/// What is the same for all devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FirmwareRules {
    /// The digest that every package must have.
    pub(crate) sha256: Option<[u8; 32]>,
    /// The version after an update; `None` takes what the package says.
    pub(crate) version: Option<String>,
    /// How long an update takes.
    pub(crate) takes: Duration,
}

/// The object of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Firmware {
    pub(crate) state: State,
    pub(crate) outcome: Outcome,
    pub(crate) uri: String,
    /// The version that runs; empty: that of the factory.
    pub(crate) version: String,
    /// The version of the package that was downloaded.
    pub(crate) package_version: String,
}

impl Firmware {
    /// A package arrived whole, pushed or pulled. An empty one, or a single zero byte, resets the
    /// state machine.
    pub(crate) fn take_package(&mut self, package: &[u8], rules: &FirmwareRules) {
        if package.is_empty() || package == [0] {
            return self.reset(Outcome::Initial);
        }
        let digest: [u8; 32] = Sha256::digest(package).into();
        if rules.sha256.is_some_and(|wanted| wanted != digest) {
            return self.reset(Outcome::IntegrityFailed);
        }
        self.state = State::Downloaded;
        self.outcome = Outcome::Initial;
        self.package_version = version_of(package, &digest, rules);
    }

    /// The server wrote where the package is; tells whether it is to be fetched.
    pub(crate) fn take_uri(&mut self, uri: &str) -> bool {
        self.reset(Outcome::Initial);
        uri.clone_into(&mut self.uri);
        if !uri.is_empty() {
            self.state = State::Downloading;
        }
        !uri.is_empty()
    }

    /// Back to the beginning, with this result.
    pub(crate) fn reset(&mut self, outcome: Outcome) {
        self.state = State::Idle;
        self.outcome = outcome;
        self.uri.clear();
        self.package_version.clear();
    }

    /// Begins the update; `false` where no package is there.
    pub(crate) fn begin_update(&mut self) -> bool {
        let is_ready = self.state == State::Downloaded;
        if is_ready {
            self.state = State::Updating;
        }
        is_ready
    }

    /// The update has ended well: another version runs.
    pub(crate) fn end_update(&mut self) {
        self.version = std::mem::take(&mut self.package_version);
        self.reset(Outcome::Updated);
    }
}

fn version_of(package: &[u8], digest: &[u8; 32], rules: &FirmwareRules) -> String {
    if let Some(version) = &rules.version {
        return version.clone();
    }
    let line = package.strip_prefix(VERSION_MARK).and_then(|rest| {
        let line = rest.split(|byte| *byte == b'\n').next()?;
        std::str::from_utf8(line).ok()
    });
    match line {
        Some(line) => line.trim().chars().take(VERSION_CHARS_MAX).collect(),
        // What names a package that does not name itself.
        None => digest[..4].iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> FirmwareRules {
        FirmwareRules { sha256: None, version: None, takes: Duration::ZERO }
    }

    #[test]
    fn a_pushed_package_is_installed_and_names_its_version() {
        let mut firmware = Firmware::default();
        assert!(!firmware.begin_update());
        firmware.take_package(b"version=2.1\nrest", &rules());
        assert_eq!((firmware.state, firmware.package_version.as_str()), (State::Downloaded, "2.1"));
        assert!(firmware.begin_update() && !firmware.begin_update());
        firmware.end_update();
        assert_eq!((firmware.state, firmware.outcome), (State::Idle, Outcome::Updated));
        assert_eq!(firmware.version, "2.1");
        firmware.take_package(&[0], &rules());
        assert_eq!((firmware.state, firmware.outcome), (State::Idle, Outcome::Initial));
    }

    #[test]
    fn a_package_with_another_digest_is_refused() {
        let wanted: [u8; 32] = Sha256::digest(b"good").into();
        let rules = FirmwareRules { sha256: Some(wanted), ..rules() };
        let mut firmware = Firmware::default();
        firmware.take_package(b"bad", &rules);
        assert_eq!((firmware.state, firmware.outcome), (State::Idle, Outcome::IntegrityFailed));
        firmware.take_package(b"good", &rules);
        assert_eq!(firmware.state, State::Downloaded);
        assert_eq!(firmware.package_version.len(), 8);
    }

    #[test]
    fn an_address_starts_a_download_and_an_empty_one_resets() {
        let mut firmware = Firmware::default();
        assert!(firmware.take_uri("coap://127.0.0.1/fw"));
        assert_eq!(firmware.state, State::Downloading);
        assert!(!firmware.take_uri(""));
        assert_eq!((firmware.state, firmware.uri.as_str()), (State::Idle, ""));
    }
}
