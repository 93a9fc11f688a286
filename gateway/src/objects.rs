//! What the objects of LwM2M mean: those built in, and definitions that the operator has as files.

use std::path::Path;

use anyhow::Context as _;
use lwm2m::Model;
use tracing::info;

/// The definitions of the OMA registry, several hundred, are below 10 MB together.
const FILES_MAX: usize = 4_096;

/// Reads every `*.xml` of `folder`, where one is configured, in the order of their names.
pub(crate) fn load(folder: Option<&Path>) -> anyhow::Result<Model> {
    let mut model = Model::builtin();
    let Some(folder) = folder else { return Ok(model) };
    let unreadable = || format!("object definitions in {} cannot be read", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml")) {
            files.push(path);
        }
    }
    anyhow::ensure!(
        files.len() <= FILES_MAX,
        "{} object definitions in {}, allowed: {FILES_MAX}",
        files.len(),
        folder.display()
    );
    files.sort();
    for path in &files {
        let bytes = std::fs::read(path).with_context(unreadable)?;
        model
            .extend_from_xml(&bytes, &path.display().to_string())
            .context("an object definition is wrong")?;
    }
    info!(files = files.len(), folder = %folder.display(), "object definitions loaded");
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lwm2m::ResourceType;

    const DEFINITION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<LWM2M><Object ObjectType="MODefinition">
  <Name>Water Meter</Name><ObjectID>33456</ObjectID>
  <MultipleInstances>Multiple</MultipleInstances><Mandatory>Optional</Mandatory>
  <Resources><Item ID="1"><Name>Cumulated volume</Name><Operations>R</Operations>
    <MultipleInstances>Single</MultipleInstances><Mandatory>Mandatory</Mandatory>
    <Type>Float</Type><RangeEnumeration></RangeEnumeration><Units>m3</Units>
  </Item></Resources>
</Object></LWM2M>"#;

    #[test]
    fn definitions_of_a_folder_are_added_and_other_files_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("33456.xml"), DEFINITION).unwrap();
        std::fs::write(folder.path().join("README.txt"), "not a definition").unwrap();
        let model = load(Some(folder.path())).unwrap();
        let volume = model.resource(33456, 1).unwrap();
        assert_eq!((&*volume.name, volume.kind), ("Cumulated volume", Some(ResourceType::Float)));
        assert!(model.object(3).is_some(), "what is built in stays");
    }

    #[test]
    fn a_wrong_definition_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("broken.xml"), "<LWM2M><Object>").unwrap();
        let error = format!("{:#}", load(Some(folder.path())).unwrap_err());
        assert!(error.contains("broken.xml"), "{error}");
        let error = format!("{:#}", load(Some(&folder.path().join("none"))).unwrap_err());
        assert!(error.contains("none"), "{error}");
    }
}
