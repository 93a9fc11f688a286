//! What every sink must do together with the forwarder before it, whatever kind of cloud it
//! reaches. The list is in the documentation of [`Sink`].
//!
//! A test file for one kind implements [`Cloud`] for the cloud that it plays on loopback, and calls
//! `all_sinks_must!(ThatCloud);` at its top level:
//!
//! ```text
//! mod bare; mod suite; mod world;
//! struct Webhook { .. }
//! impl suite::Cloud for Webhook { .. }
//! all_sinks_must!(Webhook);
//! ```

use std::future::Future;
use std::time::Duration;

use cloud_integrator::{DeadLetterFilter, Forwarder, ForwarderSettings, Sink, Store};

use crate::bare::{bare_integration, everything};
use crate::world::{Entry, Ledger, PATIENCE, World, base64_of, hasty, interleaved, until};

/// A cloud that a test plays.
pub(crate) trait Cloud: Sized {
    /// What reaches it.
    type Sink: Sink;
    /// Attempts at what it does not want, of three that the test allows: one where its answer says
    /// that it is for good.
    const ATTEMPTS_IF_REFUSED: u32 = 3;

    /// Starts one on loopback that takes everything.
    fn start() -> impl Future<Output = Self>;

    /// A new sink that reaches it; one more for each start of the gateway.
    fn sink(&self) -> impl Future<Output = Self::Sink>;

    /// From now on it behaves so, also to what it has not answered yet where it can.
    fn behave(&self, behaviour: Behaviour);

    /// What it has received, with [`Ledger::note`]; `taken` where it confirmed it.
    fn ledger(&self) -> &Ledger;
}

/// What a cloud does with events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// It takes all.
    Take,
    /// It takes none, for a reason that may pass (500, a broken connection, a PUBACK with a
    /// failure).
    Fail,
    /// The same for so many events, then it takes all.
    FailNext(usize),
    /// It never answers.
    Silence,
    /// It takes all but those whose body has this text, which it does not want (400, a refused
    /// payload).
    Refuse(String),
}

/// Makes a test of each demand, for one kind of cloud.
#[macro_export]
macro_rules! all_sinks_must {
    ($cloud:ident) => {
        mod every_sink {
            #[tokio::test]
            async fn keeps_the_order_of_each_device_and_sends_once() {
                $crate::suite::keeps_the_order::<super::$cloud>().await;
            }

            #[tokio::test]
            async fn repeats_what_failed_with_the_same_id() {
                $crate::suite::repeats_what_failed::<super::$cloud>().await;
            }

            #[tokio::test]
            async fn gives_up_what_is_refused_and_holds_nothing_up() {
                $crate::suite::gives_up_what_is_refused::<super::$cloud>().await;
            }

            #[tokio::test]
            async fn delivers_all_after_an_outage() {
                $crate::suite::delivers_all_after_an_outage::<super::$cloud>().await;
            }

            #[tokio::test]
            async fn goes_on_after_a_restart_in_the_middle() {
                $crate::suite::goes_on_after_a_restart::<super::$cloud>().await;
            }

            #[tokio::test]
            async fn sends_nothing_after_it_was_dropped() {
                $crate::suite::sends_nothing_after_a_drop::<super::$cloud>().await;
            }
        }
    };
}

/// A gateway with one integration, and its cloud.
struct Scene<C> {
    world: World,
    store: Store,
    id: String,
    cloud: C,
}

impl<C: Cloud> Scene<C> {
    async fn new() -> Self {
        let world = World::new();
        let (store, id) = bare_integration(&world).await;
        Self { world, store, id, cloud: C::start().await }
    }

    async fn forward(&self) -> Forwarder {
        self.forward_by(hasty()).await
    }

    async fn forward_by(&self, settings: ForwarderSettings) -> Forwarder {
        let bookmark = self.store.bookmark(&self.id);
        let sink = self.cloud.sink().await;
        Forwarder::start(self.world.source.clone(), bookmark, everything(), sink, settings)
    }

    async fn until_taken(&self, count: usize) {
        until("all messages", || self.cloud.ledger().taken_once().len() >= count).await;
    }

    fn assert_all_is_done(&self) {
        let cursor = self.store.bookmark(&self.id).cursor().unwrap();
        assert_eq!(cursor, Some(self.world.log.end().as_u64()));
    }
}

pub(crate) async fn keeps_the_order<C: Cloud>() {
    let scene = Scene::<C>::new().await;
    scene.world.send(&interleaved(5, 10)).await;
    let forwarder = scene.forward().await;
    scene.until_taken(50).await;
    forwarder.stop(PATIENCE).await;
    scene.cloud.ledger().assert_complete_and_in_order(5, 10);
    assert_eq!(scene.cloud.ledger().attempts().len(), 50, "nothing came twice");
    scene.assert_all_is_done();
}

pub(crate) async fn repeats_what_failed<C: Cloud>() {
    let scene = Scene::<C>::new().await;
    scene.cloud.behave(Behaviour::FailNext(7));
    let forwarder = scene.forward().await;
    scene.world.send(&interleaved(4, 8)).await;
    scene.until_taken(32).await;
    forwarder.stop(PATIENCE).await;
    scene.cloud.ledger().assert_complete_and_in_order(4, 8);
    let attempts = scene.cloud.ledger().attempts();
    let failed: Vec<&Entry> = attempts.iter().filter(|entry| !entry.taken).collect();
    assert_eq!(failed.len(), 7);
    for entry in failed {
        let again = |other: &&Entry| other.taken && other.id == entry.id;
        assert_eq!(attempts.iter().filter(again).count(), 1, "{entry:?}");
    }
    scene.assert_all_is_done();
}

pub(crate) async fn gives_up_what_is_refused<C: Cloud>() {
    let scene = Scene::<C>::new().await;
    scene.cloud.behave(Behaviour::Refuse(base64_of(3)));
    let mut settings = hasty();
    settings.retry.attempts_max = Some(3);
    scene.world.send(&interleaved(3, 6)).await;
    let forwarder = scene.forward_by(settings).await;
    // The third message of each of three devices is refused, the others arrive.
    scene.until_taken(15).await;
    until("the end of the log", || {
        let cursor = scene.store.bookmark(&scene.id).cursor().unwrap();
        cursor.is_some_and(|cursor| cursor >= 18)
    })
    .await;
    forwarder.stop(PATIENCE).await;
    let taken = scene.cloud.ledger().taken_once();
    assert!(taken.len() == 15 && taken.iter().all(|entry| entry.value != base64_of(3)));
    let letters = scene.world.integrations();
    let filter = DeadLetterFilter::default();
    let (letters, count) = letters.dead_letters(&scene.id, filter, (0, 10)).await.unwrap();
    assert_eq!(count, 3);
    assert!(letters.iter().all(|letter| letter.attempts == C::ATTEMPTS_IF_REFUSED), "{letters:?}");
}

pub(crate) async fn delivers_all_after_an_outage<C: Cloud>() {
    let scene = Scene::<C>::new().await;
    scene.cloud.behave(Behaviour::Fail);
    scene.world.send(&interleaved(6, 5)).await;
    let forwarder = scene.forward().await;
    until("it counts as down", || forwarder.status().down_since.is_some()).await;
    scene.cloud.behave(Behaviour::Take);
    scene.until_taken(30).await;
    until("it counts as working", || forwarder.status().down_since.is_none()).await;
    forwarder.stop(PATIENCE).await;
    scene.cloud.ledger().assert_complete_and_in_order(6, 5);
    scene.assert_all_is_done();
}

pub(crate) async fn goes_on_after_a_restart<C: Cloud>() {
    let scene = Scene::<C>::new().await;
    scene.world.send(&interleaved(4, 50)).await;
    for reached in [1, 20, 60, 130] {
        let forwarder = scene.forward().await;
        scene.until_taken(reached).await;
        // Dropped without stop, as a crash would: attempts are cut off, the cursor is not saved.
        drop(forwarder);
    }
    let forwarder = scene.forward().await;
    scene.until_taken(200).await;
    forwarder.stop(PATIENCE).await;
    scene.cloud.ledger().assert_complete_and_in_order(4, 50);
    scene.assert_all_is_done();
}

pub(crate) async fn sends_nothing_after_a_drop<C: Cloud>() {
    let scene = Scene::<C>::new().await;
    scene.cloud.behave(Behaviour::Silence);
    scene.world.send(&interleaved(2, 2)).await;
    let forwarder = scene.forward().await;
    until("an attempt", || !scene.cloud.ledger().attempts().is_empty()).await;
    drop(forwarder);
    // What was on its way arrives.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let count = scene.cloud.ledger().attempts().len();
    scene.world.send(&interleaved(2, 1)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(scene.cloud.ledger().attempts().len(), count);
    scene.cloud.behave(Behaviour::Take);
    let forwarder = scene.forward().await;
    until("all messages", || scene.cloud.ledger().taken_once().len() == 6).await;
    forwarder.stop(PATIENCE).await;
    scene.assert_all_is_done();
}
