#!/usr/bin/env bash
# UDP -> decode -> one HTTP POST per event to a local receiver that answers at once.
#
#   benchmarks/webhook.sh [RATE] [SECONDS] [DEVICES]
#
# Sends RATE datagrams per second and prints, each second, what the receiver got; at the end how
# many messages were lost before the store, and how many wait behind the end of the log.
# Needs a release build and: cargo build --release -p simulator --example receiver
set -euo pipefail
rate="${1:-15000}" seconds="${2:-10}" devices="${3:-1000}"
cd "$(dirname "$0")/.."
release="${CARGO_TARGET_DIR:-target}/release"
work="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

"$release/examples/receiver" 127.0.0.1:15690 &
"$release/simgate" simulate --devices "$devices" --write-sims "$work/sims.csv" >/dev/null
"$release/simgate" sims import "$work/sims.csv" --data "$work/data" >/dev/null
SIMGATE_DEVICES_UDP='[{ listen = "127.0.0.1:15684" }]' SIMGATE_DEVICES_COAP='[]' \
    SIMGATE_API_LISTEN=127.0.0.1:15685 SIMGATE_LOG_FILTER=warn \
    SIMGATE_INTEGRATIONS_ALLOW_HTTP_LOOPBACK=true \
    "$release/simgate" serve --data "$work/data" >/dev/null &
sleep 1
python3 benchmarks/template.py "$release/simgate" "$work/data" 127.0.0.1:15685 \
    http://127.0.0.1:15690/webhook
"$release/simgate" simulate 127.0.0.1:15684 --protocol udp --devices "$devices" --rate "$rate" \
    --duration "${seconds}s" --payload template-three-fields 2>/dev/null
for wait in 0 1; do
    sleep "$wait"
    echo "$wait s after the last datagram:"
    curl -s http://127.0.0.1:15685/metrics |
        grep -E '^simgate_(messages_total.*UDP|push_(delivered|lag)|kernel_receive_drops.*UDP)' |
        grep -v ' 0$' || true
done
