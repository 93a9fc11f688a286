//! What every sink must do, with a broker that takes, fails, refuses or is silent.

use std::sync::{Arc, Mutex};

use cloud_integrator::MqttSink;

use super::fake_broker::{FakeBroker, Session, puback};
use super::sinks::{hasty, plain, sink};
use crate::all_sinks_must;
use crate::suite::{Behaviour, Cloud};
use crate::world::Ledger;

/// A customer's broker.
struct Broker {
    fake: FakeBroker,
    ledger: Ledger,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Cloud for Broker {
    type Sink = MqttSink;

    async fn start() -> Self {
        let (ledger, behaviour) = (Ledger::default(), Arc::new(Mutex::new(Behaviour::Take)));
        let (book, script) = (ledger.clone(), Arc::clone(&behaviour));
        let serve = move |session| serve(session, book.clone(), Arc::clone(&script));
        Self { fake: FakeBroker::start(serve).await, ledger, behaviour }
    }

    async fn sink(&self) -> MqttSink {
        sink(&plain(self.fake.port), hasty())
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

async fn serve(mut session: Session, ledger: Ledger, behaviour: Arc<Mutex<Behaviour>>) {
    session.greet().await;
    while let Some(publish) = session.publish().await {
        let code = answer(&mut behaviour.lock().unwrap(), &publish.payload);
        ledger.note(&publish.id, &publish.payload, code == Some(0));
        if let Some(code) = code {
            session.send(&puback(publish.packet_id, code)).await;
        }
    }
}

/// The reason code of PUBACK; `None` sends none.
fn answer(behaviour: &mut Behaviour, payload: &[u8]) -> Option<u8> {
    match behaviour {
        Behaviour::Take | Behaviour::FailNext(0) => Some(0),
        // Implementation specific error.
        Behaviour::Fail => Some(0x83),
        Behaviour::FailNext(left) => {
            *left -= 1;
            Some(0x83)
        }
        Behaviour::Silence => None,
        // Payload format invalid.
        Behaviour::Refuse(text) if String::from_utf8_lossy(payload).contains(&**text) => Some(0x99),
        Behaviour::Refuse(_) => Some(0),
    }
}

all_sinks_must!(Broker);
