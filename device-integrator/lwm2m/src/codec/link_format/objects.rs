//! The objects of a registration (LwM2M Core 1.1 §6.2.1, §6.4.1).

use std::fmt;

use coap::wire::ContentFormat;

use super::attributes::Parameter;
use super::scanner::{Link, LinkFormatError, Scanner};
use crate::excerpt::Excerpt;
use crate::path::Path;

/// The resource type of the link that says where the objects begin (LwM2M Core 1.1 §6.2.1).
const ROOT_TYPE: &str = "oma.lwm2m";
/// Bytes of an alternate root path: the specification sets none; one segment is usual.
const ROOT_BYTES_MAX: usize = 64;
/// Content formats that a device can say; the registry has about ten that LwM2M uses.
const FORMATS_MAX: usize = 32;

/// The version of an object: 1.0 unless the registration says another (LwM2M Core 1.1 §7.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectVersion {
    /// Before the dot.
    pub major: u8,
    /// After it.
    pub minor: u8,
}

impl ObjectVersion {
    /// Version 1.0.
    pub const DEFAULT: Self = Self { major: 1, minor: 0 };

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let number = |digits: &str| {
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for ObjectVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// An object that a device has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegisteredObject {
    /// Its id.
    pub id: u16,
    /// Its version.
    pub version: ObjectVersion,
    /// The ids of its instances in ascending order; empty if it has none or did not say.
    pub instances: Box<[u16]>,
}

/// What a registration says: kept for each device, so without a byte to spare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ObjectLinks {
    /// Under which path the objects lie, such as "/lwm2m"; `None` for the usual root.
    pub root: Option<Box<str>>,
    /// The formats that the device says it speaks, in its order; empty if it says nothing.
    pub content_formats: Box<[u16]>,
    /// The objects in ascending order of their ids.
    pub objects: Box<[RegisteredObject]>,
}

impl ObjectLinks {
    /// One of the objects.
    pub fn object(&self, id: u16) -> Option<&RegisteredObject> {
        let index = self.objects.binary_search_by_key(&id, |object| object.id).ok()?;
        self.objects.get(index)
    }

    /// Whether the device has the object or the object instance that the path names or lies in.
    pub fn has(&self, path: &Path) -> bool {
        let Some(object) = path.object_id() else {
            return true;
        };
        let instance = path.instance_id();
        self.object(object).is_some_and(|object| {
            instance.is_none_or(|instance| object.instances.binary_search(&instance).is_ok())
        })
    }

    /// Whether the device says that it speaks a format.
    pub fn speaks(&self, format: ContentFormat) -> bool {
        self.content_formats.contains(&format.0)
    }
}

/// Reads the payload of a Register or of an Update. Links that are no LwM2M paths, such as
/// `</.well-known/core>`, are left out; objects are sorted, and each stands once.
pub fn parse(bytes: &[u8]) -> Result<ObjectLinks, LinkFormatError> {
    let root = root_prefix(bytes)?;
    let mut scanner = Scanner::new(bytes)?;
    let mut content_formats: Vec<u16> = Vec::new();
    let mut objects: Vec<(u16, Option<u16>)> = Vec::new();
    let mut versions: Vec<(u16, ObjectVersion)> = Vec::new();
    while let Some(link) = scanner.next()? {
        // The resource type may be left out at the usual root.
        if is_root(&link) || link.target == "/" {
            read_formats(&link, &mut content_formats)?;
        }
        let Some(path) = parse_target(link.target, root.as_deref().unwrap_or(""))? else {
            continue;
        };
        let Some(object) = path.object_id() else {
            continue;
        };
        if path.resource_id().is_some() {
            return Err(LinkFormatError::TooDeep(Excerpt::of(link.target)));
        }
        objects.push((object, path.instance_id()));
        if let Some((_, value)) = link.parameters.iter().find(|(name, _)| *name == "ver") {
            let parameter = Parameter { target: link.target, value: *value };
            versions.push((object, parameter.version()?));
        }
    }
    objects.sort_unstable();
    objects.dedup();
    let objects = objects
        .chunk_by(|left, right| left.0 == right.0)
        .map(|links| registered(links, &versions))
        .collect();
    Ok(ObjectLinks {
        root: root.filter(|root| !root.is_empty()),
        content_formats: content_formats.into_boxed_slice(),
        objects,
    })
}

/// The object of sorted links to it and to its instances.
fn registered(links: &[(u16, Option<u16>)], versions: &[(u16, ObjectVersion)]) -> RegisteredObject {
    let id = links[0].0;
    let version = versions.iter().find(|(object, _)| *object == id);
    RegisteredObject {
        id,
        version: version.map_or(ObjectVersion::DEFAULT, |(_, version)| *version),
        instances: links.iter().filter_map(|(_, instance)| *instance).collect(),
    }
}

fn is_root(link: &Link<'_>) -> bool {
    link.parameters.iter().any(|(name, value)| {
        let types = value.map_or("", |value| value.raw);
        *name == "rt" && types.split(' ').any(|kind| kind == ROOT_TYPE)
    })
}

/// The alternate root path of a list of links, if one says it; the last slash is left out.
pub(super) fn root_prefix(bytes: &[u8]) -> Result<Option<Box<str>>, LinkFormatError> {
    let mut scanner = Scanner::new(bytes)?;
    while let Some(link) = scanner.next()? {
        if !is_root(&link) {
            continue;
        }
        let target = link.target;
        let is_path = target.starts_with('/') && target.len() <= ROOT_BYTES_MAX;
        if !is_path || target.bytes().any(|byte| byte <= b' ' || byte == b'"') {
            return Err(LinkFormatError::Parameter {
                target: Excerpt::of(target),
                name: "rt",
                value: Excerpt::of(ROOT_TYPE),
                expected: "this type only at a path of at most 64 bytes",
            });
        }
        return Ok(Some(target.trim_end_matches('/').into()));
    }
    Ok(None)
}

/// The path of a target below the root; `None` if it is none of LwM2M.
pub(super) fn parse_target(target: &str, root: &str) -> Result<Option<Path>, LinkFormatError> {
    if !target.starts_with('/') {
        // An absolute URI points elsewhere; "1/0" probably means "/1/0", but only probably.
        let is_elsewhere = target.contains("://");
        let refused = || LinkFormatError::Relative(Excerpt::of(target));
        return if is_elsewhere { Ok(None) } else { Err(refused()) };
    }
    let Some(rest) = target.strip_prefix(root) else {
        return Ok(None);
    };
    if rest.is_empty() || rest == "/" {
        return Ok(Some(Path::ROOT));
    }
    // RFC 6690 §4: a device may list resources that have nothing to do with LwM2M.
    let is_ours = rest.strip_prefix('/').is_some_and(|rest| {
        let first = rest.split('/').next().unwrap_or("");
        !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit())
    });
    if !is_ours {
        return Ok(None);
    }
    Path::parse(rest.as_bytes())
        .map(Some)
        .map_err(|error| LinkFormatError::Target { target: Excerpt::of(target), error })
}

/// `ct=110` or `ct="110 112"` (LwM2M Core 1.1 §6.2.1).
fn read_formats(link: &Link<'_>, formats: &mut Vec<u16>) -> Result<(), LinkFormatError> {
    for (_, value) in link.parameters.iter().filter(|(name, _)| *name == "ct") {
        let text = value.map_or("", |value| value.raw);
        for format in text.split(' ').filter(|format| !format.is_empty()) {
            let refused = || LinkFormatError::Parameter {
                target: Excerpt::of(link.target),
                name: "ct",
                value: Excerpt::of(text),
                expected: "at most 32 content formats of 0 to 65535",
            };
            let format = format.parse().map_err(|_| refused())?;
            if !formats.contains(&format) {
                formats.push(format);
            }
            if formats.len() > FORMATS_MAX {
                return Err(refused());
            }
        }
    }
    Ok(())
}

/// Writes the list that [`parse`] reads as the same links.
pub fn write(links: &ObjectLinks) -> String {
    use fmt::Write as _;
    let root = links.root.as_deref().unwrap_or("");
    let mut text = String::with_capacity(32 + links.objects.len() * 12);
    // Writing to a String cannot fail.
    let mut put = |part: fmt::Arguments<'_>| {
        let _ = text.write_fmt(part);
    };
    put(format_args!("<{}>;rt=\"{ROOT_TYPE}\"", if root.is_empty() { "/" } else { root }));
    match &*links.content_formats {
        [] => {}
        [format] => put(format_args!(";ct={format}")),
        [first, rest @ ..] => {
            put(format_args!(";ct=\"{first}"));
            rest.iter().for_each(|format| put(format_args!(" {format}")));
            put(format_args!("\""));
        }
    }
    for object in &links.objects {
        let has_version = object.version != ObjectVersion::DEFAULT;
        if has_version || object.instances.is_empty() {
            put(format_args!(",<{root}/{}>", object.id));
        }
        if has_version {
            put(format_args!(";ver={}", object.version));
        }
        for instance in &object.instances {
            put(format_args!(",<{root}/{}/{instance}>", object.id));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn objects(links: &ObjectLinks) -> Vec<(u16, String, Vec<u16>)> {
        let object = |object: &RegisteredObject| {
            (object.id, object.version.to_string(), object.instances.to_vec())
        };
        links.objects.iter().map(object).collect()
    }

    #[test]
    fn the_examples_of_the_specification_are_read() {
        // LwM2M Core 1.1 §6.2.1.
        let text = b"</>;rt=\"oma.lwm2m\";ct=11543,</1/0>,</1/1>,</2/0>,</2/1>,</3/0>,</4/0>,</5>";
        let links = parse(text).unwrap();
        assert_eq!(links.root, None);
        assert!(links.speaks(ContentFormat::LWM2M_JSON));
        let version = || "1.0".to_owned();
        let expected = [
            (1, version(), vec![0, 1]),
            (2, version(), vec![0, 1]),
            (3, version(), vec![0]),
            (4, version(), vec![0]),
            (5, version(), vec![]),
        ];
        assert_eq!(objects(&links), expected);

        let links = parse(
            b"</lwm2m>;ct=\"110 112 110\";rt=\"oma.lwm2m\",</lwm2m/1/0>,</lwm2m/3>;ver=\"1.1\",\
                            </lwm2m/3/0>,</lwm2m/3/0>,</3/7>,</.well-known/core>;ct=40",
        )
        .unwrap();
        assert_eq!(links.root.as_deref(), Some("/lwm2m"));
        assert_eq!(&*links.content_formats, [110, 112]);
        let expected = [(1, version(), vec![0]), (3, "1.1".to_owned(), vec![0])];
        assert_eq!(objects(&links), expected);
        assert!(links.has(&Path::resource(3, 0, 1)) && links.has(&Path::ROOT));
        assert!(!links.has(&Path::instance(3, 1)) && !links.has(&Path::object(4)));
    }

    #[test]
    fn the_usual_root_needs_no_resource_type() {
        let links = parse(b"</>;ct=\"60 110\", </1/0>").unwrap();
        assert_eq!((&*links.content_formats, links.objects.len()), (&[60, 110][..], 1));
    }

    #[test]
    fn versions_are_read_with_and_without_quotation_marks() {
        for text in ["</3>;ver=1.2,</3/0>", "</3/0>,</3>;ver=\"1.2\"", "</3/0>;ver=1.2"] {
            let links = parse(text.as_bytes()).unwrap();
            assert_eq!(links.objects[0].version.to_string(), "1.2", "{text}");
        }
        for text in ["</3>;ver", "</3>;ver=1", "</3>;ver=1.", "</3>;ver=1.+1", "</3>;ver=256.0"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_registration_is_refused_with_the_reason() {
        for (text, told) in [
            ("<1/0>", "link <\"1/0\"> must begin with a slash, as in </1/0>"),
            ("</3/0/1>", "link \"/3/0/1\" names more than an object instance"),
            (
                "</3/65535>",
                "link \"/3/65535\": path \"/3/65535\" has a part that is not an id of \
              0 to 65534 in plain decimal",
            ),
            (
                "</>;rt=\"oma.lwm2m\";ct=x",
                "link \"/\": parameter ct has the value \"x\", expected: \
              at most 32 content formats of 0 to 65535",
            ),
            ("1/0", "malformed at byte 0: expected a link in angle brackets"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), told);
        }
        assert_eq!(parse(b"").unwrap(), ObjectLinks::default());
        assert!(parse(b"coap://x").is_err());
        assert_eq!(parse(b"<coap://x/3>").unwrap(), ObjectLinks::default());
    }

    #[test]
    fn the_usual_registration_takes_little_memory() {
        assert!(size_of::<RegisteredObject>() <= 24);
        assert!(size_of::<ObjectLinks>() <= 48);
    }

    prop_compose! {
        fn any_links()(
            root in proptest::option::of("(/[a-z][a-z0-9]{0,8}){1,3}"),
            formats in proptest::collection::btree_set(any::<u16>(), 0..6),
            objects in proptest::collection::btree_map(
                0..65535_u16,
                (any::<(u8, u8)>(), proptest::collection::btree_set(0..65535_u16, 0..4)),
                0..20,
            ),
        ) -> ObjectLinks {
            let object = |(id, (version, instances)): (u16, ((u8, u8), BTreeSet<u16>))| {
                let version = ObjectVersion { major: version.0, minor: version.1 };
                RegisteredObject { id, version, instances: instances.into_iter().collect() }
            };
            ObjectLinks {
                root: root.map(Into::into),
                content_formats: formats.into_iter().collect(),
                objects: objects.into_iter().map(object).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same(links in any_links()) {
            prop_assert_eq!(parse(write(&links).as_bytes()), Ok(links));
        }
    }
}
