#!/usr/bin/env bash
# Builds every fuzz target with coverage feedback and runs each for SECONDS_EACH seconds.
# The sanitizer coverage pass is a code generation option of the stable compiler; an address
# sanitizer would need a nightly one and is not used: the decoders hold no unsafe code.
set -euo pipefail
cd "$(dirname "$0")"
seconds="${SECONDS_EACH:-5}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/fuzz"
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions"
host="$(rustc -vV | sed -n 's/^host: //p')"
cargo build --quiet --release --target "$host"
for target in fuzz_targets/*.rs; do
    name="$(basename "$target" .rs)"
    corpus="$(mktemp -d)"
    said="$corpus.log"
    echo "fuzz: $name for $seconds s"
    status=0
    "$CARGO_TARGET_DIR/$host/release/$name" -max_total_time="$seconds" -rss_limit_mb=512 \
        -timeout=5 -verbosity=0 -print_final_stats=1 -artifact_prefix="$corpus/" "$corpus" \
        > "$said" 2>&1 || status=$?
    grep -E 'number_of_executed_units|ERROR|panicked|SUMMARY|Base64' "$said" || true
    rm -r "$corpus" "$said"
    if [ "$status" -ne 0 ]; then
        echo "fuzz: $name ended with $status; its input stands above, in Base64"
        exit 1
    fi
done
