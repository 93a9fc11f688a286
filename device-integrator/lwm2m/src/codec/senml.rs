//! What SenML means (RFC 8428 §4), whatever it is written in; and the LwM2M JSON of 1.0, its
//! ancestor.

use std::borrow::Cow;

use super::typing::{Number, Raw, typed};
use super::{Context, DecodeError, EncodeError};
use crate::excerpt::Excerpt;
use crate::path::{Path, PathError};
use crate::record::{Record, resolve_time};

/// The version of SenML that RFC 8428 defines (§4.1).
const VERSION: i64 = 10;

/// The fields of one record that matter.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) base_name: Option<Cow<'a, str>>,
    pub(super) base_time: Option<f64>,
    pub(super) base_value: Option<Number>,
    pub(super) base_version: Option<Number>,
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) time: Option<f64>,
    pub(super) value: Option<Raw>,
}

impl Fields<'_> {
    /// A record has one value.
    pub(super) fn set_value(&mut self, value: Raw) -> bool {
        self.value.replace(value).is_none()
    }

    /// Whether the record only sets base fields for those that follow.
    const fn is_base_only(&self) -> bool {
        self.name.is_none() && self.value.is_none() && self.time.is_none()
    }
}

/// Resolves records one after another (RFC 8428 §4.6): a base field holds from its own record on.
pub(super) struct Resolver {
    base_name: String,
    base_time: f64,
    base_value: Option<Number>,
    /// Whether a name without a leading slash is relative to the path addressed: so in the JSON
    /// of LwM2M 1.0 (§6.4.4), where the base name may be left out.
    is_relative: bool,
    scratch: String,
}

impl Resolver {
    pub(super) const fn new(is_relative: bool) -> Self {
        Self {
            base_name: String::new(),
            base_time: 0.0,
            base_value: None,
            is_relative,
            scratch: String::new(),
        }
    }

    fn take_base(&mut self, fields: &mut Fields<'_>) -> Result<(), DecodeError> {
        if let Some(name) = &fields.base_name {
            self.base_name.clear();
            self.base_name.push_str(name);
        }
        if let Some(time) = fields.base_time {
            self.base_time = time;
        }
        if let Some(value) = fields.base_value {
            self.base_value = Some(value);
        }
        match fields.base_version {
            Some(Number::Integer(version)) if version > VERSION => {
                Err(DecodeError::Version { version })
            }
            _ => Ok(()),
        }
    }

    /// The path of a record.
    fn path(&mut self, base: &Path, name: Option<&str>) -> Result<Path, PathError> {
        let name = name.unwrap_or("");
        if self.base_name.is_empty() && !self.is_relative {
            return Path::parse(name.as_bytes());
        }
        self.scratch.clear();
        self.scratch.push_str(&self.base_name);
        self.scratch.push_str(name);
        if !self.is_relative || self.scratch.starts_with('/') {
            return Path::parse(self.scratch.as_bytes());
        }
        let mut path = *base;
        for part in self.scratch.split('/').filter(|_| !self.scratch.is_empty()) {
            let id = crate::path::parse_id(part.as_bytes());
            let excerpt = || Excerpt::of(&self.scratch);
            path = id.and_then(|id| path.child(id)).ok_or_else(|| PathError::Id(excerpt()))?;
        }
        Ok(path)
    }

    /// The next record with a value; `None` if it only sets base fields.
    pub(super) fn record(
        &mut self,
        context: Context<'_>,
        mut fields: Fields<'_>,
    ) -> Result<Option<Record>, DecodeError> {
        self.take_base(&mut fields)?;
        if fields.is_base_only() {
            return Ok(None);
        }
        let path = self.path(context.base, fields.name.as_deref())?;
        if !context.base.contains(&path) {
            return Err(DecodeError::Outside { path, base: *context.base });
        }
        if path.ids().len() < 3 {
            return Err(DecodeError::NotAValue(path));
        }
        let raw = match (fields.value, self.base_value) {
            (Some(Raw::Number(number)), Some(base)) => Raw::Number(number.plus(base)),
            (Some(raw), _) => raw,
            // A base value alone is a value where the record has none (RFC 8428 §4.5.4).
            (None, Some(base)) => Raw::Number(base),
            (None, None) => return Err(DecodeError::NoValue(path)),
        };
        let sum = self.base_time + fields.time.unwrap_or(0.0);
        let time = resolve_time(sum, context.received_at_unix);
        Ok(Some(Record { path, value: typed(&path, raw, context.model)?, time }))
    }

    /// The next path of a list of paths.
    pub(super) fn path_only(
        &mut self,
        mut fields: Fields<'_>,
    ) -> Result<Option<Path>, DecodeError> {
        self.take_base(&mut fields)?;
        // A base name alone is a path too.
        if fields.is_base_only() && fields.base_name.is_none() {
            return Ok(None);
        }
        let path = self.path(&Path::ROOT, fields.name.as_deref())?;
        if fields.value.is_some() {
            return Err(DecodeError::Valued(path));
        }
        Ok(Some(path))
    }
}

/// How records are written: what they share stands once, in the first.
pub(super) struct Shared {
    /// Ends with a slash, unless all records have one path.
    pub(super) base_name: String,
    /// The time of all records.
    pub(super) base_time: Option<f64>,
    /// How many ids of each path the base name holds.
    ids: usize,
}

impl Shared {
    pub(super) fn of(records: &[Record]) -> Result<Self, EncodeError> {
        let first = records.first();
        let base_time = first.and_then(|first| first.time);
        let same_time = records.iter().all(|record| record.time == base_time);
        for record in records {
            check_time(record)?;
        }
        let mut common = first.map_or(Path::ROOT, |first| first.path);
        let same_path = records.iter().all(|record| record.path == common);
        if !same_path {
            // Above every record, so that each has a name of its own.
            for record in records {
                while common.contains(&record.path) && common == record.path
                    || !common.contains(&record.path)
                {
                    common = common.parent().unwrap_or(Path::ROOT);
                }
            }
        }
        let mut base_name = common.to_string();
        if !same_path && !common.is_root() {
            base_name.push('/');
        }
        let base_time = base_time.filter(|_| same_time);
        Ok(Self { base_name, base_time, ids: common.ids().len() })
    }

    /// The name of a record, relative to the base name; empty where that says all.
    pub(super) fn name(&self, record: &Record, name: &mut Vec<u8>) {
        name.clear();
        for id in &record.path.ids()[self.ids..] {
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend_from_slice(itoa::Buffer::new().format(*id).as_bytes());
        }
    }

    /// The time of a record, unless all share one.
    pub(super) fn time(&self, record: &Record) -> Option<f64> {
        record.time.filter(|_| self.base_time.is_none())
    }
}

fn check_time(record: &Record) -> Result<(), EncodeError> {
    match record.time {
        Some(seconds) if resolve_time(seconds, f64::NAN) != Some(seconds) => {
            Err(EncodeError::Time { path: record.path, seconds })
        }
        _ => Ok(()),
    }
}
