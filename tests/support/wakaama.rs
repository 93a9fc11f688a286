//! A foreign device of LwM2M: Eclipse Wakaama, see `tests/interop/wakaama`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use serde_json::Value;

use super::{PATIENCE, foreign};

/// The running client. Its events are taken from its CoAP messages.
pub(crate) struct Wakaama {
    child: Child,
    commands: ChildStdin,
    events: Receiver<Value>,
    /// Everything that happened so far.
    pub(crate) seen: Vec<Value>,
}

impl Wakaama {
    /// Starts it with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let program = std::env::var("SIMGATE_TEST_WAKAAMA").unwrap_or_else(|_| {
            let home = std::env::var("HOME").unwrap_or_default();
            format!("{home}/.cache/simgate/wakaama-client")
        });
        let mut client = foreign(&program);
        client.args(arguments).args(["--seconds", "110"]);
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = client.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        std::thread::spawn(move || {
            let events = lines
                .map_while(Result::ok)
                .filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            // The test may have enough.
            let _ = events.map(|event| sender.send(event)).find(Result::is_err);
        });
        Self { commands: child.stdin.take().unwrap(), child, events, seen: Vec::new() }
    }

    /// Tells it to do something.
    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Waits for the next event of this name.
    pub(crate) fn until(&mut self, name: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if event["event"] == name {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {name} after {:#?}", self.seen);
                }
            }
        }
    }
}

impl Drop for Wakaama {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
