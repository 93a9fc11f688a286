#!/usr/bin/env bash
# What a flood of ClientHellos does to sessions, to handshakes and to the memory.
#
#   benchmarks/dtls_flood.sh [SECONDS] [SESSION_RATE] [HANDSHAKE_RATE] [TIMES]
#
# 1,000 devices send in open sessions, others make new sessions at HANDSHAKE_RATE; then the same
# beside TIMES as many ClientHellos of strangers. Needs a release build.
set -euo pipefail
seconds="${1:-6}" session_rate="${2:-20000}" handshake_rate="${3:-500}" times="${4:-20}"
cd "$(dirname "$0")/.."
simgate="${CARGO_TARGET_DIR:-target}/release/simgate"
work="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT

"$simgate" simulate --devices 2000 --write-sims "$work/sims.csv" >/dev/null
"$simgate" sims import "$work/sims.csv" --data "$work/data" >/dev/null
SIMGATE_DEVICES_UDP='[]' SIMGATE_DEVICES_COAP='[{ listen = "127.0.0.1:15683" }]' \
    SIMGATE_DEVICES_COAPS='[{ listen = "127.0.0.1:15684" }]' \
    SIMGATE_API_LISTEN=127.0.0.1:15685 SIMGATE_LOG_FILTER=warn \
    "$simgate" serve --data "$work/data" >/dev/null &
gateway=$!
sleep 1
fleet() { "$simgate" simulate 127.0.0.1:15684 --protocol coaps --bootstrap 127.0.0.1:15683 --devices 1000 --json "$@" 2>"$work/errors"; }
memory() { awk '/VmRSS/ { print $2 }' "/proc/$gateway/status"; }

round() {
    local before
    fleet --duration "${seconds}s" --rate "$session_rate" >"$work/sessions.json" &
    local sessions=$!
    sleep 1
    before="$(memory)"
    # The second thousand of the fleet.
    fleet --base 127.16.3.233 --requests-per-session 0 --rate "$handshake_rate" --garbage "$1" \
        --duration "$((seconds - 2))s" >"$work/handshakes.json"
    local grown=$(($(memory) - before))
    wait "$sessions"
    python3 - "$work" "$1" "$grown" <<'EOF'
import json, sys
work, flood, grown = sys.argv[1:]
s, h = (json.load(open(f"{work}/{name}.json")) for name in ("sessions", "handshakes"))
d = h["dtls"]
print(f"{flood:>6} hellos/s: sessions {s['acknowledged_per_second']:.0f}/s, p50 {s['latency']['p50_us']} us,"
      f" p99 {s['latency']['p99_us']} us, lost {s['lost']}; handshakes {d['handshakes_completed']} of"
      f" {d['handshakes_begun']}, failed {d['handshakes_failed']}, p99 {d['handshake_latency']['p99_us']} us;"
      f" hellos sent {h['garbage_sent']}, answered {h['garbage_answered']}; memory +{grown} KiB")
EOF
}

# The first one warms up.
round 0 >/dev/null
for _ in 1 2; do
    round 0
    round "$((handshake_rate * times))"
done
