//! By what a batch of events goes.

use aws_lc_rs::digest::{Context, SHA256};

use crate::sink::Delivery;

/// Bytes of the digest in a batch's id: enough that two batches never share one by chance.
const DIGEST_BYTES: usize = 16;

/// The id of a batch: the same for the same events in the same order, so that a receiver knows a
/// batch that comes again, and takes no other for it.
pub(crate) fn batch_id(events: &[Delivery]) -> String {
    let mut context = Context::new(&SHA256);
    for event in events {
        context.update(event.id.to_string().as_bytes());
        context.update(b"\n");
    }
    let digest = context.finish();
    let mut id = String::from("bat_");
    for byte in digest.as_ref().iter().take(DIGEST_BYTES) {
        id.push_str(&format!("{byte:02x}"));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::sample;

    const ONE: &str = "msg_01GHZX5Q3M0000000000000001";
    const TWO: &str = "msg_01GHZX5Q3M0000000000000002";

    #[test]
    fn the_id_of_a_batch_is_that_of_its_events_in_their_order() {
        let events = [sample(ONE, 1, "{}"), sample(TWO, 1, "{}")];
        let id = batch_id(&events);
        assert!(id.starts_with("bat_") && id.len() == 36, "{id}");
        assert_eq!(id, batch_id(&[sample(ONE, 2, "[]"), sample(TWO, 1, "{}")]));
        let other_order = [sample(TWO, 1, "{}"), sample(ONE, 1, "{}")];
        assert_ne!(id, batch_id(&other_order));
        assert_ne!(id, batch_id(&events[..1]));
    }
}
