//! Empty: the package exists to pin a version (see Cargo.toml).
