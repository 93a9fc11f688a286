#!/usr/bin/env bash
# What a receiver that was away, or stays away, does to the gateway and to the other receivers.
#
#   benchmarks/backlog.sh drain [MILLIONS]      10
#   benchmarks/backlog.sh dead [ROUNDS]         2
#
# drain: fills the store with MILLIONS of messages whose webhook's receiver is down, then starts
#   that receiver. Prints the rate of the drain, the memory of the gateway and how late the events
#   of a second webhook are, before and during the drain; 2,000 datagrams per second go on then.
# dead: ten webhooks of which one is dead, its port closed or its requests never answered, beside
#   the nine others alone, in turns: what the nine got, how late, and how long the devices waited.
#
# Lateness is from acceptance in the gateway to arrival in the receiver, in milliseconds. RATE sets
# the messages per second of `dead` (1000: nine times as many deliveries). DELIVERY sets how the webhook
# of `drain` is delivered to, e.g. DELIVERY='{"batch":{"events":100,"waitMilliseconds":50}}'.
# Needs release builds of simgate and of the receiver (cargo build --release -p simulator --example
# receiver) and python3. SIMGATE and RECEIVER name other binaries.
set -euo pipefail
cd "$(dirname "$0")/.."
release="${CARGO_TARGET_DIR:-target}/release"
simgate="${SIMGATE:-$release/simgate}" receiver="${RECEIVER:-$release/examples/receiver}"
. benchmarks/processes.sh
coap=127.0.0.1:15683 udp=127.0.0.1:15684 api=127.0.0.1:15685
healthy=127.0.0.1:15690 away=127.0.0.1:15691
work="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null; rm -rf "$work"' EXIT

# A new store with so many SIMs.
prepare() {
    rm -rf "$work/data"
    "$simgate" simulate --devices "$1" --write-sims "$work/sims.csv" >/dev/null
    "$simgate" sims import "$work/sims.csv" --data "$work/data" >/dev/null
}

serve() {
    : >"$work/gateway.log"
    SIMGATE_DEVICES_UDP="[{ listen = \"$udp\" }]" SIMGATE_DEVICES_COAP="[{ listen = \"$coap\" }]" \
        SIMGATE_API_LISTEN="$api" SIMGATE_LOG_FILTER=error \
        SIMGATE_INTEGRATIONS_ALLOW_HTTP_LOOPBACK=true \
        "$simgate" serve --data "$work/data" >"$work/gateway.log" 2>&1 &
    gateway=$!
    wait_for ^ready "$work/gateway.log"
}

# Starts a receiver NAME at ADDRESS, its output in a file of that name; leaves its id in `started`.
receive() {
    "$receiver" "$2" --ledger "${@:3}" >"$work/$1" &
    started=$!
    wait_for '^receives on' "$work/$1"
}

stop() {
    kill "$@"
    wait "$@" 2>/dev/null || true
}

memory() { awk -v field="$1:" '$1 == field { print int($2 / 1024) " MB" }' "/proc/$gateway/status"; }
seconds() { date +%s.%N; }
calculate() { python3 -c "print(round($1))"; }

drain() {
    local total="$(($1 * ${UNIT:-1000000}))" devices=10000 began filled waiting
    prepare "$devices"
    serve
    local options=()
    [ -z "${DELIVERY:-}" ] || options+=(--delivery "$DELIVERY")
    python3 benchmarks/template.py "$simgate" "$work/data" "$api" "${options[@]}" \
        "http://$away/webhook"
    echo "idle: $(memory VmRSS)"
    began="$(seconds)"
    "$simgate" simulate "$coap" --protocol coap-non --devices "$devices" --outstanding 1000 \
        --count "$total" --payload template-three-fields --json >"$work/fill" 2>/dev/null
    filled="$(python3 -c "import json; print(json.load(open('$work/fill'))['acknowledged'])")"
    echo "$filled messages stored, $(calculate "$filled / ($(seconds) - $began)")/s, nobody receives;" \
        "$(memory VmRSS)"
    # A new start tries the receiver again soon, and not after the pause that has grown to minutes.
    stop "$gateway"
    serve
    receive healthy "$healthy"
    local healthy_id="$started"
    python3 benchmarks/template.py "$simgate" "$work/data" "$api" --webhooks-only \
        "http://$healthy/webhook"
    "$simgate" simulate "$udp" --protocol udp --devices 1000 --rate 2000 --duration 1h \
        --payload template-three-fields >/dev/null 2>&1 &
    local traffic=$!
    sleep 2
    ask_receiver "$healthy_id" "$work/healthy" /webhook.timed >/dev/null
    sleep 10
    echo "after the new start: $(memory VmRSS)"
    echo "other webhook before the drain: events, p50, p99, max ms:" \
        "$(ask_receiver "$healthy_id" "$work/healthy" /webhook.{timed,p50_ms,p99_ms,max_ms})"

    # The peak (VmHWM) is counted anew from here.
    echo 5 >"/proc/$gateway/clear_refs"
    receive away "$away"
    waiting="$(seconds)"
    until [ "$(ask_receiver "$started" "$work/away" /webhook.events)" -gt 0 ]; do sleep 0.05; done
    began="$(seconds)"
    ask_receiver "$healthy_id" "$work/healthy" /webhook.timed >/dev/null
    until [ "$(ask_receiver "$started" "$work/away" /webhook.distinct)" -ge "$filled" ]; do
        sleep 0.5
    done
    echo "first event $(calculate "1000 * ($began - $waiting)") ms after the receiver's start;" \
        "drained at $(calculate "$filled / ($(seconds) - $began)")/s;" \
        "peak $(memory VmHWM), now $(memory VmRSS)"
    echo "other webhook during the drain: events, p50, p99, max ms:" \
        "$(ask_receiver "$healthy_id" "$work/healthy" /webhook.{timed,p50_ms,p99_ms,max_ms})"
    stop "$traffic"
    sleep 5
    echo "in the end: events, distinct, duplicates, out of order:"
    echo "  drained: $(ask_receiver "$started" "$work/away" /webhook.{events,distinct,duplicates,out_of_order})"
    echo "  other:   $(ask_receiver "$healthy_id" "$work/healthy" /webhook.{events,distinct,duplicates,out_of_order})"
}

# One run of ten seconds beside a tenth webhook that is: none, closed or hanging.
beside() {
    local urls=() figures=() number
    for number in $(seq 9); do
        urls+=("http://$healthy/$number")
        figures+=("/$number."{timed,distinct,duplicates,p50_ms,p99_ms,max_ms})
    done
    [ "$1" = none ] || urls+=("http://$away/webhook")
    prepare 1000
    receive healthy "$healthy"
    local healthy_id="$started" to_stop=("$started")
    if [ "$1" = hanging ]; then
        receive away "$away" --hang
        to_stop+=("$started")
    fi
    serve
    python3 benchmarks/template.py "$simgate" "$work/data" "$api" "${urls[@]}"
    local load=("$simgate" simulate "$coap" --devices 1000 --rate "${RATE:-1000}"
        --payload template-three-fields --json)
    # What is dead has been noticed after this.
    "${load[@]}" --duration 5s >/dev/null 2>&1
    sleep 1
    ask_receiver "$healthy_id" "$work/healthy" "${figures[@]}" >"$work/before"
    "${load[@]}" --duration 10s >"$work/devices" 2>/dev/null
    ask_receiver "$healthy_id" "$work/healthy" "${figures[@]}" >"$work/after"
    python3 - "$work" "$1" <<'PYTHON'
import json, sys

work, tenth = sys.argv[1:]
devices = json.load(open(f"{work}/devices"))
before, after = (
    [list(map(int, figures[place : place + 6])) for place in range(0, 54, 6)]
    for figures in (open(f"{work}/{name}").read().split() for name in ("before", "after"))
)
delivered = [late[1] - early[1] for early, late in zip(before, after)]
latency = devices["latency"]
print(
    f"{tenth:>8}  {devices['acknowledged'] / 10:10.0f}  {latency['p50_us'] / 1000:7.2f}"
    f"  {latency['p99_us'] / 1000:7.2f}  {devices['lost']:5}  {sum(delivered) / 10:15.0f}"
    f"  {min(delivered) / 10:10.0f}  {max(page[3] for page in after):7}"
    f"  {max(page[4] for page in after):7}  {max(page[5] for page in after):7}"
)
PYTHON
    stop "$gateway" "${to_stop[@]}"
}

dead() {
    echo "           devices: all               lost  nine webhooks:       slowest  latest of the nine:"
    echo "   tenth  acknowl./s   p50 ms   p99 ms         delivered/s in all  webhook/s   p50 ms   p99 ms   max ms"
    local round tenth
    for round in $(seq "$1"); do
        for tenth in none closed hanging; do beside "$tenth"; done
    done
}

case "${1:-}" in
    drain) drain "${2:-10}" ;;
    dead) dead "${2:-2}" ;;
    *) sed -n '2,5p' "$0" && exit 2 ;;
esac
