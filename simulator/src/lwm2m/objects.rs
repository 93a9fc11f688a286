//! What the objects of one device hold, and what the server's operations do with it. Only what
//! differs from the factory is kept.

use std::net::Ipv4Addr;

use coap::wire::Code;
use lwm2m::{Path, Record, ResourceType, Value};

use crate::lwm2m::attributes::Attributes;
use crate::lwm2m::firmware::{Firmware, FirmwareRules};
use crate::lwm2m::table::{
    Access, DEVICE, FIRMWARE, INSTANCES, LOCATION, Resource, SECURITY, SERVER, TEMPERATURE,
    factory_values, is_creatable, resource, resources,
};

/// The measured value.
pub(crate) const MEASURED: Path = Path::resource(TEMPERATURE, 0, 5700);

/// Values and attributes that a server may write to one device, and instances it may create.
const WRITTEN_MAX: usize = 64;
const INSTANCES_MAX: usize = 32;

/// What a device knows of itself without keeping it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) index: u32,
    pub(crate) endpoint: &'a str,
    pub(crate) address: Ipv4Addr,
    pub(crate) unix_seconds: i64,
    pub(crate) binding: &'static str,
    pub(crate) firmware: &'a FirmwareRules,
}

/// What an operation leads to beyond its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The registration is to be updated: its lifetime or its objects have changed.
    Update,
    /// The device is to start again.
    Reboot,
    /// The device is to ask its bootstrap server.
    Bootstrap,
    /// A firmware package is to be fetched from /5/0/1.
    Fetch,
    /// The downloaded package is to be installed.
    Install,
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What is not among them goes back to the factory's.
    Replace,
    /// What is not among them stays.
    Update,
}

/// The objects of one device.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    /// In the order of their paths, which are those of resources or of resource instances.
    written: Vec<(Path, Value)>,
    attributes: Vec<(Path, Attributes)>,
    /// All instances, once they are not those of the factory.
    instances: Option<Box<[(u16, u16)]>>,
    firmware: Option<Box<Firmware>>,
    pub(crate) lifetime_seconds: u32,
    pub(crate) short_id: u16,
    measured: f64,
    least: f64,
    most: f64,
}

impl Objects {
    /// Those of the factory.
    pub(crate) const fn new(lifetime_seconds: u32) -> Self {
        // Never a whole number, unlike what the messages of a run are numbered with.
        let measured = 20.5;
        Self {
            written: Vec::new(),
            attributes: Vec::new(),
            instances: None,
            firmware: None,
            lifetime_seconds,
            short_id: 1,
            measured,
            least: measured,
            most: measured,
        }
    }

    /// The instances in the order of their paths.
    pub(crate) fn instances(&self) -> &[(u16, u16)] {
        self.instances.as_deref().unwrap_or(&INSTANCES)
    }

    pub(crate) const fn measured(&self) -> f64 {
        self.measured
    }

    /// Another value is measured.
    pub(crate) fn measure(&mut self, value: f64) {
        self.measured = value;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    pub(crate) fn firmware(&self) -> Option<&Firmware> {
        self.firmware.as_deref()
    }

    pub(crate) fn firmware_mut(&mut self) -> &mut Firmware {
        self.firmware.get_or_insert_default()
    }

    /// Whether `path` names something of this device, readable or not.
    pub(crate) fn has(&self, path: &Path) -> bool {
        let Some(object) = path.object_id() else { return true };
        let instance = path.instance_id();
        let is_there = |(one, id): &(u16, u16)| {
            *one == object && instance.is_none_or(|instance| instance == *id)
        };
        self.instances().iter().any(is_there)
            && path.resource_id().is_none_or(|id| resource(object, id).is_some())
    }

    /// Read (§6.3.1): all readable values below `path`.
    pub(crate) fn read(&self, facts: &Facts<'_>, path: &Path) -> Result<Vec<Record>, Code> {
        if path.object_id() == Some(SECURITY) {
            return Err(Code::UNAUTHORIZED);
        }
        if !self.has(path) {
            return Err(Code::NOT_FOUND);
        }
        if let (Some(object), Some(id)) = (path.object_id(), path.resource_id())
            && resource(object, id).is_some_and(|resource| !resource.access.is_readable())
        {
            return Err(Code::METHOD_NOT_ALLOWED);
        }
        let mut records = Vec::new();
        for (object, instance) in self.instances() {
            let within = Path::instance(*object, *instance);
            if path.contains(&within) || within.contains(path) {
                for resource in resources(*object) {
                    self.read_resource(facts, (*instance, resource), path, &mut records);
                }
            }
        }
        match path.resource_instance_id() {
            Some(_) if records.is_empty() => Err(Code::NOT_FOUND),
            _ => Ok(records),
        }
    }

    fn read_resource(
        &self,
        facts: &Facts<'_>,
        (instance, resource): (u16, &Resource),
        wanted: &Path,
        records: &mut Vec<Record>,
    ) {
        let path = Path::resource(resource.object, instance, resource.id);
        if !resource.access.is_readable() || !(wanted.contains(&path) || path.contains(wanted)) {
            return;
        }
        let values: Vec<(Path, Value)> = if self.written.iter().any(|(at, _)| path.contains(at)) {
            self.written.iter().filter(|(at, _)| path.contains(at)).cloned().collect()
        } else {
            let values = self.own_values(facts, resource.object, resource.id);
            let numbered = (0..).zip(values).filter_map(|(number, value)| {
                let at = if resource.is_multiple { path.child(number) } else { Some(path) };
                at.map(|at| (at, value))
            });
            numbered.collect()
        };
        let values = values.into_iter().filter(|(at, _)| wanted.contains(at));
        records.extend(values.map(|(at, value)| Record::new(at, value)));
    }

    /// What a resource says that has not been written.
    fn own_values(&self, facts: &Facts<'_>, object: u16, id: u16) -> Vec<Value> {
        let text = |text: &str| vec![Value::String(text.to_owned())];
        let number = |number: i64| vec![Value::Integer(number)];
        let firmware = self.firmware();
        match (object, id) {
            (SERVER, 0) => number(self.short_id.into()),
            (SERVER, 1) => number(self.lifetime_seconds.into()),
            (SERVER, 7) | (DEVICE, 16) => text(facts.binding),
            (DEVICE, 2) => text(facts.endpoint),
            (DEVICE, 3) => match firmware.filter(|firmware| !firmware.version.is_empty()) {
                Some(firmware) => text(&firmware.version),
                None => text("1.0"),
            },
            (DEVICE, 13) => vec![Value::Time(facts.unix_seconds)],
            (4, 4) => text(&facts.address.to_string()),
            (FIRMWARE, 1) => text(firmware.map_or("", |firmware| &firmware.uri)),
            (FIRMWARE, 3) => number(firmware.map_or(0, |firmware| firmware.state as i64)),
            (FIRMWARE, 5) => number(firmware.map_or(0, |firmware| firmware.outcome as i64)),
            (FIRMWARE, 7) => text(firmware.map_or("", |firmware| &firmware.package_version)),
            // Somewhere in Germany, each device a little further north-east.
            (LOCATION, 0) => vec![Value::Float(50.0 + f64::from(facts.index % 1_000) / 1_000.0)],
            (LOCATION, 1) => vec![Value::Float(8.0 + f64::from(facts.index % 997) / 1_000.0)],
            (LOCATION, 5) => vec![Value::Time(facts.unix_seconds)],
            (TEMPERATURE, 5601) => vec![Value::Float(self.least)],
            (TEMPERATURE, 5602) => vec![Value::Float(self.most)],
            (TEMPERATURE, 5700) => vec![Value::Float(self.measured)],
            _ => factory_values(object, id),
        }
    }

    /// Write (§6.3.3 and §6.3.4) of records below `path`, all or none.
    pub(crate) fn write(
        &mut self,
        facts: &Facts<'_>,
        (path, mode): (&Path, Mode),
        records: Vec<Record>,
    ) -> Result<Option<Effect>, Code> {
        if path.object_id() == Some(SECURITY) {
            return Err(Code::UNAUTHORIZED);
        }
        if !self.has(path) {
            return Err(Code::NOT_FOUND);
        }
        let checked: Result<Vec<_>, Code> =
            records.into_iter().map(|record| self.check(path, record)).collect();
        let checked = checked?;
        let names_resource = path.resource_id().is_some();
        if names_resource && checked.is_empty() && mode == Mode::Replace {
            let (object, id) = (path.object_id(), path.resource_id());
            let is_multiple = object.zip(id).and_then(|(object, id)| resource(object, id));
            if !is_multiple.is_some_and(|resource| resource.is_multiple) {
                return Err(Code::BAD_REQUEST);
            }
        }
        let is_new = |at: &Path| !self.written.iter().any(|(one, _)| one == at);
        if self.written.len() + checked.iter().filter(|(at, _)| is_new(at)).count() > WRITTEN_MAX {
            return Err(Code::INTERNAL_SERVER_ERROR);
        }
        if mode == Mode::Replace {
            self.written.retain(|(at, _)| !path.contains(at));
        }
        let mut effect = None;
        for (at, value) in checked {
            effect = self.put(facts, at, value).or(effect);
        }
        Ok(effect)
    }

    /// Where a record goes and what it holds; refused where it may not be written.
    fn check(&self, within: &Path, record: Record) -> Result<(Path, Value), Code> {
        let Record { path, value, .. } = record;
        let (Some(object), Some(id)) = (path.object_id(), path.resource_id()) else {
            return Err(Code::BAD_REQUEST);
        };
        if !within.contains(&path) {
            return Err(Code::BAD_REQUEST);
        }
        let found = resource(object, id).filter(|_| self.has(&path)).ok_or(Code::NOT_FOUND)?;
        if !found.access.is_writable() {
            return Err(Code::METHOD_NOT_ALLOWED);
        }
        if path.resource_instance_id().is_some() && !found.is_multiple {
            return Err(Code::BAD_REQUEST);
        }
        Ok((path, coerce(found.kind, value).ok_or(Code::BAD_REQUEST)?))
    }

    fn put(&mut self, facts: &Facts<'_>, at: Path, value: Value) -> Option<Effect> {
        match (at.object_id(), at.resource_id(), value) {
            (Some(SERVER), Some(1), Value::Integer(seconds)) => {
                self.lifetime_seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
                Some(Effect::Update)
            }
            (Some(FIRMWARE), Some(0), Value::Opaque(package)) => {
                self.firmware_mut().take_package(&package, facts.firmware);
                None
            }
            (Some(FIRMWARE), Some(1), Value::String(uri)) => {
                self.firmware_mut().take_uri(&uri).then_some(Effect::Fetch)
            }
            (_, _, value) => {
                match self.written.binary_search_by(|(one, _)| one.cmp(&at)) {
                    Ok(place) => self.written[place].1 = value,
                    Err(place) => self.written.insert(place, (at, value)),
                }
                None
            }
        }
    }

    /// Writes what a bootstrap server says of object 1.
    pub(crate) fn configure(&mut self, id: u16, value: Value) {
        match (id, value) {
            (0, Value::Integer(number)) => self.short_id = u16::try_from(number).unwrap_or(0),
            (1, Value::Integer(seconds)) => {
                self.lifetime_seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            }
            // The binding is what the run says.
            (7, _) => {}
            (_, value) if self.written.len() < WRITTEN_MAX => {
                let at = Path::resource(SERVER, 0, id);
                self.written.retain(|(one, _)| *one != at);
                let place = self.written.partition_point(|(one, _)| *one < at);
                self.written.insert(place, (at, value));
            }
            _ => {}
        }
    }

    /// Execute (§6.3.5).
    pub(crate) fn execute(&mut self, path: &Path) -> Result<Option<Effect>, Code> {
        let (Some(object), Some(id)) = (path.object_id(), path.resource_id()) else {
            return Err(Code::METHOD_NOT_ALLOWED);
        };
        let found = resource(object, id).filter(|_| self.has(path)).ok_or(Code::NOT_FOUND)?;
        if found.access != Access::Execute {
            return Err(Code::METHOD_NOT_ALLOWED);
        }
        match (object, id) {
            (SERVER, 8) => Ok(Some(Effect::Update)),
            (SERVER, 9) => Ok(Some(Effect::Bootstrap)),
            (DEVICE, 4) => Ok(Some(Effect::Reboot)),
            (DEVICE, 5) => {
                *self = Self::new(self.lifetime_seconds);
                Ok(Some(Effect::Reboot))
            }
            (FIRMWARE, 2) if self.firmware_mut().begin_update() => Ok(Some(Effect::Install)),
            (FIRMWARE, 2) => Err(Code::METHOD_NOT_ALLOWED),
            (TEMPERATURE, 5605) => {
                (self.least, self.most) = (self.measured, self.measured);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Create (§6.3.6): the new instance, which the records name or the device chooses.
    pub(crate) fn create(
        &mut self,
        facts: &Facts<'_>,
        object: u16,
        records: Vec<Record>,
    ) -> Result<u16, Code> {
        if !self.has(&Path::object(object)) && !is_creatable(object) {
            return Err(Code::NOT_FOUND);
        }
        if !is_creatable(object) {
            return Err(Code::METHOD_NOT_ALLOWED);
        }
        let instances = self.instances();
        let taken = |id: u16| instances.contains(&(object, id));
        let named = records.first().and_then(|record| record.path.instance_id());
        let free = (0..u16::MAX).find(|id| !taken(*id)).ok_or(Code::INTERNAL_SERVER_ERROR)?;
        let instance = named.unwrap_or(free);
        if taken(instance) {
            return Err(Code::BAD_REQUEST);
        }
        if instances.len() >= INSTANCES_MAX {
            return Err(Code::INTERNAL_SERVER_ERROR);
        }
        let before = self.instances.clone();
        let mut all = instances.to_vec();
        all.push((object, instance));
        all.sort_unstable();
        self.instances = Some(all.into_boxed_slice());
        let path = Path::instance(object, instance);
        if let Err(code) = self.write(facts, (&path, Mode::Update), records) {
            self.instances = before;
            return Err(code);
        }
        Ok(instance)
    }

    /// Delete (§6.3.7) of one instance.
    pub(crate) fn delete(&mut self, path: &Path) -> Result<(), Code> {
        let (Some(object), Some(instance), None) =
            (path.object_id(), path.instance_id(), path.resource_id())
        else {
            return Err(Code::METHOD_NOT_ALLOWED);
        };
        if !self.has(path) {
            return Err(Code::NOT_FOUND);
        }
        if !is_creatable(object) {
            return Err(Code::METHOD_NOT_ALLOWED);
        }
        let left = self.instances().iter().filter(|one| **one != (object, instance));
        self.instances = Some(left.copied().collect());
        self.written.retain(|(at, _)| !path.contains(at));
        self.attributes.retain(|(at, _)| !path.contains(at));
        Ok(())
    }

    /// Write-Attributes (§6.3.4).
    pub(crate) fn write_attributes<'q>(
        &mut self,
        path: &Path,
        queries: impl Iterator<Item = &'q str>,
    ) -> Result<(), Code> {
        if path.is_root() || !self.has(path) {
            return Err(Code::NOT_FOUND);
        }
        let attributes = self.own_attributes(path).write(queries).ok_or(Code::BAD_REQUEST)?;
        self.attributes.retain(|(at, _)| at != path);
        if self.attributes.len() >= WRITTEN_MAX {
            return Err(Code::INTERNAL_SERVER_ERROR);
        }
        if attributes != Attributes::default() {
            self.attributes.push((*path, attributes));
        }
        Ok(())
    }

    /// The attributes written at `path` itself.
    pub(crate) fn own_attributes(&self, path: &Path) -> Attributes {
        let found = self.attributes.iter().find(|(at, _)| at == path);
        found.map(|(_, attributes)| *attributes).unwrap_or_default()
    }

    /// The attributes that count at `path`: its own, those of what contains it, and the default
    /// periods of the server object.
    pub(crate) fn attributes(&self, path: &Path) -> Attributes {
        let mut all = self.own_attributes(path);
        let mut above = path.parent();
        while let Some(path) = above {
            all = all.or(self.own_attributes(&path));
            above = path.parent();
        }
        let default = |id| {
            let at = Path::resource(SERVER, 0, id);
            let written = self.written.iter().find(|(one, _)| *one == at);
            match written.map(|(_, value)| value) {
                Some(Value::Integer(seconds)) => u32::try_from(*seconds).ok(),
                _ => None,
            }
        };
        all.or(Attributes { pmin: default(2).or(Some(1)), pmax: default(3), ..Default::default() })
    }
}

/// A value in the type of its resource; formats with few types write one for another.
pub(crate) fn coerce(kind: ResourceType, value: Value) -> Option<Value> {
    if value.kind() == kind {
        return Some(value);
    }
    match (kind, value) {
        (ResourceType::Float, Value::Integer(number)) => Some(Value::Float(number as f64)),
        (ResourceType::Float, Value::Unsigned(number)) => Some(Value::Float(number as f64)),
        (ResourceType::Integer, Value::Unsigned(number)) => {
            i64::try_from(number).ok().map(Value::Integer)
        }
        (ResourceType::Integer, Value::Float(number)) if number.fract() == 0.0 => {
            // Beyond 2^53 the float did not hold the number anyway.
            #[expect(clippy::cast_possible_truncation, reason = "bounded just before")]
            (number.abs() <= 9_007_199_254_740_992.0).then_some(Value::Integer(number as i64))
        }
        (ResourceType::Time, Value::Integer(seconds)) => Some(Value::Time(seconds)),
        (ResourceType::Integer, Value::Time(seconds)) => Some(Value::Integer(seconds)),
        (ResourceType::Opaque, Value::String(text)) => Some(Value::Opaque(text.into_bytes())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lwm2m::firmware::State;
    use crate::lwm2m::table::LIGHT;

    const LIGHT_ON: Path = Path::resource(LIGHT, 0, 5850);
    const RULES: FirmwareRules =
        FirmwareRules { sha256: None, version: None, takes: std::time::Duration::ZERO };

    fn facts() -> Facts<'static> {
        Facts {
            index: 7,
            endpoint: "8988299000000000007",
            address: Ipv4Addr::LOCALHOST,
            unix_seconds: 1_700_000_000,
            binding: "U",
            firmware: &RULES,
        }
    }

    fn objects() -> Objects {
        Objects::new(86_400)
    }

    fn read(objects: &Objects, path: &str) -> Result<Vec<Record>, Code> {
        objects.read(&facts(), &path.parse().unwrap())
    }

    fn write(objects: &mut Objects, path: &str, value: Value) -> Result<Option<Effect>, Code> {
        let path = path.parse().unwrap();
        objects.write(&facts(), (&path, Mode::Replace), vec![Record::new(path, value)])
    }

    #[test]
    fn readable_values_are_read_at_every_depth() {
        let objects = objects();
        let one = read(&objects, "/3/0/2").unwrap();
        assert_eq!(one[0].value, Value::String("8988299000000000007".to_owned()));
        assert_eq!(read(&objects, "/3/0/6").unwrap().len(), 2);
        assert_eq!(read(&objects, "/3/0/6/1").unwrap()[0].value, Value::Integer(5));
        let light = read(&objects, "/3311").unwrap();
        assert_eq!(light.len(), 4);
        assert!(light.is_sorted_by_key(|record| record.path));
        assert!(read(&objects, "/").unwrap().len() > 30);
        for (path, code) in [
            ("/9", Code::NOT_FOUND),
            ("/3/1", Code::NOT_FOUND),
            ("/3/0/99", Code::NOT_FOUND),
            ("/3/0/6/9", Code::NOT_FOUND),
            ("/3/0/4", Code::METHOD_NOT_ALLOWED),
            ("/5/0/0", Code::METHOD_NOT_ALLOWED),
            ("/0/0/5", Code::UNAUTHORIZED),
        ] {
            assert_eq!(read(&objects, path), Err(code), "{path}");
        }
    }

    #[test]
    fn written_values_stay_and_wrong_ones_are_refused() {
        let mut objects = objects();
        assert_eq!(write(&mut objects, "/3311/0/5850", Value::Boolean(true)), Ok(None));
        assert_eq!(read(&objects, "/3311/0/5850").unwrap()[0].value, Value::Boolean(true));
        assert_eq!(write(&mut objects, "/1/0/1", Value::Integer(60)), Ok(Some(Effect::Update)));
        assert_eq!(objects.lifetime_seconds, 60);
        let refused = [
            ("/3/0/0", Value::String("x".to_owned()), Code::METHOD_NOT_ALLOWED),
            ("/3311/0/5850", Value::String("x".to_owned()), Code::BAD_REQUEST),
            ("/3311/0/5999", Value::Integer(1), Code::NOT_FOUND),
            ("/3311/7/5850", Value::Boolean(true), Code::NOT_FOUND),
        ];
        for (path, value, code) in refused {
            assert_eq!(write(&mut objects, path, value), Err(code), "{path}");
        }
    }

    #[test]
    fn replacing_an_instance_forgets_what_is_not_named_and_updating_keeps_it() {
        let mut objects = objects();
        write(&mut objects, "/3311/0/5851", Value::Integer(5)).unwrap();
        let instance = Path::instance(LIGHT, 0);
        let record = || vec![Record::new(LIGHT_ON, Value::Boolean(true))];
        objects.write(&facts(), (&instance, Mode::Update), record()).unwrap();
        assert_eq!(read(&objects, "/3311/0/5851").unwrap()[0].value, Value::Integer(5));
        objects.write(&facts(), (&instance, Mode::Replace), record()).unwrap();
        assert_eq!(read(&objects, "/3311/0/5851").unwrap()[0].value, Value::Integer(100));
    }

    #[test]
    fn instances_come_and_go() {
        let mut objects = objects();
        let on = Record::new(Path::resource(LIGHT, 3, 5850), Value::Boolean(true));
        assert_eq!(objects.create(&facts(), LIGHT, vec![on.clone()]), Ok(3));
        assert_eq!(objects.create(&facts(), LIGHT, vec![on]), Err(Code::BAD_REQUEST));
        assert_eq!(objects.create(&facts(), LIGHT, vec![]), Ok(1));
        assert_eq!(read(&objects, "/3311/3/5850").unwrap()[0].value, Value::Boolean(true));
        let bad = Record::new(Path::resource(LIGHT, 4, 1), Value::Boolean(true));
        assert_eq!(objects.create(&facts(), LIGHT, vec![bad]), Err(Code::NOT_FOUND));
        assert_eq!(objects.instances().len(), 9);
        assert_eq!(objects.create(&facts(), DEVICE, vec![]), Err(Code::METHOD_NOT_ALLOWED));
        assert_eq!(objects.delete(&Path::instance(LIGHT, 3)), Ok(()));
        assert_eq!(objects.delete(&Path::instance(LIGHT, 3)), Err(Code::NOT_FOUND));
        assert_eq!(objects.delete(&Path::instance(DEVICE, 0)), Err(Code::METHOD_NOT_ALLOWED));
    }

    #[test]
    fn executing_resets_reboots_and_installs() {
        let mut objects = objects();
        objects.measure(30.5);
        assert_eq!(objects.execute(&Path::resource(TEMPERATURE, 0, 5605)), Ok(None));
        assert_eq!(read(&objects, "/3303/0/5601").unwrap()[0].value, Value::Float(30.5));
        assert_eq!(objects.execute(&Path::resource(DEVICE, 0, 4)), Ok(Some(Effect::Reboot)));
        assert_eq!(objects.execute(&LIGHT_ON), Err(Code::METHOD_NOT_ALLOWED));
        let update = Path::resource(FIRMWARE, 0, 2);
        assert_eq!(objects.execute(&update), Err(Code::METHOD_NOT_ALLOWED));
        write(&mut objects, "/5/0/0", Value::Opaque(b"version=9\n".to_vec())).unwrap();
        assert_eq!(objects.execute(&update), Ok(Some(Effect::Install)));
        assert_eq!(objects.firmware().unwrap().state, State::Updating);
    }

    #[test]
    fn periods_come_from_the_nearest_path_that_has_some() {
        let mut objects = objects();
        assert_eq!(objects.attributes(&MEASURED).pmin, Some(1));
        let queries = |query: &'static str| query.split('&');
        let object = Path::object(TEMPERATURE);
        objects.write_attributes(&object, queries("pmin=5&pmax=9")).unwrap();
        objects.write_attributes(&MEASURED, queries("pmin=2")).unwrap();
        let found = objects.attributes(&MEASURED);
        assert_eq!((found.pmin, found.pmax), (Some(2), Some(9)));
        let bad = objects.write_attributes(&MEASURED, queries("pmin=x"));
        assert_eq!(bad, Err(Code::BAD_REQUEST));
        let missing = objects.write_attributes(&Path::object(9), queries("pmin=1"));
        assert_eq!(missing, Err(Code::NOT_FOUND));
    }
}
