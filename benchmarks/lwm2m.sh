#!/usr/bin/env bash
# LwM2M: registrations, notifications, Send, commands, memory and restart of one gateway, each
# figure under simulated devices on the same machine.
#
#   benchmarks/lwm2m.sh [ROUNDS] [SECONDS] [DEVICES] [OUTSTANDING]
#
# DEVICES register and stay; 1,000 of them notify and send; 10,000 have a command each that their
# registration fires. Needs a release build, python3 and curl.
set -euo pipefail
rounds="${1:-3}" seconds="${2:-10}" devices="${3:-100000}" outstanding="${4:-128}"
cd "$(dirname "$0")/.."
simgate="${CARGO_TARGET_DIR:-target}/release/simgate"
work="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
target=127.0.0.1:15783 api=http://127.0.0.1:15785/management-api

serve() {
    SIMGATE_DEVICES_UDP='[]' SIMGATE_DEVICES_COAP='[]' SIMGATE_DEVICES_COAPS='[]' \
        SIMGATE_DEVICES_LWM2M="[{ listen = \"$target\" }]" SIMGATE_DEVICES_LWM2MS='[]' \
        SIMGATE_API_LISTEN=127.0.0.1:15785 SIMGATE_LOG_FILTER=warn \
        "$simgate" serve --data "$work/data" >"$work/greeting" &
    gateway=$!
    until grep -q ^ready "$work/greeting"; do sleep 0.05; done
}

fleet() { "$simgate" simulate "$target" --protocol lwm2m --json "$@" 2>"$work/errors"; }

# Values of a report, by their paths.
of_report() {
    python3 -c 'import json, sys
report = json.load(sys.stdin)
for path in sys.argv[1:]:
    value = report
    for name in path.split("."):
        value = value[name]
    print(round(value), end=" ")
print()' "$@"
}

# Asks the first COUNT devices for ACTION, 100 at a time.
ask() {
    python3 - "$api" "$work/client" "$1" "$2" <<'PYTHON'
import base64, json, sys, urllib.request

api, client, count, action = sys.argv[1], json.load(open(sys.argv[2])), int(sys.argv[3]), sys.argv[4]


def call(path, body, authorization):
    headers = {"content-type": "application/json", "authorization": authorization}
    request = urllib.request.Request(api + path, json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))


secret = base64.b64encode(f"{client['client_id']}:{client['client_secret']}".encode()).decode()
token = call("/oauth/token", {"grant_type": "client_credentials"}, "Basic " + secret)
for first in range(0, count, 100):
    ids = [str(8988299000000000000 + number) for number in range(first, first + 100)]
    body = json.loads(action) | {"deviceIds": ids}
    accepted = call("/v1/integrate/devices/actions/LWM2M", body, "Bearer " + token["access_token"])
    assert len(accepted["acceptedRequests"]) == 100, accepted["message"]
PYTHON
}

resident() { awk '/VmRSS/ { print int($2 / 1024) " MB" }' "/proc/$gateway/status"; }

"$simgate" simulate --devices "$devices" --write-sims "$work/sims.csv" >/dev/null
"$simgate" sims import "$work/sims.csv" --data "$work/data" >/dev/null
"$simgate" client create --name benchmark --data "$work/data" >"$work/client"
serve
echo "resident with $devices SIMs, none registered: $(resident)"

echo "registrations, durable 2.01: per second, p50 and p99 in µs, lost"
for ((round = 0; round < rounds; round++)); do
    fleet --devices "$devices" --register-only --outstanding "$outstanding" |
        of_report acknowledged_per_second latency.p50_us latency.p99_us lost
done
echo "resident with $devices registered: $(resident)"

kill -9 "$gateway"
wait "$gateway" 2>/dev/null || true
serve
echo "after kill -9: $(tail -1 "$work/greeting"), $(resident)," \
    "$(curl -s "${api%/management-api}/metrics" | grep '^simgate_lwm2m_registrations')"

echo "commands, each fired by the registration of its device: sent, p50 and p99 in µs"
for ((round = 0; round < rounds; round++)); do
    ask 10000 '{"action":"write","resourceAddress":"/3311/0/5850","data":"true","requestMode":"SEND_WHEN_ACTIVE"}'
    fleet --devices 10000 --register-only --rate 10000 |
        of_report lwm2m.commands_timed lwm2m.command_latency.p50_us lwm2m.command_latency.p99_us
done

echo "confirmable notifications, stored before the acknowledgement: per second, p50 and p99 in µs, lost"
for ((round = 0; round < rounds; round++)); do
    fleet --devices 1000 --outstanding "$outstanding" --ignore-pmin --duration "$((seconds + 2))s" >"$work/report" &
    notifying=$!
    until grep -q 'devices are registered' "$work/errors" 2>/dev/null; do sleep 0.05; done
    ask 1000 '{"action":"observe-start","resourceAddress":"/3303/0/5700"}'
    wait "$notifying"
    of_report acknowledged_per_second latency.p50_us latency.p99_us lost <"$work/report"
done

echo "Send, stored before the 2.04: per second, p50 and p99 in µs, lost"
for ((round = 0; round < rounds; round++)); do
    fleet --devices 1000 --outstanding "$outstanding" --send --duration "${seconds}s" |
        of_report acknowledged_per_second latency.p50_us latency.p99_us lost
done

echo "updates: per second, p50 and p99 in µs, lost"
for ((round = 0; round < rounds; round++)); do
    fleet --devices 1000 --outstanding "$outstanding" --updates --duration "${seconds}s" |
        of_report acknowledged_per_second latency.p50_us latency.p99_us lost
done
