//! E-mail: what every sink must do, against a scripted mail server on loopback.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cloud_integrator::{
    Delivery, EmailSink, EmailTarget, MAILS_PER_HOUR, MailSecurity, MailSettings, Mailer, Outcome,
    Sink,
};

use crate::all_sinks_must;
use crate::smtp::{self, Said, Says, id_of, polite};
use crate::suite::{self, Behaviour};
use crate::world::Ledger;

/// A mail server. A mail is words for people, so the events are kept where they are sent.
struct MailServer {
    port: u16,
    ledger: Ledger,
    behaviour: Arc<Mutex<Behaviour>>,
    bodies: Bodies,
}

type Bodies = Arc<Mutex<HashMap<String, Bytes>>>;

/// Notes the events before they are mails.
struct Noting {
    sink: EmailSink,
    bodies: Bodies,
}

impl Sink for Noting {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        for event in &events {
            self.bodies.lock().unwrap().insert(event.id.to_string(), event.body.clone());
        }
        self.sink.deliver(events).await
    }
}

impl suite::Cloud for MailServer {
    type Sink = Noting;
    /// A mail server says which refusal is for good.
    const ATTEMPTS_IF_REFUSED: u32 = 1;

    async fn start() -> Self {
        let ledger = Ledger::default();
        let behaviour = Arc::new(Mutex::new(Behaviour::Take));
        let bodies = Bodies::default();
        let (noted, script, known) = (ledger.clone(), Arc::clone(&behaviour), Arc::clone(&bodies));
        let port = smtp::serve(move |said| match said {
            Said::Mail(mail) => {
                let id = id_of(mail);
                let body = known.lock().unwrap().get(&id).unwrap().clone();
                let says = answer(&mut script.lock().unwrap(), &body);
                noted.note(&id, &body, matches!(says, Says::Reply("250 OK")));
                says
            }
            other => polite(other),
        });
        Self { port: port.await, ledger, behaviour, bodies }
    }

    async fn sink(&self) -> Noting {
        let settings = MailSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            security: MailSecurity::None,
            user: None,
            password: None,
            from: "simgate <alerts@example.com>".to_owned(),
            hello_name: None,
        };
        let per_hour = MAILS_PER_HOUR.saturating_mul(1_000.try_into().unwrap());
        let mailer = Mailer::new(settings, &[], per_hour).unwrap();
        let target = EmailTarget { recipients: vec!["night@example.com".to_owned()] };
        let sink = EmailSink::new(&mailer, &target).unwrap();
        Noting { sink, bodies: Arc::clone(&self.bodies) }
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

fn answer(behaviour: &mut Behaviour, body: &[u8]) -> Says {
    let failure = Says::Reply("451 try again later");
    match behaviour {
        Behaviour::Take | Behaviour::FailNext(0) => Says::Reply("250 OK"),
        Behaviour::Fail => failure,
        Behaviour::FailNext(left) => {
            *left -= 1;
            failure
        }
        Behaviour::Silence => Says::Nothing,
        Behaviour::Refuse(text) if String::from_utf8_lossy(body).contains(&**text) => {
            Says::Reply("554 we do not want this")
        }
        Behaviour::Refuse(_) => Says::Reply("250 OK"),
    }
}

all_sinks_must!(MailServer);
