//! `mosquitto_sub`, a foreign reader.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use super::sinks::PATIENCE;

/// `mosquitto_sub` on all topics, which prints each message as `topic payload`.
pub(crate) struct Reader {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Reader {
    pub(crate) fn start(port: u16, arguments: &[&str]) -> Self {
        // Without stdbuf it keeps its lines to itself while its output is no terminal.
        let mut child = Command::new("stdbuf")
            .args([
                "-oL",
                "mosquitto_sub",
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-V",
                "5",
                "-q",
                "1",
                "-v",
            ])
            .args(["-t", "#", "-d"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub is installed, as test.sh does");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let reader = Self { child, lines };
        reader.until("Subscribed");
        reader
    }

    /// The next message; what the reader says about itself is passed over.
    pub(crate) fn next(&self) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("a message");
            let own = ["Client ", "Subscribed"].iter().any(|word| line.starts_with(word));
            if !own {
                return line;
            }
        }
    }

    fn until(&self, word: &str) {
        while !self.lines.recv_timeout(PATIENCE).expect("a line").starts_with(word) {}
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
