//! The objects and instances that a device has, packed: a registration is kept for each of a
//! million devices.

use std::fmt;

use coap::wire::ContentFormat;

use crate::codec::link_format::{
    self, LinkFormatError, ObjectLinks, ObjectVersion, RegisteredObject,
};

/// No instance: the link names the object alone. The id is reserved (LwM2M Core 1.1 §7.3).
const NO_INSTANCE: u16 = u16::MAX;

/// Formats that a device may announce, each with its bit.
const FORMATS: [ContentFormat; 8] = [
    ContentFormat::TEXT_PLAIN,
    ContentFormat::OCTET_STREAM,
    ContentFormat::CBOR,
    ContentFormat::SENML_JSON,
    ContentFormat::SENML_CBOR,
    ContentFormat::LWM2M_TLV,
    ContentFormat::LWM2M_JSON,
    ContentFormat::LWM2M_CBOR,
];

/// The links of a registration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    /// Object and instance, in ascending order.
    pub(super) places: Box<[(u16, u16)]>,
    /// The versions of objects that are not 1.0, in ascending order.
    pub(super) versions: Box<[(u16, u8, u8)]>,
    /// Where the objects lie, if it is not the root (LwM2M Core 1.1 §6.2.1).
    pub(super) root: Option<Box<str>>,
    /// The formats that the device announced, as bits of [`FORMATS`].
    pub(super) formats: u8,
}

impl Links {
    /// Reads the payload of a registration or an update.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, LinkFormatError> {
        let ObjectLinks { root, content_formats, objects } = link_format::parse(payload)?;
        let places = objects.iter().flat_map(|object| {
            let alone = object.instances.is_empty().then_some((object.id, NO_INSTANCE));
            alone.into_iter().chain(object.instances.iter().map(|id| (object.id, *id)))
        });
        let versions = objects
            .iter()
            .filter(|object| object.version != ObjectVersion::DEFAULT)
            .map(|object| (object.id, object.version.major, object.version.minor));
        let formats = FORMATS
            .iter()
            .enumerate()
            .filter(|(_, format)| content_formats.contains(&format.0))
            .fold(0, |bits, (place, _)| bits | 1 << place);
        Ok(Self { places: places.collect(), versions: versions.collect(), root, formats })
    }

    /// Object and instance of each link, in ascending order; `None`: the object alone.
    pub fn places(&self) -> impl Iterator<Item = (u16, Option<u16>)> {
        self.places
            .iter()
            .map(|(object, instance)| (*object, (*instance != NO_INSTANCE).then_some(*instance)))
    }

    /// The objects, in ascending order.
    pub fn objects(&self) -> impl Iterator<Item = u16> {
        self.places.chunk_by(|left, right| left.0 == right.0).map(|places| places[0].0)
    }

    /// Whether the device has an object.
    pub fn has_object(&self, object: u16) -> bool {
        let from = self.places.partition_point(|(id, _)| *id < object);
        self.places.get(from).is_some_and(|(id, _)| *id == object)
    }

    /// Whether there is no link.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Under which path the objects lie, such as `/lwm2m`; empty for the usual root.
    pub fn root(&self) -> &str {
        self.root.as_deref().unwrap_or_default()
    }

    /// Whether the device announced a format.
    pub fn speaks(&self, format: ContentFormat) -> bool {
        FORMATS
            .iter()
            .position(|known| *known == format)
            .is_some_and(|place| self.formats & 1 << place != 0)
    }

    /// Root and formats alone, which a request needs.
    pub(crate) fn without_places(&self) -> Self {
        Self {
            places: Box::default(),
            versions: Box::default(),
            root: self.root.clone(),
            formats: self.formats,
        }
    }
}

impl fmt::Display for Links {
    /// In the form of a registration: `</3/0>,</3303/0>`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = |places: &[(u16, u16)]| {
            let id = places[0].0;
            let version = self.versions.iter().find(|(object, ..)| *object == id);
            RegisteredObject {
                id,
                version: version.map_or(ObjectVersion::DEFAULT, |(_, major, minor)| {
                    ObjectVersion { major: *major, minor: *minor }
                }),
                instances: places
                    .iter()
                    .map(|(_, instance)| *instance)
                    .filter(|instance| *instance != NO_INSTANCE)
                    .collect(),
            }
        };
        let links = ObjectLinks {
            root: self.root.clone(),
            content_formats: FORMATS
                .iter()
                .filter(|format| self.speaks(**format))
                .map(|format| format.0)
                .collect(),
            objects: self.places.chunk_by(|left, right| left.0 == right.0).map(object).collect(),
        };
        formatter.write_str(&link_format::write(&links))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_links_say_what_the_device_said() {
        let text = "</lwm2m>;rt=\"oma.lwm2m\";ct=\"110 11542\",</lwm2m/1/0>,</lwm2m/3>;ver=1.1,\
            </lwm2m/3/0>,</lwm2m/3303/1>,</lwm2m/3303/0>,</lwm2m/5>";
        let links = Links::parse(text.as_bytes()).unwrap();
        assert_eq!(links.objects().collect::<Vec<_>>(), [1, 3, 5, 3303]);
        let places: Vec<_> = links.places().collect();
        assert_eq!(places[2..], [(5, None), (3303, Some(0)), (3303, Some(1))]);
        assert!(links.has_object(3303) && !links.has_object(4) && !links.has_object(9_999));
        assert!(links.speaks(ContentFormat::LWM2M_TLV) && !links.speaks(ContentFormat::SENML_CBOR));
        assert_eq!(links.root(), "/lwm2m");
        assert_eq!(Links::parse(links.to_string().as_bytes()), Ok(links));
    }
}
