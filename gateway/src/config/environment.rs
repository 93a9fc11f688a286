//! Environment variables that override the file: `SIMGATE_<SECTION>_<KEY>`.
//!
//! The value is read as TOML where it is TOML (numbers, booleans, arrays), as text otherwise.

use super::ConfigError;

const PREFIX: &str = "SIMGATE_";

/// Puts the variables among `environment` that are ours into `table`.
pub(super) fn apply(
    table: &mut toml::Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    for (name, value) in environment {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let Some((section, key)) = path.split_once('_') else {
            return Err(ConfigError::Variable { name });
        };
        let section = table
            .entry(section.to_lowercase())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let Some(section) = section.as_table_mut() else {
            return Err(ConfigError::Variable { name });
        };
        section.insert(key.to_lowercase(), parse(&value));
    }
    Ok(())
}

fn parse(text: &str) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"));
    parsed
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}
