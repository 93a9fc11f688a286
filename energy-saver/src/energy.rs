//! How much energy a compact payload saves a device: the model of 1NCE OS.

/// Energy of sending nothing, in mWh.
const BASE_MWH: f64 = 94.084;
/// Energy of each byte more, in mWh.
const BYTE_MWH: f64 = 0.013;

/// What a device saves by sending the payload instead of the JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reduction {
    /// Bytes not sent; negative where the JSON is the shorter one.
    pub reduced_bytes: i64,
    /// Energy not spent, in percent of sending the JSON, rounded to two decimals as documented.
    pub energy_usage_reduction_percent: f64,
}

/// Compares sending `json_bytes` with sending `payload_bytes`.
pub fn reduction(json_bytes: usize, payload_bytes: usize) -> Reduction {
    let bytes = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let reduced_bytes = bytes(json_bytes).saturating_sub(bytes(payload_bytes));
    let saved_mwh = BYTE_MWH * reduced_bytes as f64;
    let json_mwh = BYTE_MWH * json_bytes as f64 + BASE_MWH;
    let percent = (saved_mwh / json_mwh * 10_000.0).round() / 100.0;
    Reduction { reduced_bytes, energy_usage_reduction_percent: percent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_holds() {
        let json = r#"{"Temperature":26,"Humidity":55,"Switch":false}"#;
        assert_eq!(json.len(), 47);
        let reduction = reduction(json.len(), 10);
        assert_eq!(reduction.reduced_bytes, 37);
        assert!((reduction.energy_usage_reduction_percent - 0.51).abs() < 1e-9);
    }

    #[test]
    fn a_longer_payload_counts_negative() {
        assert_eq!(reduction(2, 100).reduced_bytes, -98);
        assert!(reduction(2, 100).energy_usage_reduction_percent < 0.0);
    }
}
