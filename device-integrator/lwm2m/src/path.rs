//! Where a value lives: object, instance, resource, resource instance (OMA LwM2M Core 1.1 §6.1).

use std::fmt;
use std::str::FromStr;

use crate::excerpt::Excerpt;

/// Most ids of a path: object, object instance, resource, resource instance.
const IDS_MAX: usize = 4;
/// The id that stands for "no such thing" and never names anything (LwM2M Core 1.1 §7.3, `MAX_ID`).
const RESERVED: u16 = u16::MAX;

/// A path of zero to four ids; the root has none.
///
/// Paths are ordered id by id, and each one stands before what it contains.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    // Ids beyond `len` are zero, so the derived order and equality are those of the ids.
    ids: [u16; IDS_MAX],
    len: u8,
}

impl Path {
    /// "/": everything that a device has.
    pub const ROOT: Self = Self { ids: [0; IDS_MAX], len: 0 };

    /// "/object". The constructors are for ids that are known to be legal; ids that come from
    /// elsewhere go through [`Path::child`] or [`Path::from_str`], which refuse the reserved 65535.
    pub const fn object(object: u16) -> Self {
        Self { ids: [object, 0, 0, 0], len: 1 }
    }

    /// "/object/instance".
    pub const fn instance(object: u16, instance: u16) -> Self {
        Self { ids: [object, instance, 0, 0], len: 2 }
    }

    /// "/object/instance/resource".
    pub const fn resource(object: u16, instance: u16, resource: u16) -> Self {
        Self { ids: [object, instance, resource, 0], len: 3 }
    }

    /// "/object/instance/resource/resource instance".
    pub const fn resource_instance(
        object: u16,
        instance: u16,
        resource: u16,
        resource_instance: u16,
    ) -> Self {
        Self { ids: [object, instance, resource, resource_instance], len: 4 }
    }

    /// The ids, the object's first.
    pub fn ids(&self) -> &[u16] {
        &self.ids[..usize::from(self.len)]
    }

    /// Whether this is the root.
    pub const fn is_root(&self) -> bool {
        self.len == 0
    }

    /// The object, unless this is the root.
    pub fn object_id(&self) -> Option<u16> {
        self.ids().first().copied()
    }

    /// The object instance, if the path goes that far.
    pub fn instance_id(&self) -> Option<u16> {
        self.ids().get(1).copied()
    }

    /// The resource, if the path goes that far.
    pub fn resource_id(&self) -> Option<u16> {
        self.ids().get(2).copied()
    }

    /// The resource instance, if the path goes that far.
    pub fn resource_instance_id(&self) -> Option<u16> {
        self.ids().get(3).copied()
    }

    /// The path one id longer; `None` below a resource instance and for the reserved id 65535.
    pub fn child(&self, id: u16) -> Option<Self> {
        let mut child = *self;
        *child.ids.get_mut(usize::from(self.len))? = id;
        child.len += 1;
        (id != RESERVED).then_some(child)
    }

    /// The path one id shorter; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let mut parent = *self;
        parent.len = self.len.checked_sub(1)?;
        parent.ids[usize::from(parent.len)] = 0;
        Some(parent)
    }

    /// Whether `other` is this path or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        other.ids().starts_with(self.ids())
    }

    /// Appends the form of [`fmt::Display`] to a text, without a formatter in between.
    pub(crate) fn write(&self, text: &mut Vec<u8>) {
        if self.is_root() {
            text.push(b'/');
        }
        for id in self.ids() {
            text.push(b'/');
            text.extend_from_slice(itoa::Buffer::new().format(*id).as_bytes());
        }
    }

    /// Reads "/3311/0/5850"; only the canonical form.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        let excerpt = || Excerpt::of(bytes);
        let Some((b'/', rest)) = bytes.split_first() else {
            return Err(PathError::NoSlash(excerpt()));
        };
        if rest.is_empty() {
            return Ok(Self::ROOT);
        }
        let mut path = Self::ROOT;
        for part in rest.split(|byte| *byte == b'/') {
            if usize::from(path.len) == IDS_MAX {
                return Err(PathError::TooLong(excerpt()));
            }
            let id = parse_id(part);
            path = id.and_then(|id| path.child(id)).ok_or_else(|| PathError::Id(excerpt()))?;
        }
        Ok(path)
    }
}

/// A decimal of 0 to 65535 without leading zeros.
pub(crate) fn parse_id(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut id = 0_u32;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        id = id * 10 + u32::from(digit - b'0');
    }
    u16::try_from(id).ok()
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return formatter.write_str("/");
        }
        self.ids().iter().try_for_each(|id| write!(formatter, "/{id}"))
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text.as_bytes())
    }
}

/// Why a text is not a path; the fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("path {0} does not begin with /")]
    NoSlash(Excerpt),
    /// It has more ids than an LwM2M path can have.
    #[error("path {0} has more than the 4 ids of object, instance, resource, resource instance")]
    TooLong(Excerpt),
    /// One of its parts is not an id.
    #[error("path {0} has a part that is not an id of 0 to 65534 in plain decimal")]
    Id(Excerpt),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_reads_as_it_is_written() {
        for (text, path) in [
            ("/", Path::ROOT),
            ("/3", Path::object(3)),
            ("/3/0", Path::instance(3, 0)),
            ("/3311/0/5850", Path::resource(3311, 0, 5850)),
            ("/65534/65534/65534/65534", Path::resource_instance(65534, 65534, 65534, 65534)),
        ] {
            assert_eq!(text.parse(), Ok(path));
            assert_eq!(path.to_string(), text);
            let mut written = Vec::new();
            path.write(&mut written);
            assert_eq!(written, text.as_bytes());
        }
        assert!(size_of::<Path>() <= 10);
    }

    #[test]
    fn only_the_canonical_form_is_accepted() {
        let refused = [
            "",
            "3",
            "3/0",
            "//",
            "/3/",
            "/3//1",
            "/03",
            "/+3",
            "/-1",
            "/65535",
            "/65536",
            "/99999",
            "/100000",
            "/3 ",
            " /3",
            "/3/0/0/0/0",
            "/a",
            "/3/0/x",
            "/\u{663}",
        ];
        for text in refused {
            assert!(text.parse::<Path>().is_err(), "{text:?}");
        }
        let error = "/3/0/65535".parse::<Path>().unwrap_err();
        let told =
            "path \"/3/0/65535\" has a part that is not an id of 0 to 65534 in plain decimal";
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn children_end_at_the_resource_instance() {
        let path = Path::ROOT.child(3).and_then(|path| path.child(0)).unwrap();
        assert_eq!(path, Path::instance(3, 0));
        assert_eq!(Path::resource_instance(3, 0, 7, 1).child(0), None);
        assert_eq!(Path::ROOT.child(65535), None);
        assert_eq!(Path::ROOT.parent(), None);
        assert_eq!(Path::resource(3, 9, 7).parent(), Some(Path::instance(3, 9)));
        assert_eq!(Path::resource(3, 9, 7).object_id(), Some(3));
        assert_eq!(Path::resource(3, 9, 7).instance_id(), Some(9));
        assert_eq!(Path::resource(3, 9, 7).resource_id(), Some(7));
        assert_eq!(Path::resource(3, 9, 7).resource_instance_id(), None);
    }

    #[test]
    fn a_path_contains_itself_and_what_lies_below() {
        let instance = Path::instance(3, 0);
        assert!(instance.contains(&instance));
        assert!(instance.contains(&Path::resource(3, 0, 0)));
        assert!(!instance.contains(&Path::object(3)));
        assert!(!instance.contains(&Path::resource(3, 1, 0)));
        assert!(Path::ROOT.contains(&Path::ROOT));
        assert!(!Path::object(3).contains(&Path::object(33)));
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_ids(
            left in proptest::collection::vec(0..3_u16, 0..5),
            right in proptest::collection::vec(0..3_u16, 0..5),
        ) {
            let path = |ids: &[u16]| {
                ids.iter().fold(Path::ROOT, |path, id| path.child(*id).unwrap())
            };
            prop_assert_eq!(path(&left).cmp(&path(&right)), left.cmp(&right));
            prop_assert_eq!(path(&left).to_string().parse(), Ok(path(&left)));
        }
    }
}
