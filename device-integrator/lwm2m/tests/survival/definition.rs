//! Arbitrary bytes as an object definition.

use lwm2m::Model;

/// What is read is known afterwards; what is refused changes nothing.
pub(crate) fn definition_survives(bytes: &[u8]) {
    let mut model = Model::default();
    match model.extend_from_xml(bytes, "definition.xml") {
        Ok(ids) => {
            assert!(!ids.is_empty());
            assert!(ids.iter().all(|id| model.object(*id).is_some()));
            assert_eq!(model.objects().len(), ids.len());
        }
        Err(error) => {
            assert!(model.objects().is_empty());
            let told = error.to_string();
            assert!(told.starts_with("definition.xml:") && told.len() < 1024, "{told}");
        }
    }
}
