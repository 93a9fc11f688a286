//! What objects and resources mean: names, types, operations (OMA LwM2M Core 1.1 §6, §7.2).
//!
//! A table of the usual objects is built in; definitions that an operator has as XML files are
//! added before the model is shared.

mod core_objects;
mod rows;
mod sensor_objects;
mod xml;

use std::borrow::Cow;

pub use xml::XmlError;

use crate::path::Path;
use crate::value::ResourceType;
use rows::{Object, Row, Shared};

/// A text that is part of the program or was read from a file.
pub type Text = Cow<'static, str>;

/// What a server may do with a resource (LwM2M Core 1.1 Appendix D, `Operations`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operations {
    /// Read, observe, discover.
    pub read: bool,
    /// Write.
    pub write: bool,
    /// Execute.
    pub execute: bool,
}

impl Operations {
    /// Only a bootstrap server may touch it.
    pub const NONE: Self = Self { read: false, write: false, execute: false };
    /// R.
    pub const READ: Self = Self { read: true, ..Self::NONE };
    /// W.
    pub const WRITE: Self = Self { write: true, ..Self::NONE };
    /// RW.
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false };
    /// E.
    pub const EXECUTE: Self = Self { execute: true, ..Self::NONE };
}

/// A resource of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceInfo {
    /// Its id.
    pub id: u16,
    /// Its name.
    pub name: Text,
    /// What a server may do with it.
    pub operations: Operations,
    /// The type of its values; `None` for one that is executed and holds none.
    pub kind: Option<ResourceType>,
    /// Whether it may have several instances.
    pub multiple: bool,
    /// Whether each object instance has it.
    pub mandatory: bool,
    /// The unit of its values, empty if it has none.
    pub units: Text,
    /// The values allowed, in the words of the definition, empty if it says nothing.
    pub range: Text,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its id.
    pub id: u16,
    /// Its name.
    pub name: Text,
    /// The version of its definition, such as "1.1".
    pub version: Text,
    /// Whether it may have several instances.
    pub multiple: bool,
    /// Whether each device has it.
    pub mandatory: bool,
    /// Its resources in ascending order of their ids.
    pub resources: Vec<ResourceInfo>,
}

impl ObjectInfo {
    /// One of its resources.
    pub fn resource(&self, id: u16) -> Option<&ResourceInfo> {
        let index = self.resources.binary_search_by_key(&id, |resource| resource.id).ok()?;
        self.resources.get(index)
    }
}

/// The objects known; built once, then shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// In ascending order of their ids.
    objects: Vec<ObjectInfo>,
}

impl Model {
    /// The objects of the enabler and the usual sensors, actuators and controls.
    pub fn builtin() -> Self {
        let own = core_objects::OBJECTS.iter().map(own_object);
        let shared = sensor_objects::OBJECTS.iter().map(shared_object);
        Self { objects: own.chain(shared).collect() }
    }

    /// Adds the objects of an OMA definition file (DDF, LwM2M Core 1.1 Appendix D) and says
    /// which. An object that is known already is replaced. `source_name` stands in errors. After
    /// an error nothing was added.
    pub fn extend_from_xml(
        &mut self,
        bytes: &[u8],
        source_name: &str,
    ) -> Result<Vec<u16>, XmlError> {
        let objects = xml::parse(bytes, source_name)?;
        let ids = objects.iter().map(|object| object.id).collect();
        objects.into_iter().for_each(|object| self.insert(object));
        Ok(ids)
    }

    fn insert(&mut self, object: ObjectInfo) {
        match self.objects.binary_search_by_key(&object.id, |known| known.id) {
            Ok(index) => self.objects[index] = object,
            Err(index) => self.objects.insert(index, object),
        }
    }

    /// All objects in ascending order of their ids.
    pub fn objects(&self) -> &[ObjectInfo] {
        &self.objects
    }

    /// What is known of an object.
    pub fn object(&self, object: u16) -> Option<&ObjectInfo> {
        let index = self.objects.binary_search_by_key(&object, |known| known.id).ok()?;
        self.objects.get(index)
    }

    /// What is known of a resource.
    pub fn resource(&self, object: u16, resource: u16) -> Option<&ResourceInfo> {
        self.object(object)?.resource(resource)
    }

    /// What is known of the resource that a path names or lies in.
    pub fn resource_at(&self, path: &Path) -> Option<&ResourceInfo> {
        self.resource(path.object_id()?, path.resource_id()?)
    }

    /// The type of the values at a path, if it is known.
    pub fn kind(&self, path: &Path) -> Option<ResourceType> {
        self.resource_at(path)?.kind
    }

    /// Whether something at or below the path may be read. What is not known may be.
    pub fn is_readable(&self, path: &Path) -> bool {
        self.any(path, |operations| operations.read)
    }

    /// Whether something at or below the path may be written. What is not known may be.
    pub fn is_writable(&self, path: &Path) -> bool {
        self.any(path, |operations| operations.write)
    }

    /// Whether the path names a resource that may be executed. What is not known may be.
    pub fn is_executable(&self, path: &Path) -> bool {
        path.ids().len() == 3 && self.any(path, |operations| operations.execute)
    }

    fn any(&self, path: &Path, allowed: impl Fn(Operations) -> bool) -> bool {
        let Some(object) = path.object_id().and_then(|id| self.object(id)) else {
            return true;
        };
        match path.resource_id() {
            None => object.resources.iter().any(|resource| allowed(resource.operations)),
            Some(id) => object.resource(id).is_none_or(|resource| allowed(resource.operations)),
        }
    }
}

fn resource_info(row: &Row) -> ResourceInfo {
    let Row(id, name, operations, kind, count, units) = *row;
    ResourceInfo {
        id,
        name: Cow::Borrowed(name),
        operations,
        kind,
        multiple: count.multiple,
        mandatory: count.mandatory,
        units: Cow::Borrowed(units),
        range: Cow::Borrowed(""),
    }
}

fn own_object(object: &Object) -> ObjectInfo {
    let Object(rows::Head(id, name, version, count), resources) = object;
    ObjectInfo {
        id: *id,
        name: Cow::Borrowed(name),
        version: Cow::Borrowed(version),
        multiple: count.multiple,
        mandatory: count.mandatory,
        resources: resources.iter().map(resource_info).collect(),
    }
}

fn shared_object(object: &Shared) -> ObjectInfo {
    let Shared(id, name, version, mandatory, optional) = object;
    let resources = sensor_objects::RESOURCES
        .iter()
        .filter(|row| mandatory.contains(&row.0) || optional.contains(&row.0))
        .map(|row| ResourceInfo { mandatory: mandatory.contains(&row.0), ..resource_info(row) });
    ObjectInfo {
        id: *id,
        name: Cow::Borrowed(name),
        version: Cow::Borrowed(version),
        multiple: true,
        mandatory: false,
        resources: resources.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order_and_complete() {
        let model = Model::builtin();
        assert!(model.objects().is_sorted_by(|left, right| left.id < right.id));
        for object in model.objects() {
            let resources = &object.resources;
            assert!(resources.is_sorted_by(|left, right| left.id < right.id), "{}", object.id);
            for resource in resources {
                let executes = resource.operations.execute;
                assert_eq!(executes, resource.kind.is_none(), "{} {}", object.id, resource.id);
            }
        }
        for Shared(id, _, _, mandatory, optional) in sensor_objects::OBJECTS {
            let known = model.object(*id).map_or(0, |object| object.resources.len());
            assert_eq!(known, mandatory.len() + optional.len(), "{id}");
        }
        let enabler = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 19, 21];
        let sensors = (3200..=3203).chain(3300..=3306).chain([3308]).chain(3310..=3350);
        let expected: Vec<u16> = enabler.into_iter().chain(sensors).collect();
        let known: Vec<u16> = model.objects().iter().map(|object| object.id).collect();
        assert_eq!(known, expected);
    }

    #[test]
    fn resources_have_the_types_and_operations_of_the_registry() {
        use ResourceType as T;
        let model = Model::builtin();
        for (object, resource, name, kind, operations) in [
            (3, 0, "Manufacturer", Some(T::String), Operations::READ),
            (3, 4, "Reboot", None, Operations::EXECUTE),
            (5, 0, "Package", Some(T::Opaque), Operations::WRITE),
            (6, 0, "Latitude", Some(T::Float), Operations::READ),
            (6, 5, "Timestamp", Some(T::Time), Operations::READ),
            (0, 5, "Secret Key", Some(T::Opaque), Operations::NONE),
            (1, 1, "Lifetime", Some(T::Integer), Operations::READ_WRITE),
            (3303, 5700, "Sensor Value", Some(T::Float), Operations::READ),
            (3311, 5850, "On/Off", Some(T::Boolean), Operations::READ_WRITE),
            (3336, 5514, "Latitude", Some(T::String), Operations::READ),
        ] {
            let info = model.resource(object, resource).unwrap();
            assert_eq!((info.name.as_ref(), info.kind, info.operations), (name, kind, operations));
        }
        assert!(model.resource(3, 6).unwrap().multiple);
        assert!(model.resource(3303, 5700).unwrap().mandatory);
        assert!(!model.resource(3303, 5701).unwrap().mandatory);
        assert_eq!(model.resource(3303, 1), None);
        assert_eq!(model.object(65534), None);
        let instance = Path::resource_instance(3, 0, 6, 1);
        assert_eq!(model.kind(&instance), Some(T::Integer));
        assert_eq!(model.kind(&Path::instance(3, 0)), None);
    }

    #[test]
    fn an_object_is_readable_if_one_resource_is() {
        let model = Model::builtin();
        let may = |path: &str| {
            let path = path.parse().unwrap();
            (model.is_readable(&path), model.is_writable(&path), model.is_executable(&path))
        };
        assert_eq!(may("/3"), (true, true, false));
        assert_eq!(may("/0/1"), (false, false, false));
        assert_eq!(may("/3/0/4"), (false, false, true));
        assert_eq!(may("/3/0/13"), (true, true, false));
        assert_eq!(may("/6"), (true, false, false));
        assert_eq!(may("/30000/0/1"), (true, true, true));
        assert_eq!(may("/"), (true, true, false));
    }
}
