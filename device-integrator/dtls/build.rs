//! Compiles what we use of Mbed TLS 3.6, and our way into it.
//!
//! The sources are those of the package `mbedtls-rs-sys`, which the lock file pins by checksum.
//! Cargo itself says where it keeps them (`cargo metadata`), so this works with any home folder,
//! with vendored sources and offline.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that bundles the sources.
const PACKAGE: &str = "mbedtls-rs-sys";

/// Of the library's files, those that the configuration needs. `ssl_tls.c` is not among them: it
/// is compiled as a part of `c/session.c`.
const SOURCES: &[&str] = &[
    "aes.c",
    "aesce.c",
    "aesni.c",
    "ccm.c",
    "cipher.c",
    "cipher_wrap.c",
    "constant_time.c",
    "gcm.c",
    "md.c",
    "platform.c",
    "platform_util.c",
    "sha256.c",
    "ssl_ciphersuites.c",
    "ssl_client.c",
    "ssl_msg.c",
    "ssl_tls12_client.c",
    "ssl_tls12_server.c",
];

fn main() -> Result<(), Box<dyn Error>> {
    let ours = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("c");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", ours.display());
    let library = sources_folder()?;
    require_version_3_6(&library)?;
    let mut build = cc::Build::new();
    build
        .include(&ours)
        .include(library.join("include"))
        .include(library.join("library"))
        .define("MBEDTLS_CONFIG_FILE", "\"config_of_dtls.h\"")
        .std("c11")
        .define("_GNU_SOURCE", None)
        // Unoptimised ciphers make every test several times slower.
        .opt_level(2)
        .warnings(false)
        .files(SOURCES.iter().map(|file| library.join("library").join(file)))
        .file(ours.join("session.c"))
        .compile("dtls_mbedtls");
    Ok(())
}

/// Asks cargo where the package lies: without the network if it was fetched before.
fn sources_folder() -> Result<PathBuf, Box<dyn Error>> {
    let metadata = metadata(&["--offline"]).or_else(|_| metadata(&[]))?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata)?;
    // Another version of the package is another line of the lock file.
    let workspace = metadata["workspace_root"].as_str().ok_or("cargo metadata has no workspace")?;
    println!("cargo::rerun-if-changed={workspace}/Cargo.lock");
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let manifest = packages
        .iter()
        .find(|package| package["name"] == PACKAGE)
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or_else(|| format!("cargo metadata does not know the package {PACKAGE}"))?;
    let folder = Path::new(manifest).parent().ok_or("a manifest lies in a folder")?;
    Ok(folder.join("mbedtls"))
}

fn metadata(more: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
    let output = Command::new(env::var("CARGO")?)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml"))
        .args(more)
        .output()?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("cargo metadata failed: {reason}").into());
    }
    Ok(output.stdout)
}

/// `c/session.c` reads structures of the library, which change between branches.
fn require_version_3_6(library: &Path) -> Result<(), Box<dyn Error>> {
    let header = std::fs::read_to_string(library.join("include/mbedtls/build_info.h"))?;
    if !header.contains("#define MBEDTLS_VERSION_STRING         \"3.6.") {
        return Err(format!("{} is not Mbed TLS 3.6", library.display()).into());
    }
    Ok(())
}
