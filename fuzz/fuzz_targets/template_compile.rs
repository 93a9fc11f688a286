//! Any text: compiling it answers, and what compiles runs.

#![no_main]

use energy_saver::Program;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    match Program::compile(source) {
        Ok(program) => {
            let _ = program.run(&[]);
            let _ = program.run(&[0xff; 64]);
        }
        Err(error) => assert!(error.to_string().len() < 16 * 1024),
    }
});
