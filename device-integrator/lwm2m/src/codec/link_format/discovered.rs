//! The answer to a Discover (LwM2M Core 1.1 §6.3.2).

use super::attributes::Attributes;
use super::objects::{parse_target, root_prefix};
use super::scanner::{LinkFormatError, Scanner};
use crate::path::Path;

/// A path that a device has, and the attributes attached there.
#[derive(Debug, Clone, PartialEq)]
pub struct DiscoveredLink {
    /// The path.
    pub path: Path,
    /// Its attributes.
    pub attributes: Attributes,
}

/// Reads the answer to a Discover, in the order in which the device gave it. Links that are no
/// LwM2M paths, such as `</.well-known/core>`, are left out.
pub fn parse_discover(bytes: &[u8]) -> Result<Vec<DiscoveredLink>, LinkFormatError> {
    let prefix = root_prefix(bytes)?;
    let mut scanner = Scanner::new(bytes)?;
    let mut found = Vec::new();
    while let Some(link) = scanner.next()? {
        if let Some(path) = parse_target(link.target, prefix.as_deref().unwrap_or(""))? {
            found.push(DiscoveredLink { path, attributes: Attributes::of(&link)? });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_stand_at_their_paths() {
        // LwM2M Core 1.1 §6.3.2, examples of Discover.
        let bytes = b"</3/0>;pmin=10;pmax=\"60\",</3/0/1>,</3/0/6>;dim=8,\
                      </3/0/7>;dim=8;gt=50;lt=42.2;st=0.5,</1/0>;ssid=101,</5>;ver=1.1;x=\"a\\\"b\";y";
        let found = parse_discover(bytes).unwrap();
        let paths: Vec<_> = found.iter().map(|link| link.path.to_string()).collect();
        assert_eq!(paths, ["/3/0", "/3/0/1", "/3/0/6", "/3/0/7", "/1/0", "/5"]);
        let device = &found[0].attributes;
        assert_eq!((device.pmin_seconds, device.pmax_seconds), (Some(10), Some(60)));
        assert_eq!(found[1].attributes, Attributes::default());
        let voltage = &found[3].attributes;
        assert_eq!(voltage.dimension, Some(8));
        let thresholds = (voltage.greater_than, voltage.less_than, voltage.step);
        assert_eq!(thresholds, (Some(50.0), Some(42.2), Some(0.5)));
        assert_eq!(found[4].attributes.short_server_id, Some(101));
        let firmware = &found[5].attributes;
        assert_eq!(firmware.version.map(|version| version.to_string()), Some("1.1".to_owned()));
        assert_eq!(firmware.others[0].value.as_deref(), Some("a\"b"));
        assert_eq!((&*firmware.others[1].name, &firmware.others[1].value), ("y", &None));
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        for text in [
            "pmin=-1",
            "pmin",
            "pmax=a",
            "gt=inf",
            "lt=a",
            "st=\"\"",
            "dim=4294967296",
            "ssid=65536",
            "ver=one",
        ] {
            let text = format!("</3/0>;{text}");
            assert!(parse_discover(text.as_bytes()).is_err(), "{text}");
        }
        let error = parse_discover(b"</3/0>;pmin=soon").unwrap_err().to_string();
        assert_eq!(
            error,
            "link \"/3/0\": parameter pmin has the value \"soon\", expected: a number"
        );
    }

    #[test]
    fn an_alternate_root_is_taken_off() {
        let found =
            parse_discover(b"</lw>;rt=\"oma.lwm2m\",</lw/3/0/9>,</.well-known/core>").unwrap();
        let paths: Vec<_> = found.iter().map(|link| link.path.to_string()).collect();
        assert_eq!(paths, ["/", "/3/0/9"]);
    }
}
