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
