//! AWS IoT Core by its HTTPS API: what every sink must do, against a scripted data plane on
//! loopback.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod receiver;
mod suite;
mod world;

use std::sync::{Arc, Mutex};

use cloud_integrator::{
    AwsAccess, AwsKeys, AwsOptions, AwsSink, AwsTarget, NetworkPolicy, Resolver,
};
use receiver::{Answer, OK, Received};
use suite::Behaviour;
use world::{Ledger, PATIENCE, raw, scripted_receiver};
use zeroize::Zeroizing;

/// The data plane of an account.
struct DataPlane {
    url: String,
    ledger: Ledger,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl suite::Cloud for DataPlane {
    type Sink = AwsSink;

    async fn start() -> Self {
        let (ledger, behaviour) = (Ledger::default(), Arc::new(Mutex::new(Behaviour::Take)));
        let script = Arc::clone(&behaviour);
        let answer = move |request: &Received<'_>, _: usize| answer(&script, request);
        let url = scripted_receiver(&ledger, answer).await;
        Self { url, ledger, behaviour }
    }

    async fn sink(&self) -> AwsSink {
        let keys = AwsKeys {
            access_key_id: "AKIAEXAMPLE".to_owned(),
            secret_access_key: Zeroizing::new("the-secret".to_owned()),
            session_token: None,
        };
        let options = AwsOptions { keys: Some(keys), ..AwsOptions::default() };
        let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
        let access = AwsAccess::new(options, Resolver::new(policy)).unwrap();
        let target = AwsTarget {
            region: "eu-central-1".to_owned(),
            endpoint: Some(self.url.clone()),
            ..AwsTarget::default()
        };
        AwsSink::new(&access, &target).unwrap()
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

fn answer(behaviour: &Mutex<Behaviour>, request: &Received<'_>) -> Answer {
    let failure = raw(
        "HTTP/1.1 500 x\r\nx-amzn-errortype: InternalFailureException\r\ncontent-length: 0\r\n\r\n",
    );
    let mut behaviour = behaviour.lock().unwrap();
    match &mut *behaviour {
        Behaviour::Take | Behaviour::FailNext(0) => OK,
        Behaviour::Fail => failure,
        Behaviour::FailNext(left) => {
            *left -= 1;
            failure
        }
        Behaviour::Silence => Answer { pause: 3 * PATIENCE, ..OK },
        Behaviour::Refuse(text) if String::from_utf8_lossy(request.body).contains(&**text) => raw(
            "HTTP/1.1 400 x\r\nx-amzn-errortype: InvalidRequestException\r\ncontent-length: 0\r\n\r\n",
        ),
        Behaviour::Refuse(_) => OK,
    }
}

all_sinks_must!(DataPlane);
