//! Arbitrary bytes do no harm: the properties of the fuzz targets, on a small scale.

mod survival;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_records(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        survival::records::survive(&bytes);
    }

    #[test]
    fn any_conversation(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survival::server::survive(&bytes);
    }
}
