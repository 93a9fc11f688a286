//! A scripted SMTP server for tests: one closure answers whatever it is told.
//!
//! Just enough of RFC 5321 for what simgate says: lines, and after 354 a mail.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What a client says.
#[derive(Debug)]
pub(crate) enum Said<'a> {
    /// It has connected.
    Connected,
    /// A line, without its end.
    Command(&'a str),
    /// A mail, without the dots that transport adds.
    Mail(&'a str),
}

/// What the server says to that.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// A reply.
    Reply(&'static str),
    /// A reply, when the notice comes.
    Late(&'static str, Arc<Notify>),
    /// The same bytes for ever.
    Endless(&'static str),
    /// Nothing, ever.
    Nothing,
    /// It hangs up.
    HangUp,
}

/// Decides on what a client says.
pub(crate) type Script = Arc<dyn Fn(&Said<'_>) -> Says + Send + Sync>;

/// What a server says that takes everything.
pub(crate) fn polite(said: &Said<'_>) -> Says {
    Says::Reply(match said {
        Said::Connected => "220 ready",
        Said::Command(line) if line.starts_with("DATA") => "354 go ahead",
        Said::Command(line) if line.starts_with("QUIT") => "221 goodbye",
        Said::Command(_) | Said::Mail(_) => "250 OK",
    })
}

/// The id of a mail.
pub(crate) fn id_of(mail: &str) -> String {
    let line = mail.lines().find_map(|line| line.strip_prefix("Message-ID: <")).unwrap();
    line.split_once('@').unwrap().0.to_owned()
}

/// Listens on loopback until the runtime ends; gives the port.
pub(crate) async fn serve(script: impl Fn(&Said<'_>) -> Says + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script: Script = Arc::new(script);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = Arc::clone(&script);
            tokio::spawn(async move {
                // A client may go at any moment.
                let _ = converse(stream, script).await;
            });
        }
    });
    port
}

/// Talks with one client until it goes.
pub(crate) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut says = script(&Said::Connected);
    loop {
        let text = match says {
            Says::Reply(text) => text,
            Says::Late(text, notice) => {
                notice.notified().await;
                text
            }
            Says::Endless(text) => loop {
                stream.write_all(text.as_bytes()).await?;
            },
            Says::Nothing => "",
            Says::HangUp => return Ok(()),
        };
        if !text.is_empty() {
            stream.write_all(format!("{text}\r\n").as_bytes()).await?;
            stream.flush().await?;
        }
        let told = if text.starts_with("354") {
            mail(&mut stream).await?
        } else {
            line(&mut stream).await?
        };
        says = match &told {
            Some(told) if text.starts_with("354") => script(&Said::Mail(told)),
            Some(told) => script(&Said::Command(told)),
            None => return Ok(()),
        };
    }
}

async fn line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = stream.read_line(&mut line).await?;
    Ok((length > 0).then(|| line.trim_end().to_owned()))
}

async fn mail(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<String>> {
    let mut mail = String::new();
    while let Some(next) = line(stream).await? {
        if next == "." {
            return Ok(Some(mail));
        }
        mail.push_str(next.strip_prefix('.').unwrap_or(&next));
        mail.push('\n');
    }
    Ok(None)
}
