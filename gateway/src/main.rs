//! The program `simgate`.
fn main() {}
