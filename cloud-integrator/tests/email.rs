//! E-mail beyond what every sink must do: what each answer of a mail server means, and what a mail
//! is.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cloud_integrator::{
    Delivery, EmailSink, EmailTarget, EventType, Failure, FailureClass, MAILS_PER_HOUR,
    MailSecurity, MailSettings, Mailer, Outcome, Sink, Subject,
};
use tokio::sync::Notify;

use crate::smtp::{self, Said, Says, Script, polite};
use crate::world::{PATIENCE, until};

/// A line that says that others follow.
const MORE: &str = concat!(
    "250-and more and more and more and more and more and more and more and more and more and more",
    " and more and more and more and more and more and more and more and more and more and more\r\n",
);

fn settings(port: u16, security: MailSecurity) -> MailSettings {
    MailSettings {
        host: "localhost".to_owned(),
        port,
        security,
        user: None,
        password: None,
        from: "simgate <alerts@example.com>".to_owned(),
        hello_name: Some("gateway.example.com".to_owned()),
    }
}

fn sink_by(settings: MailSettings, roots: &[Vec<u8>], recipients: &[&str]) -> EmailSink {
    let mailer = Mailer::new(settings, roots, MAILS_PER_HOUR).unwrap();
    let recipients = recipients.iter().map(|address| (*address).to_owned()).collect();
    EmailSink::new(&mailer, &EmailTarget { recipients }).unwrap()
}

fn sink(port: u16) -> EmailSink {
    sink_by(settings(port, MailSecurity::None), &[], &["a@example.com", "b@example.com"])
}

fn crossing(name: &str) -> Delivery {
    let body = serde_json::json!({ "id": "x", "device": { "iccid": "8988280666000002864" },
        "geofence": { "id": "1", "name": name, "type": "EXIT", "source": "GPS" } });
    Delivery {
        id: "1-6393505d-0000fa8489fb9c791fcddd43".parse().unwrap(),
        event_type: EventType::Geofence,
        subject: Subject::default(),
        source: None,
        topic: None,
        body: Bytes::from(body.to_string()),
    }
}

fn one() -> Vec<Delivery> {
    vec![crossing("depot")]
}

/// A server that takes everything but answers `reply` where it is told what begins with `to`; gives
/// its port, and what it was told.
async fn server(to: &'static str, reply: Says) -> (u16, Arc<Mutex<Vec<String>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let port = smtp::serve(move |said| {
        let text = match said {
            Said::Connected => "connected".to_owned(),
            Said::Command(line) => (*line).to_owned(),
            Said::Mail(mail) => format!("mail {mail}"),
        };
        let says = if text.starts_with(to) { reply.clone() } else { polite(said) };
        heard.lock().unwrap().push(text);
        says
    });
    (port.await, told)
}

fn was_told(told: &Mutex<Vec<String>>, what: &str) -> bool {
    told.lock().unwrap().iter().any(|line| line.starts_with(what))
}

/// Class and code of a failure, and whether it is for good.
async fn fate(to: &'static str, reply: Says) -> (FailureClass, Option<u16>, bool) {
    let (port, _) = server(to, reply).await;
    let (reason, is_final) = match sink(port).deliver(one()).await {
        Outcome::Retry { reason, .. } => (reason, false),
        Outcome::Rejected { reason } => (reason, true),
        Outcome::Delivered => panic!("delivered"),
    };
    let Failure { class, answer, .. } = reason;
    (class, answer.map(|answer| answer.code), is_final)
}

#[tokio::test]
async fn answers_are_for_good_only_where_they_are_about_the_mail() {
    use FailureClass::{Credentials, Refused, Status, Throttled, TooLarge, Transport};
    for (to, reply, class, code, is_final) in [
        ("connected", "554 no service", Status, 554, false),
        ("connected", "421 too many connections", Throttled, 421, false),
        ("MAIL", "550 you are not known", Status, 550, false),
        ("MAIL", "530 authentication required", Credentials, 530, false),
        ("RCPT", "450 greylisted", Throttled, 450, false),
        ("RCPT", "530 authentication required", Credentials, 530, false),
        ("RCPT", "550 no such mailbox", Refused, 550, true),
        ("DATA", "451 local error", Throttled, 451, false),
        ("mail", "554 spam", Refused, 554, true),
        ("mail", "552 too large", TooLarge, 552, true),
        ("mail", "452 disk is full", Throttled, 452, false),
    ] {
        let found = fate(to, Says::Reply(reply)).await;
        assert_eq!(found, (class, Some(code), is_final), "{to}: {reply}");
    }
    for to in ["connected", "EHLO", "mail"] {
        for reply in [Says::Reply("SSH-2.0-OpenSSH_9.2"), Says::HangUp, Says::Endless(MORE)] {
            let found = fate(to, reply.clone()).await;
            assert_eq!(found, (Transport, None, false), "{to}: {reply:?}");
        }
    }
    let reply = Says::Reply("250-first\r\n550 second");
    assert_eq!(fate("mail", reply).await, (Transport, None, false));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failure_to_connect() {
    let Outcome::Retry { reason, .. } = sink(1).deliver(one()).await else { panic!("taken") };
    assert_eq!(reason.class, FailureClass::Connect);
}

/// One mailbox of several was closed, and nobody got alerts any more: the mail as a whole counted
/// as refused.
#[tokio::test]
async fn a_recipient_who_is_gone_keeps_nothing_from_the_others() {
    let gone = "RCPT TO:<a@example.com>";
    let (port, told) = server(gone, Says::Reply("550 no such mailbox")).await;
    assert_eq!(sink(port).deliver(one()).await, Outcome::Delivered);
    assert!(was_told(&told, "RCPT TO:<b@example.com>") && was_told(&told, "mail "));
    let (port, told) = server(gone, Says::Reply("450 later")).await;
    assert!(matches!(sink(port).deliver(one()).await, Outcome::Retry { .. }));
    assert!(!was_told(&told, "DATA"), "nobody gets it twice because of one who is put off");
}

/// An attempt was cut off while the server still thought about the mail, and its connection was
/// used for the next one. Every answer was taken for the one after it: a mail counted as taken when
/// the server had only asked for its content, and then refused it.
#[tokio::test]
async fn a_late_answer_is_not_taken_for_that_to_the_next_mail() {
    let (notice, mails) = (Arc::new(Notify::new()), Arc::new(Mutex::new(0)));
    let (later, count) = (Arc::clone(&notice), Arc::clone(&mails));
    let port = smtp::serve(move |said| match said {
        Said::Mail(_) => {
            let mut count = count.lock().unwrap();
            *count += 1;
            match *count {
                1 => Says::Late("250 OK", Arc::clone(&later)),
                _ => Says::Reply("554 we do not want this"),
            }
        }
        other => polite(other),
    })
    .await;
    let sink = sink(port);
    let cut_off = tokio::spawn({
        let sink = sink.clone();
        async move { sink.deliver(one()).await }
    });
    until("the first mail", || *mails.lock().unwrap() == 1).await;
    cut_off.abort();
    assert!(cut_off.await.unwrap_err().is_cancelled());
    notice.notify_one();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(matches!(sink.deliver(one()).await, Outcome::Rejected { .. }));
}

#[tokio::test]
async fn without_starttls_nothing_is_told() {
    let (port, told) = server("nothing", Says::Nothing).await;
    let mut settings = settings(port, MailSecurity::StartTls);
    (settings.user, settings.password) = (Some("u".to_owned()), Some("secret".to_owned().into()));
    let sink = sink_by(settings, &[], &["a@example.com"]);
    let Outcome::Retry { reason, .. } = sink.deliver(one()).await else { panic!("taken") };
    assert!(reason.text.contains("STARTTLS"), "{reason}");
    assert!(!was_told(&told, "MAIL") && !was_told(&told, "AUTH"), "{told:?}");
}

/// A server with TLS from the beginning and a certificate of its own for `localhost`.
async fn tls_server() -> (u16, Vec<u8>) {
    use tokio_rustls::{TlsAcceptor, rustls};
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let script: Script = Arc::new(|said: &Said<'_>| polite(said));
            tokio::spawn(smtp::converse(stream, script));
        }
    });
    (port, certified.cert.pem().into_bytes())
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_have_the_right_name() {
    let (port, root) = tls_server().await;
    let outcome = async |host: &str, roots: &[Vec<u8>]| {
        let settings = MailSettings { host: host.to_owned(), ..settings(port, MailSecurity::Tls) };
        sink_by(settings, roots, &["a@example.com"]).deliver(one()).await
    };
    let trusted = [root];
    assert_eq!(outcome("localhost", &trusted).await, Outcome::Delivered);
    for (host, roots) in [("localhost", &[][..]), ("127.0.0.1", &trusted)] {
        let Outcome::Retry { reason, .. } = outcome(host, roots).await else { panic!("taken") };
        assert_eq!(reason.class, FailureClass::Tls, "{reason}");
    }
}

#[tokio::test]
async fn names_of_customers_make_no_headers_and_end_no_mail() {
    let (port, told) = server("nothing", Says::Nothing).await;
    let name = "depot\r\nBcc: eve@example.com\r\n\r\n.\r\nQUIT\u{2028}\u{e4}\u{1f6a9}";
    let sink = sink_by(
        settings(port, MailSecurity::None),
        &[],
        &["\"Night, shift\" <a@example.com>", "J\u{f6}rg <b@example.com>"],
    );
    assert_eq!(sink.deliver(vec![crossing(name)]).await, Outcome::Delivered);
    let told = told.lock().unwrap().clone();
    let commands: Vec<&str> =
        told.iter().map(|line| line.split([' ', ':']).next().unwrap()).collect();
    assert_eq!(commands, ["connected", "EHLO", "MAIL", "RCPT", "RCPT", "DATA", "mail", "QUIT"]);
    assert_eq!(told[1], "EHLO gateway.example.com");
    let (head, _) = told[6].split_once("\n\n").unwrap();
    let mut names: Vec<&str> = head
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.trim_start_matches("mail ").split_once(':').unwrap().0)
        .collect();
    names.sort_unstable();
    let expected = [
        "Auto-Submitted",
        "Content-Transfer-Encoding",
        "Content-Type",
        "Date",
        "From",
        "Message-ID",
        "Subject",
        "To",
    ];
    assert_eq!(names.iter().filter(|name| **name != "MIME-Version").count(), expected.len());
    for name in expected {
        assert!(names.contains(&name), "{name}: {head}");
    }
    assert!(told[6].is_ascii() && told[6].lines().all(|line| line.len() <= 998));
    assert!(head.contains(&format!("Message-ID: <{}@example.com>", crossing("").id)), "{head}");
}

/// A mailbox keeps one mail of an id. After a crash the events of a mail may come with others.
#[tokio::test]
async fn only_a_mail_of_the_same_events_has_the_same_id() {
    let (port, told) = server("nothing", Says::Nothing).await;
    let other = "1-6393505d-0000fa8489fb9c791fcddd44".parse().unwrap();
    let other = Delivery { id: other, ..crossing("yard") };
    for events in [one(), vec![crossing("depot"), other.clone()], vec![crossing("depot"), other]] {
        assert_eq!(sink(port).deliver(events).await, Outcome::Delivered);
    }
    let told = told.lock().unwrap().clone();
    let mails = told.iter().filter_map(|line| line.strip_prefix("mail "));
    let id =
        |mail: &str| mail.lines().find(|line| line.starts_with("Message-ID:")).unwrap().to_owned();
    let ids: Vec<String> = mails.map(id).collect();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[1], ids[2]);
}

#[tokio::test]
async fn an_integration_sends_its_mails_per_hour_and_no_more() {
    let (port, told) = server("nothing", Says::Nothing).await;
    let two = NonZeroU32::new(2).unwrap();
    let mailer = Mailer::new(settings(port, MailSecurity::None), &[], two).unwrap();
    let target = EmailTarget { recipients: vec!["a@example.com".to_owned()] };
    let noisy = EmailSink::new(&mailer, &target).unwrap();
    for _ in 0..2 {
        assert_eq!(noisy.deliver(one()).await, Outcome::Delivered);
    }
    let Outcome::Retry { reason, after } = noisy.deliver(one()).await else { panic!("taken") };
    assert_eq!(reason.class, FailureClass::Throttled);
    let half_an_hour = Duration::from_secs(1_800);
    assert!(after.is_some_and(|wait| wait <= half_an_hour && wait > half_an_hour - PATIENCE));
    assert_eq!(told.lock().unwrap().iter().filter(|line| *line == "connected").count(), 2);
    // Another is not held up by it.
    let calm = EmailSink::new(&mailer, &target).unwrap();
    assert_eq!(calm.deliver(one()).await, Outcome::Delivered);
}
