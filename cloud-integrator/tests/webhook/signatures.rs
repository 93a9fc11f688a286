//! Signatures of requests as they arrive, checked by the libraries that customers use.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use cloud_integrator::{Outcome, Signing, Sink, WebhookTarget};
use serde_json::json;
use vocabulary::Timestamp;

use super::requests::{Taken, another, header, keeping};
use super::{delivery, place, plain_client};

/// One request, a key to check it with, and whether it is to be believed.
struct Case {
    key: String,
    taken: Taken,
    is_good: bool,
}

impl Case {
    fn line(&self) -> String {
        let headers: BTreeMap<&str, String> =
            ["webhook-id", "webhook-timestamp", "webhook-signature"]
                .into_iter()
                .map(|name| (name, header(&self.taken, name).unwrap()))
                .collect();
        let body = String::from_utf8(self.taken.1.clone()).unwrap();
        json!({ "key": self.key, "headers": headers, "body": body }).to_string()
    }
}

/// What an endpoint gets for a webhook with `signing`: one event, or a compressed batch.
async fn taken(signing: &Signing, is_batch: bool) -> Taken {
    let (address, kept) = keeping().await;
    let url = format!("http://{address}/");
    let signing = signing.clone();
    let target = WebhookTarget { url, signing, gzip: is_batch, ..WebhookTarget::default() };
    let sink = plain_client().webhook(&target, is_batch).unwrap();
    let events = if is_batch { vec![delivery(), another()] } else { vec![delivery()] };
    assert_eq!(sink.deliver(events).await, Outcome::Delivered);
    let mut taken = kept.lock().unwrap().pop().unwrap();
    let is_compressed = header(&taken, "content-encoding").as_deref() == Some("gzip");
    assert_eq!(is_compressed, is_batch);
    if is_compressed {
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(taken.1.as_slice()).read_to_end(&mut body).unwrap();
        taken.1 = body;
    }
    taken
}

fn shown(signing: &Signing) -> Vec<String> {
    let keys = signing.secrets(Timestamp::from(SystemTime::now())).unwrap();
    keys.iter().map(|key| key.text.to_string()).collect()
}

/// Requests that are to be believed and the same with something changed.
async fn cases(signing: &Signing, keys: &[String], stranger: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for is_batch in [false, true] {
        let taken = taken(signing, is_batch).await;
        for key in keys {
            cases.push(Case { key: key.clone(), taken: taken.clone(), is_good: true });
            let mut changed = taken.clone();
            let last = changed.1.len() - 3;
            changed.1[last] ^= 1;
            cases.push(Case { key: key.clone(), taken: changed, is_good: false });
            let head = taken.0.replace("webhook-id: ", "webhook-id: x");
            let renamed = (head, taken.1.clone());
            cases.push(Case { key: key.clone(), taken: renamed, is_good: false });
        }
        cases.push(Case { key: stranger.to_owned(), taken, is_good: false });
    }
    cases
}

/// Runs a program of `tests/interop/standardwebhooks` on all cases.
fn check(program: &mut Command, cases: &[Case]) {
    let mut child =
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be run");
    let lines: String = cases.iter().map(|case| case.line() + "\n").collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program:?} failed");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), cases.len(), "{text}");
    for (case, verdict) in cases.iter().zip(text.lines()) {
        assert_eq!(verdict == "verified", case.is_good, "{verdict}: {}", case.line());
    }
}

fn script(name: &str) -> String {
    format!("{}/../tests/interop/standardwebhooks/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn rotated(new: Signing, old: &Signing) -> Signing {
    let now = Timestamp::from(SystemTime::now());
    old.rotate(new, now, Duration::from_secs(86_400)).unwrap()
}

#[tokio::test]
async fn the_library_for_python_believes_our_signatures_and_no_others() {
    let Some(python) = place("SIMGATE_TEST_PYTHON", "venv/bin/python") else { return };
    let first = Signing::hmac().unwrap();
    let second = rotated(Signing::hmac().unwrap(), &first);
    let stranger = shown(&Signing::hmac().unwrap()).remove(0);
    let mut all = cases(&first, &shown(&first), &stranger).await;
    // During a rotation, a receiver with either secret believes.
    all.extend(cases(&second, &shown(&second), &stranger).await);
    check(Command::new(python).arg(script("verify.py")), &all);
}

#[tokio::test]
async fn the_library_for_javascript_believes_our_signatures_and_no_others() {
    let Some(modules) = place("SIMGATE_TEST_NODE_MODULES", "node/node_modules") else { return };
    let first = Signing::hmac().unwrap();
    let second = rotated(Signing::ed25519().unwrap(), &first);
    let stranger = shown(&Signing::hmac().unwrap()).remove(0);
    let mut all = cases(&first, &shown(&first), &stranger).await;
    all.extend(cases(&second, &shown(&second), &stranger).await);
    let other_pair = shown(&Signing::ed25519().unwrap()).remove(0);
    all.extend(cases(&second, &[], &other_pair).await);
    check(Command::new("node").env("NODE_PATH", modules).arg(script("verify.cjs")), &all);
}
