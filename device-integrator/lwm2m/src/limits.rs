//! Limits on what a device or an operator can make this crate hold.

/// Bytes of one payload: as much as the CoAP endpoint collects from blocks by default.
pub const INPUT_BYTES_MAX: usize = 64 << 10;
/// Values, arrays and maps of one payload, names of fields not counted: a history of 1,024 records
/// with a name, a time and a value each. The largest standard object has fewer than 50 resources.
pub const NODES_MAX: usize = 4_096;
/// Containers inside of each other. TLV needs 3, SenML 2; fields to be ignored may hold more.
pub const DEPTH_MAX: usize = 32;
/// Links of one list. A device registers each object instance once; the largest seen in the
/// examples of the specifications is under 20, gateways of sensor networks have some hundred.
pub const LINKS_MAX: usize = 1_024;
/// Bytes of one text value written by an operator or read from a device.
pub const TEXT_BYTES_MAX: usize = INPUT_BYTES_MAX;
/// Bytes of one object definition; the largest of the public registry has about 200 KiB.
pub const XML_BYTES_MAX: usize = 1 << 20;
/// Elements, attributes and texts of one object definition.
pub const XML_NODES_MAX: u32 = 100_000;
