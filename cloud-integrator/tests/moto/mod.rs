//! A foreign implementation of AWS: `moto_server`, a process of its own on a free port.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running server; it ends when dropped.
pub(crate) struct Moto {
    process: Child,
    /// Of every service.
    pub(crate) url: String,
}

impl Moto {
    /// Starts one, and returns when it answers.
    pub(crate) fn start() -> Self {
        let program = program();
        let mut process = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; see test.sh", program.display()));
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("Running on ")?.1.trim().to_owned()))
            .expect("the server says where it runs");
        // It logs each request: a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Beside the Python of the tests.
fn program() -> PathBuf {
    let python = std::env::var("SIMGATE_TEST_PYTHON").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/simgate/venv/bin/python")
    });
    Path::new(&python).with_file_name("moto_server")
}
