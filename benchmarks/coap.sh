#!/usr/bin/env bash
# CoAP throughput of simgate beside libcoap's coap-server-notls, under the same generator, in turn.
#
#   benchmarks/coap.sh [ROUNDS] [SECONDS] [DEVICES] [OUTSTANDING]
#
# libcoap answers PUT /example_data and stores nothing. simgate answers POST / after the durable
# commit, with a template active. Needs libcoap3-bin and a release build.
set -euo pipefail
rounds="${1:-3}" seconds="${2:-5}" devices="${3:-1000}" outstanding="${4:-64}"
cd "$(dirname "$0")/.."
simgate="${CARGO_TARGET_DIR:-target}/release/simgate"
work="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT

per_second() {
    "$simgate" simulate "$@" --devices "$devices" --outstanding "$outstanding" \
        --duration "${seconds}s" --json 2>/dev/null |
        python3 -c 'import json, sys
r = json.load(sys.stdin)
print(round(r["acknowledged_per_second"]), r["latency"]["p50_us"], r["latency"]["p99_us"], r["lost"])'
}

"$simgate" simulate --devices "$devices" --write-sims "$work/sims.csv" >/dev/null
"$simgate" sims import "$work/sims.csv" --data "$work/data" >/dev/null
SIMGATE_DEVICES_UDP='[]' SIMGATE_DEVICES_COAP='[{ listen = "127.0.0.1:15684" }]' \
    SIMGATE_API_LISTEN=127.0.0.1:15685 SIMGATE_LOG_FILTER=warn \
    "$simgate" serve --data "$work/data" >/dev/null &
sleep 1
python3 benchmarks/template.py "$simgate" "$work/data" 127.0.0.1:15685

echo "round  server   acknowledged/s  p50 us  p99 us  lost"
for round in $(seq "$rounds"); do
    # A fresh one each time: it gets slower with each session that it has seen.
    coap-server-notls -A 127.0.0.1 -p 15683 >/dev/null 2>&1 &
    libcoap=$!
    sleep 0.5
    read -r rate p50 p99 lost <<<"$(per_second 127.0.0.1:15683 --method put --path /example_data)"
    kill "$libcoap"
    printf '%5d  libcoap  %14d  %6d  %6d  %4d\n' "$round" "$rate" "$p50" "$p99" "$lost"
    read -r own p50 p99 lost <<<"$(per_second 127.0.0.1:15684 --payload template-three-fields)"
    printf '%5d  simgate  %14d  %6d  %6d  %4d   %s x libcoap\n' "$round" "$own" "$p50" "$p99" \
        "$lost" "$(python3 -c "print(round($own / $rate, 2))")"
done
