//! The objects of a simulated device: which resources there are, what may be done with each, and
//! what it says before anybody has written it (OMA LwM2M Core 1.1 Appendix E; the objects 3303 and
//! 3311 of the public registry).

use lwm2m::{ResourceType, Value};

/// What the server may do with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    ReadWrite,
    Execute,
}

/// One resource of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource {
    pub(crate) object: u16,
    pub(crate) id: u16,
    pub(crate) kind: ResourceType,
    pub(crate) access: Access,
    /// Whether it has resource instances.
    pub(crate) is_multiple: bool,
}

/// Object ids.
pub(crate) const SECURITY: u16 = 0;
pub(crate) const SERVER: u16 = 1;
pub(crate) const DEVICE: u16 = 3;
pub(crate) const FIRMWARE: u16 = 5;
pub(crate) const LOCATION: u16 = 6;
pub(crate) const TEMPERATURE: u16 = 3303;
pub(crate) const LIGHT: u16 = 3311;

/// The instances that a device has from the factory: what it registers.
pub(crate) const INSTANCES: [(u16, u16); 7] =
    [(SERVER, 0), (DEVICE, 0), (4, 0), (FIRMWARE, 0), (LOCATION, 0), (TEMPERATURE, 0), (LIGHT, 0)];

impl Access {
    pub(crate) const fn is_readable(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    pub(crate) const fn is_writable(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

const fn one(object: u16, id: u16, kind: ResourceType, access: Access) -> Resource {
    Resource { object, id, kind, access, is_multiple: false }
}

const fn many(object: u16, id: u16, kind: ResourceType, access: Access) -> Resource {
    Resource { object, id, kind, access, is_multiple: true }
}

use Access::{Execute as E, Read as R, ReadWrite as RW, Write as W};
use ResourceType as T;

/// All resources, in the order of their paths.
const RESOURCES: [Resource; 65] = [
    // Security: written by a bootstrap server, never read by a server.
    one(0, 0, T::String, W),
    one(0, 1, T::Boolean, W),
    one(0, 2, T::Integer, W),
    one(0, 3, T::Opaque, W),
    one(0, 4, T::Opaque, W),
    one(0, 5, T::Opaque, W),
    one(0, 10, T::Integer, W),
    one(0, 11, T::Integer, W),
    one(0, 12, T::Integer, W),
    // Server.
    one(1, 0, T::Integer, R),
    one(1, 1, T::Integer, RW),
    one(1, 2, T::Integer, RW),
    one(1, 3, T::Integer, RW),
    one(1, 5, T::Integer, RW),
    one(1, 6, T::Boolean, RW),
    one(1, 7, T::String, RW),
    one(1, 8, T::Opaque, E),
    one(1, 9, T::Opaque, E),
    // Device.
    one(3, 0, T::String, R),
    one(3, 1, T::String, R),
    one(3, 2, T::String, R),
    one(3, 3, T::String, R),
    one(3, 4, T::Opaque, E),
    one(3, 5, T::Opaque, E),
    many(3, 6, T::Integer, R),
    many(3, 7, T::Integer, R),
    one(3, 9, T::Integer, R),
    one(3, 10, T::Integer, R),
    many(3, 11, T::Integer, R),
    one(3, 12, T::Opaque, E),
    one(3, 13, T::Time, RW),
    one(3, 14, T::String, RW),
    one(3, 15, T::String, RW),
    one(3, 16, T::String, R),
    one(3, 17, T::String, R),
    // Connectivity monitoring.
    one(4, 0, T::Integer, R),
    many(4, 1, T::Integer, R),
    one(4, 2, T::Integer, R),
    one(4, 3, T::Integer, R),
    many(4, 4, T::String, R),
    one(4, 8, T::Integer, R),
    one(4, 9, T::Integer, R),
    one(4, 10, T::Integer, R),
    // Firmware update.
    one(5, 0, T::Opaque, W),
    one(5, 1, T::String, RW),
    one(5, 2, T::Opaque, E),
    one(5, 3, T::Integer, R),
    one(5, 5, T::Integer, R),
    one(5, 6, T::String, R),
    one(5, 7, T::String, R),
    many(5, 8, T::Integer, R),
    one(5, 9, T::Integer, R),
    // Location.
    one(6, 0, T::Float, R),
    one(6, 1, T::Float, R),
    one(6, 2, T::Float, R),
    one(6, 5, T::Time, R),
    // Temperature.
    one(3303, 5601, T::Float, R),
    one(3303, 5602, T::Float, R),
    one(3303, 5605, T::Opaque, E),
    one(3303, 5700, T::Float, R),
    one(3303, 5701, T::String, R),
    // Light control.
    one(3311, 5706, T::String, RW),
    one(3311, 5850, T::Boolean, RW),
    one(3311, 5851, T::Integer, RW),
    one(3311, 5852, T::Integer, RW),
];

/// The resources of an object; none where the device does not know it.
pub(crate) fn resources(object: u16) -> &'static [Resource] {
    let start = RESOURCES.partition_point(|resource| resource.object < object);
    let length = RESOURCES[start..].partition_point(|resource| resource.object == object);
    &RESOURCES[start..start + length]
}

/// The resource, if the device knows it.
pub(crate) fn resource(object: u16, id: u16) -> Option<&'static Resource> {
    resources(object).iter().find(|resource| resource.id == id)
}

/// Whether the server may create and delete instances of an object.
pub(crate) const fn is_creatable(object: u16) -> bool {
    matches!(object, TEMPERATURE | LIGHT)
}

/// What a resource says that nothing else decides, by resource instance where it has some.
pub(crate) fn factory_values(object: u16, id: u16) -> Vec<Value> {
    let text = |text: &str| vec![Value::String(text.to_owned())];
    let number = |number: i64| vec![Value::Integer(number)];
    match (object, id) {
        // Default minimum period: what a bootstrap server of this kind writes.
        (SERVER, 2) => number(1),
        (SERVER, 3) => number(0),
        (SERVER, 5) => number(86_400),
        (SERVER, 6) => vec![Value::Boolean(false)],
        (DEVICE, 0) => text("simgate"),
        (DEVICE, 1) => text("simulated device"),
        // An internal battery and a USB port, at 3.7 V and 5 V.
        (DEVICE, 6) => vec![Value::Integer(1), Value::Integer(5)],
        (DEVICE, 7) => vec![Value::Integer(3_700), Value::Integer(5_000)],
        (DEVICE, 9) => number(87),
        (DEVICE, 10) => number(256),
        (DEVICE, 11) => number(0),
        (DEVICE, 14) => text("+00:00"),
        (DEVICE, 15) => text("Etc/UTC"),
        (DEVICE, 17) => text("simulation"),
        // NB-IoT, a signal of -97 dBm and a cell of the test network 999-70.
        (4, 0) => number(7),
        (4, 1) => vec![Value::Integer(6), Value::Integer(7)],
        (4, 2) => number(-97),
        (4, 3) => number(14),
        (4, 8) => number(27_447_297),
        (4, 9) => number(70),
        (4, 10) => number(999),
        (FIRMWARE, 6) => text("simulation"),
        // CoAP only, by push and by pull.
        (FIRMWARE, 8) => number(0),
        (FIRMWARE, 9) => number(2),
        (LOCATION, 2) => vec![Value::Float(112.0)],
        (TEMPERATURE, 5701) => text("Cel"),
        (LIGHT, 5706) => text("white"),
        (LIGHT, 5850) => vec![Value::Boolean(false)],
        (LIGHT, 5851) => number(100),
        (LIGHT, 5852) => number(0),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_stand_in_the_order_of_their_paths() {
        assert!(RESOURCES.is_sorted_by_key(|resource| (resource.object, resource.id)));
        assert_eq!(resources(FIRMWARE).len(), 9);
        assert!(resources(9).is_empty());
        assert!(resource(LIGHT, 5850).unwrap().access.is_writable());
        assert!(resource(LIGHT, 5800).is_none());
    }

    #[test]
    fn factory_values_have_the_types_of_their_resources() {
        for resource in RESOURCES {
            let values = factory_values(resource.object, resource.id);
            assert!(values.iter().all(|value| value.kind() == resource.kind), "{resource:?}");
            assert!(resource.is_multiple || values.len() <= 1, "{resource:?}");
        }
    }
}
