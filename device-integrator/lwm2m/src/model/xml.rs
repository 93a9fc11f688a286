//! Object definition files (DDF) of the OMA registry (LwM2M Core 1.1 Appendix D).

use std::borrow::Cow;

use roxmltree::{Document, Node, ParsingOptions};

use super::{ObjectInfo, Operations, ResourceInfo, Text};
use crate::excerpt::Excerpt;
use crate::limits::{XML_BYTES_MAX, XML_NODES_MAX};
use crate::value::ResourceType;

/// Why a definition file cannot be used; the fault of whoever wrote or chose it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// The file is too large.
    #[error("{file}: {bytes} bytes exceed the limit of {XML_BYTES_MAX}")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: usize,
    },
    /// The file is not UTF-8.
    #[error("{file}: not UTF-8 from byte {byte} on")]
    NotUtf8 {
        /// The file.
        file: String,
        /// Where it stops to be.
        byte: usize,
    },
    /// The file is no well-formed XML, or uses a part of XML that is refused: document types,
    /// which can define entities, and more than 100,000 elements and attributes.
    #[error("{file}:{line}: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// The line of the defect, from 1.
        line: u32,
        /// What is wrong.
        reason: String,
    },
    /// The XML is not the definition of an object.
    #[error("{file}:{line}: {element} {defect}")]
    Definition {
        /// The file.
        file: String,
        /// The line of the defect, from 1.
        line: u32,
        /// The element or attribute concerned.
        element: &'static str,
        /// What is wrong with it.
        defect: Defect,
    },
}

/// What is wrong with an element of a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It says something that the schema does not allow.
    #[error("has the value {found}, expected: {expected}")]
    Value {
        /// What it says.
        found: Excerpt,
        /// What it may say.
        expected: &'static str,
    },
    /// The same id stands there twice.
    #[error("{0} stands there twice")]
    Twice(u16),
}

/// The file in hand.
struct Source<'a> {
    name: &'a str,
    document: &'a Document<'a>,
}

/// Reads the objects of one file, one or more.
pub(super) fn parse(bytes: &[u8], source_name: &str) -> Result<Vec<ObjectInfo>, XmlError> {
    let file = || source_name.to_owned();
    if bytes.len() > XML_BYTES_MAX {
        return Err(XmlError::TooLarge { file: file(), bytes: bytes.len() });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| XmlError::NotUtf8 { file: file(), byte: error.valid_up_to() })?;
    // No document type means no entity beside the five of XML itself.
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: XML_NODES_MAX, ..Default::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| {
        // Its text may quote the file at any length.
        let reason: String = error.to_string().chars().take(200).collect();
        XmlError::Malformed { file: file(), line: error.pos().row, reason }
    })?;
    let source = Source { name: source_name, document: &document };
    let root = document.root_element();
    let mut objects = Vec::new();
    for node in root.children().filter(|node| node.has_tag_name("Object")) {
        let object = source.object(node)?;
        if objects.iter().any(|known: &ObjectInfo| known.id == object.id) {
            return Err(source.defect(node, "ObjectID", Defect::Twice(object.id)));
        }
        objects.push(object);
    }
    if root.has_tag_name("LWM2M") && !objects.is_empty() {
        Ok(objects)
    } else {
        Err(source.defect(root, "LWM2M/Object", Defect::Missing))
    }
}

impl Source<'_> {
    fn defect(&self, node: Node<'_, '_>, element: &'static str, defect: Defect) -> XmlError {
        let line = self.document.text_pos_at(node.range().start).row;
        XmlError::Definition { file: self.name.to_owned(), line, element, defect }
    }

    fn object(&self, node: Node<'_, '_>) -> Result<ObjectInfo, XmlError> {
        let resources = child(node, "Resources")
            .ok_or_else(|| self.defect(node, "Resources", Defect::Missing))?;
        let mut found = Vec::new();
        for item in resources.children().filter(|node| node.has_tag_name("Item")) {
            found.push(self.resource(item)?);
        }
        found.sort_by_key(|resource| resource.id);
        if let Some(pair) = found.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(self.defect(resources, "Item", Defect::Twice(pair[0].id)));
        }
        let version = text(node, "ObjectVersion").filter(|version| !version.is_empty());
        Ok(ObjectInfo {
            id: self.id(node, "ObjectID", text(node, "ObjectID"))?,
            name: owned(self.required(node, "Name")?),
            // LwM2M Core 1.1 §7.2.2: a definition without a version is of version 1.0.
            version: owned(version.unwrap_or("1.0")),
            multiple: self.choice(node, "MultipleInstances", ["Single", "Multiple"])?,
            mandatory: self.choice(node, "Mandatory", ["Optional", "Mandatory"])?,
            resources: found,
        })
    }

    fn resource(&self, node: Node<'_, '_>) -> Result<ResourceInfo, XmlError> {
        let operations = match text(node, "Operations").unwrap_or("") {
            "" => Operations::NONE,
            "R" => Operations::READ,
            "W" => Operations::WRITE,
            "RW" => Operations::READ_WRITE,
            "E" => Operations::EXECUTE,
            other => return Err(self.value(node, "Operations", other, "R, W, RW, E or nothing")),
        };
        Ok(ResourceInfo {
            id: self.id(node, "Item@ID", node.attribute("ID"))?,
            name: owned(self.required(node, "Name")?),
            operations,
            kind: self.kind(node)?,
            multiple: self.choice(node, "MultipleInstances", ["Single", "Multiple"])?,
            mandatory: self.choice(node, "Mandatory", ["Optional", "Mandatory"])?,
            units: owned(text(node, "Units").unwrap_or("")),
            range: owned(text(node, "RangeEnumeration").unwrap_or("")),
        })
    }

    fn kind(&self, node: Node<'_, '_>) -> Result<Option<ResourceType>, XmlError> {
        Ok(Some(match text(node, "Type").unwrap_or("") {
            "" | "None" | "none" => return Ok(None),
            "String" => ResourceType::String,
            "Integer" => ResourceType::Integer,
            "Unsigned Integer" => ResourceType::Unsigned,
            "Float" => ResourceType::Float,
            "Boolean" => ResourceType::Boolean,
            "Opaque" => ResourceType::Opaque,
            "Time" => ResourceType::Time,
            "Objlnk" => ResourceType::ObjectLink,
            "Corelnk" => ResourceType::CoreLink,
            other => {
                let expected = "String, Integer, Unsigned Integer, Float, Boolean, Opaque, Time, \
                                Objlnk, Corelnk or nothing";
                return Err(self.value(node, "Type", other, expected));
            }
        }))
    }

    fn required<'a>(&self, node: Node<'a, '_>, element: &'static str) -> Result<&'a str, XmlError> {
        let found = text(node, element).filter(|text| !text.is_empty());
        found.ok_or_else(|| self.defect(node, element, Defect::Missing))
    }

    /// Whether the element says the second of two words.
    fn choice(
        &self,
        node: Node<'_, '_>,
        element: &'static str,
        [no, yes]: [&'static str; 2],
    ) -> Result<bool, XmlError> {
        let found = self.required(node, element)?;
        if found == no || found == yes {
            return Ok(found == yes);
        }
        let expected =
            if yes == "Multiple" { "Single or Multiple" } else { "Optional or Mandatory" };
        Err(self.value(node, element, found, expected))
    }

    fn id(
        &self,
        node: Node<'_, '_>,
        element: &'static str,
        found: Option<&str>,
    ) -> Result<u16, XmlError> {
        let found = found.ok_or_else(|| self.defect(node, element, Defect::Missing))?;
        // 65535 is reserved, as in paths.
        let id = found.trim().parse().ok().filter(|id| *id != u16::MAX);
        id.ok_or_else(|| self.value(node, element, found, "0 to 65534"))
    }

    fn value(
        &self,
        node: Node<'_, '_>,
        element: &'static str,
        found: &str,
        expected: &'static str,
    ) -> XmlError {
        let place = child(node, element).unwrap_or(node);
        self.defect(place, element, Defect::Value { found: Excerpt::of(found), expected })
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

/// The text of a child without the white space around it; empty if it has none.
fn text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name).map(|child| child.text().unwrap_or("").trim())
}

fn owned(text: &str) -> Text {
    if text.is_empty() { Cow::Borrowed("") } else { Cow::Owned(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::super::Model;
    use super::*;

    const FILE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<LWM2M xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <Object ObjectType="MODefinition">
    <Name>Well &amp; Pump</Name>
    <Description1><![CDATA[Only an example.]]></Description1>
    <ObjectID>31024</ObjectID>
    <ObjectURN>urn:oma:lwm2m:x:31024:1.1</ObjectURN>
    <ObjectVersion>1.1</ObjectVersion>
    <MultipleInstances>Multiple</MultipleInstances>
    <Mandatory>Optional</Mandatory>
    <Resources>
      <Item ID="7"><Name>Empty it</Name><Operations>E</Operations>
        <MultipleInstances>Single</MultipleInstances><Mandatory>Optional</Mandatory>
        <Type></Type><RangeEnumeration></RangeEnumeration><Units></Units></Item>
      <Item ID="1"><Name>Level</Name><Operations>RW</Operations>
        <MultipleInstances>Multiple</MultipleInstances><Mandatory>Mandatory</Mandatory>
        <Type>Unsigned Integer</Type><RangeEnumeration>0..9</RangeEnumeration>
        <Units>mm</Units></Item>
    </Resources>
  </Object>
</LWM2M>"#;

    fn error(file: &str) -> String {
        let mut model = Model::builtin();
        let error = model.extend_from_xml(file.as_bytes(), "well.xml").unwrap_err();
        assert_eq!(model, Model::builtin());
        error.to_string()
    }

    #[test]
    fn a_definition_is_added() {
        let mut model = Model::builtin();
        assert_eq!(model.extend_from_xml(FILE.as_bytes(), "well.xml"), Ok(vec![31024]));
        let object = model.object(31024).unwrap();
        assert_eq!((object.name.as_ref(), object.version.as_ref()), ("Well & Pump", "1.1"));
        assert!(object.multiple && !object.mandatory);
        let level = model.resource(31024, 1).unwrap();
        let expected = ResourceInfo {
            id: 1,
            name: "Level".into(),
            operations: Operations::READ_WRITE,
            kind: Some(ResourceType::Unsigned),
            multiple: true,
            mandatory: true,
            units: "mm".into(),
            range: "0..9".into(),
        };
        assert_eq!(level, &expected);
        assert_eq!(model.resource(31024, 7).map(|info| info.kind), Some(None));
        let again = FILE.replace("Level", "Height");
        assert_eq!(model.extend_from_xml(again.as_bytes(), "well.xml"), Ok(vec![31024]));
        assert_eq!(model.resource(31024, 1).unwrap().name, "Height");
    }

    #[test]
    fn a_bad_file_is_told_with_its_line() {
        for (from, to, told) in [
            (
                "31024</ObjectID>",
                "65535</ObjectID>",
                "well.xml:6: ObjectID has the value \"65535\", expected: 0 to 65534",
            ),
            ("<ObjectID>31024</ObjectID>", "", "well.xml:3: ObjectID is missing"),
            ("ID=\"7\"", "ID=\"1\"", "well.xml:11: Item 1 stands there twice"),
            ("ID=\"7\"", "", "well.xml:12: Item@ID is missing"),
            (
                ">E<",
                ">X<",
                "well.xml:12: Operations has the value \"X\", expected: R, W, RW, E or nothing",
            ),
            (
                "<MultipleInstances>Multiple",
                "<MultipleInstances>Many",
                "well.xml:9: MultipleInstances has the value \"Many\", expected: Single or Multiple",
            ),
            ("<Name>Level</Name>", "<Name/>", "well.xml:15: Name is missing"),
        ] {
            assert_eq!(error(&FILE.replacen(from, to, 1)), told);
        }
        assert!(
            error(&FILE.replace("Unsigned Integer", "Number")).starts_with("well.xml:17: Type")
        );
        assert!(error(&FILE.replace("</Resources>", "")).starts_with("well.xml:20: "));
        assert_eq!(error("<a/>"), "well.xml:1: LWM2M/Object is missing");
        assert!(error("").starts_with("well.xml:1: "));
        let objects = FILE.split("  <Object O").nth(1).unwrap().split("</LWM2M>").next().unwrap();
        let twice = FILE.replace("</LWM2M>", &format!("<Object O{objects}</LWM2M>"));
        assert!(error(&twice).contains("ObjectID 31024 stands there twice"));
    }

    #[test]
    fn what_could_grow_without_end_is_refused() {
        let entities = "<!DOCTYPE a [<!ENTITY b \"cc\"><!ENTITY d \"&b;&b;\">]><LWM2M>&d;</LWM2M>";
        assert!(error(entities).contains("DTD"), "{}", error(entities));
        let deep = format!("<LWM2M>{}", "<a>".repeat(200_000));
        assert!(!error(&deep).is_empty());
        let wide = format!("<LWM2M>{}</LWM2M>", "<a/>".repeat(120_000));
        assert!(error(&wide).contains("limit"), "{}", error(&wide));
        let large = " ".repeat(XML_BYTES_MAX + 1);
        assert_eq!(error(&large), "well.xml: 1048577 bytes exceed the limit of 1048576");
        let mut model = Model::builtin();
        let told = model.extend_from_xml(b"<a>\xff</a>", "well.xml").unwrap_err().to_string();
        assert_eq!(told, "well.xml: not UTF-8 from byte 3 on");
    }
}
