//! Any bytes as the body of a vendor's event stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let arrived = vocabulary::Timestamp::from_millis(1_700_000_000_000);
    if let Ok(parsed) = data_streamer::parse("vendor", bytes, arrived) {
        let counted = parsed.reports.len() + parsed.ignored + parsed.incomplete;
        assert_eq!(parsed.records, counted);
        assert!(parsed.reports.iter().all(|report| report.happened_at <= arrived));
    }
});
