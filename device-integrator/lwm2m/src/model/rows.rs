//! The columns of the built-in tables, with names short enough for one line a row.

use super::Operations;
use crate::value::ResourceType;

/// Resource: id, name, operations, type, how many, units.
#[derive(Clone, Copy)]
pub(super) struct Row(
    pub u16,
    pub &'static str,
    pub Operations,
    pub Option<ResourceType>,
    pub Count,
    pub &'static str,
);

/// Object: id, name, version, how many instances.
#[derive(Clone, Copy)]
pub(super) struct Head(pub u16, pub &'static str, pub &'static str, pub Count);

/// Object with resources of its own.
pub(super) struct Object(pub Head, pub &'static [Row]);

/// Object made of shared resources: id, name, version, mandatory ones, optional ones.
pub(super) struct Shared(
    pub u16,
    pub &'static str,
    pub &'static str,
    pub &'static [u16],
    pub &'static [u16],
);

/// One or several instances, optional or mandatory.
#[derive(Clone, Copy)]
pub(super) struct Count {
    pub multiple: bool,
    pub mandatory: bool,
}

pub(super) const ONE: Count = Count { multiple: false, mandatory: false };
pub(super) const ONE_MUST: Count = Count { multiple: false, mandatory: true };
pub(super) const MANY: Count = Count { multiple: true, mandatory: false };
pub(super) const MANY_MUST: Count = Count { multiple: true, mandatory: true };

pub(super) const NONE: Operations = Operations::NONE;
pub(super) const R: Operations = Operations::READ;
pub(super) const W: Operations = Operations::WRITE;
pub(super) const RW: Operations = Operations::READ_WRITE;
pub(super) const E: Operations = Operations::EXECUTE;

pub(super) const NOTHING: Option<ResourceType> = None;
pub(super) const STRING: Option<ResourceType> = Some(ResourceType::String);
pub(super) const INTEGER: Option<ResourceType> = Some(ResourceType::Integer);
pub(super) const UNSIGNED: Option<ResourceType> = Some(ResourceType::Unsigned);
pub(super) const FLOAT: Option<ResourceType> = Some(ResourceType::Float);
pub(super) const BOOLEAN: Option<ResourceType> = Some(ResourceType::Boolean);
pub(super) const OPAQUE: Option<ResourceType> = Some(ResourceType::Opaque);
pub(super) const TIME: Option<ResourceType> = Some(ResourceType::Time);
pub(super) const OBJECT_LINK: Option<ResourceType> = Some(ResourceType::ObjectLink);
