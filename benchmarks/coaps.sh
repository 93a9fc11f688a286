#!/usr/bin/env bash
# CoAP over DTLS: simgate beside libcoap's servers with OpenSSL and with GnuTLS, under the same
# generator, in turn.
#
#   benchmarks/coaps.sh [ROUNDS] [SECONDS] [DEVICES] [OUTSTANDING]
#
# First requests over open sessions: libcoap answers PUT /example_data and stores nothing, simgate
# answers POST / after the durable commit. Then full handshakes with PSK_AES_128_CCM_8, without the
# limit that keeps a part of the processor for sessions. At the end
# simgate with ten times the devices, and what 100,000 sessions cost. Needs libcoap3-bin and a
# release build.
set -euo pipefail
rounds="${1:-3}" seconds="${2:-5}" devices="${3:-1000}" outstanding="${4:-128}"
cd "$(dirname "$0")/.."
simgate="${CARGO_TARGET_DIR:-target}/release/simgate"
work="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
key=0123456789abcdef

# One value of the report of a run, by its path.
run() {
    local path="$1"
    shift
    "$simgate" simulate "$@" --protocol coaps --suite ccm-8 --json 2>/dev/null |
        python3 -c 'import json, sys
report = json.load(sys.stdin)
for path in sys.argv[1].split(","):
    value = report
    for name in path.split("."):
        value = value[name]
    print(round(value), end=" ")
print()' "$path"
}

requests() {
    run acknowledged_per_second,latency.p50_us,latency.p99_us,lost "$@" --outstanding "$outstanding" \
        --duration "${seconds}s"
}

handshakes() {
    run dtls.handshakes_per_second,dtls.handshake_latency.p50_us,dtls.handshake_latency.p99_us,dtls.handshakes_failed \
        "$@" --requests-per-session 0 --outstanding "$outstanding" --duration "${seconds}s"
}

"$simgate" simulate --devices 100000 --write-sims "$work/sims.csv" >/dev/null
"$simgate" sims import "$work/sims.csv" --data "$work/data" >/dev/null
SIMGATE_DEVICES_UDP='[]' SIMGATE_DEVICES_COAP='[{ listen = "127.0.0.1:15683" }]' \
    SIMGATE_DEVICES_COAPS='[{ listen = "127.0.0.1:15684", handshakes_per_second = 1000000 }]' \
    SIMGATE_API_LISTEN=127.0.0.1:15685 SIMGATE_LOG_FILTER=warn \
    "$simgate" serve --data "$work/data" >/dev/null &
gateway=$!
sleep 1
own=(127.0.0.1:15684 --bootstrap 127.0.0.1:15683)

# A fresh libcoap each time: it gets slower with each session that it has seen.
libcoap() {
    "coap-server-$1" -A 127.0.0.1 -p 15693 -k "$key" >/dev/null 2>&1 &
    local server=$!
    sleep 0.5
    "$2" 127.0.0.1:15694 --psk "$key" --method put --path /example_data --devices "$devices"
    kill "$server"
    wait "$server" 2>/dev/null || true
}

for work_of in requests handshakes; do
    echo "$work_of"
    echo "round  server            /s  p50 us  p99 us  lost or failed"
    for round in $(seq "$rounds"); do
        best=0
        for build in openssl gnutls; do
            read -r rate p50 p99 lost <<<"$(libcoap "$build" "$work_of")"
            best=$((rate > best ? rate : best))
            printf '%5d  libcoap-%-7s  %6d  %6d  %6d  %d\n' "$round" "$build" "$rate" "$p50" "$p99" "$lost"
        done
        read -r rate p50 p99 lost <<<"$("$work_of" "${own[@]}" --devices "$devices")"
        printf '%5d  simgate          %6d  %6d  %6d  %d   %s x the better\n' "$round" "$rate" "$p50" \
            "$p99" "$lost" "$(python3 -c "print(round($rate / $best, 2))")"
        if [ "$work_of" = requests ]; then
            read -r many p50 p99 lost <<<"$(requests "${own[@]}" --devices $((devices * 10)))"
            printf '%5d  simgate, x10     %6d  %6d  %6d  %d   %s of it\n' "$round" "$many" "$p50" \
                "$p99" "$lost" "$(python3 -c "print(round($many / $rate, 2))")"
        fi
    done
done

kill "$gateway"
wait "$gateway" || true
memory() { awk '/VmRSS/ { print $2 * 1024 }' "/proc/$gateway/status"; }
rm -rf "$work/data"
"$simgate" sims import "$work/sims.csv" --data "$work/data" >/dev/null
start() {
    SIMGATE_DEVICES_UDP='[]' SIMGATE_DEVICES_COAP='[{ listen = "127.0.0.1:15683" }]' \
        SIMGATE_DEVICES_COAPS='[{ listen = "127.0.0.1:15684", handshakes_per_second = 1000000 }]' \
        SIMGATE_API_LISTEN=127.0.0.1:15685 SIMGATE_LOG_FILTER=warn \
        "$simgate" serve --data "$work/data" >"$work/greeting" &
    gateway=$!
    until grep -q ^ready "$work/greeting"; do sleep 0.05; done
}
start
before="$(memory)"
run dtls.handshakes_completed "${own[@]}" --devices 100000 --outstanding 256 --count 1 >/dev/null
sleep 4
after="$(memory)"
echo "100000 sessions: $((after / 1000000)) MB in all, $(((after - before) / 100000)) bytes each;" \
    "on disk $(($(stat -c %s "$work/data/sessions.db") / 100000)) bytes each"
kill -9 "$gateway"
wait "$gateway" 2>/dev/null || true
start
echo "after kill -9: $(grep ^ready "$work/greeting"), $(($(memory) / 1000000)) MB," \
    "$(curl -s http://127.0.0.1:15685/metrics | grep imported)"
