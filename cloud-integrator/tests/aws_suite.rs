//! AWS IoT Core by its HTTPS API: what every sink must do, against a scripted data plane on
//! loopback.

use std::sync::{Arc, Mutex};

use crate::all_sinks_must;
use crate::receiver::{self, Answer, OK, Received};
use crate::scripted::{raw, scripted_receiver};
use crate::suite::{self, Behaviour};
use crate::world::{Ledger, PATIENCE, World, hasty, sealer, until, until_async, webhook};
use cloud_integrator::{
    AwsAccess, AwsKeys, AwsOptions, AwsRollout, AwsSink, AwsTarget, AwsTransport, IntegrationState,
    Integrations, NetworkPolicy, NewIntegration, Resolver, Settings, Target,
};
use vocabulary::{Notice, NoticeCategory, NoticeKind};
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
        let access = AwsAccess::new(options(None), Resolver::new(policy())).unwrap();
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

fn options(sts_endpoint: Option<String>) -> AwsOptions {
    let keys = AwsKeys {
        access_key_id: "AKIAEXAMPLE".to_owned(),
        secret_access_key: Zeroizing::new("the-secret".to_owned()),
        session_token: None,
    };
    AwsOptions { keys: Some(keys), sts_endpoint }
}

fn policy() -> NetworkPolicy {
    NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() }
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

/// As STS answers.
const SESSION: &str = concat!(
    "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>",
    "<Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>s</SecretAccessKey>",
    "<SessionToken>t</SessionToken><Expiration>2200-01-01T00:00:00Z</Expiration></Credentials>",
    "</AssumeRoleResult></AssumeRoleResponse>",
);

#[tokio::test]
async fn a_rollout_ends_in_deliveries_by_a_role_that_is_the_integrations_alone() {
    let (bodies, lines) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (assumed, published) = (Arc::clone(&bodies), Arc::clone(&lines));
    let session = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{SESSION}", SESSION.len());
    let session: &'static str = session.leak();
    let address = receiver::serve(Arc::new(move |request: &Received<'_>| {
        let body = String::from_utf8_lossy(request.body).into_owned();
        if body.contains("Action=AssumeRole") {
            assumed.lock().unwrap().push(body);
            return raw(session);
        }
        assert_eq!(request.header("x-amz-security-token"), Some("t"));
        published.lock().unwrap().push(request.head.lines().next().unwrap().to_owned());
        OK
    }))
    .await;
    let world = World::new();
    let url = format!("http://{address}");
    let settings = Settings {
        forwarder: hasty(),
        network: policy(),
        aws: options(Some(url.clone())),
        ..Settings::default()
    };
    let integrations = Integrations::open(&world.file, sealer(), settings).unwrap();
    integrations.start(world.source.clone()).await.unwrap();
    let new = NewIntegration { target: Target::Aws(AwsTarget::default()), ..webhook("") };
    let (created, token) = integrations.begin_rollout(new).await.unwrap();
    assert_eq!(created.state, IntegrationState::RolloutStarted);
    // What comes before the end of the rollout is not lost.
    world.send(&[(1, 1)]).await;
    world.notice(&Notice::new(NoticeCategory::Error, NoticeKind::General, "X[Y]")).await;
    let transport = AwsTransport::Sdk {
        role_arn: Some("arn:aws:iam::123456789012:role/simgate".to_owned()),
        external_id: None,
    };
    let target = AwsTarget {
        region: "eu-central-1".to_owned(),
        endpoint: Some(url),
        transport,
        ..AwsTarget::default()
    };
    integrations.finish_rollout(AwsRollout { token, target }).await.unwrap();
    until_async("the first delivery", || async {
        let found = integrations.find(&created.id).await.unwrap().unwrap();
        found.state == IntegrationState::IntegrationActive
    })
    .await;
    until("both events", || lines.lock().unwrap().len() == 2).await;
    integrations.shutdown(PATIENCE).await;
    let topic = |line: &String| line.split(['/', '?']).nth(2).unwrap().to_owned();
    let mut topics: Vec<String> = lines.lock().unwrap().iter().map(topic).collect();
    topics.sort();
    assert_eq!(topics, ["0000000000000000001%2Fmessages", "error"]);
    let bodies = bodies.lock().unwrap();
    let external_id = format!("ExternalId={}", created.id);
    assert!(!bodies.is_empty() && bodies.iter().all(|body| body.contains(&external_id)));
}
