#!/usr/bin/env bash
# UDP -> decode -> one HTTPS POST per event: simgate beside Node-RED and syslog-ng, under the same
# generator and with the same receiver, in turns. Then all of them with a receiver that answers 500
# to 15 % of the requests. Then MQTT: publishes with QoS 1 over one connection to mosquitto, by
# mosquitto_pub and by simgate's own benchmark.
#
#   benchmarks/push.sh [PRODUCT...]      node-red syslog-ng simgate simgate-batch mosquitto mqtt
#
# Each of the first four climbs: the rate is raised by a quarter from step to step for as long as
# all but 0.1 % of the datagrams arrive within a second after the last one was sent. What it held is
# its rate; what it delivered in the last step that it did not hold stands beside it.
#
#   simgate-batch  the same with up to 100 events in a request
#   syslog-ng      does not decode: the payload goes out as base64
#   ROUNDS=2       how often all take their turn
#   STEP=6         seconds of a step
#   FAIL_RATE=200  datagrams per second for 10 s where the receiver fails
#   PATIENCE=600   seconds that the failing receiver waits for events before they count as missing
#   PLAIN=1        HTTP without TLS, also for a gateway that cannot be told whom to trust
#   HTTP2=1        the receiver offers HTTP/2, which simgate takes and the others do not know
#
# Needs release builds of simgate and of the receiver (cargo build --release -p simulator --example
# receiver), python3, npm (Node-RED is installed into the user's cache folder), and the Debian
# packages syslog-ng-core, syslog-ng-mod-http, mosquitto and mosquitto-clients. SIMGATE and RECEIVER
# name other binaries.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds="${ROUNDS:-2}" step="${STEP:-6}" fail_rate="${FAIL_RATE:-200}" patience="${PATIENCE:-600}"
release="${CARGO_TARGET_DIR:-target}/release"
simgate="${SIMGATE:-$release/simgate}" receiver="${RECEIVER:-$release/examples/receiver}"
[ $# -gt 0 ] || set -- node-red syslog-ng simgate simgate-batch mosquitto mqtt
devices=1000 udp=127.0.0.1:15684 api=127.0.0.1:15685
scheme=$([ "${PLAIN:-0}" = 1 ] && echo http || echo https)
url="$scheme://127.0.0.1:15690/webhook"
node_red="${XDG_CACHE_HOME:-$HOME/.cache}/simgate/node-red"
. benchmarks/processes.sh
work="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null; rm -rf "$work"' EXIT

node-red() {
    mkdir -p "$work/node-red"
    cat >"$work/node-red/settings.js" <<JS
module.exports = {
    httpAdminRoot: false, httpNodeRoot: false, uiHost: "127.0.0.1", uiPort: 15699,
    flowFile: "$work/node-red/flow.json", logging: { console: { level: "info" } },
}
JS
    # "persist" asks for connections that stay open; of those with TLS its HTTP client closes most all
    # the same once some requests are under way at a time. An answer that is no success goes nowhere.
    cat >"$work/node-red/flow.json" <<JSON
[{"id":"flow","type":"tab","label":"push"},
 {"id":"in","type":"udp in","z":"flow","iface":"","port":"${udp#*:}","ipv":"udp4","multicast":"false",
  "group":"","datatype":"buffer","wires":[["decode"]]},
 {"id":"decode","type":"function","z":"flow","outputs":1,"wires":[["post"]],"func":$(
        python3 -c 'import json, sys; print(json.dumps(sys.stdin.read()))' <<'JS'
const bytes = msg.payload, value = {
    temperature_tenths: bytes.readInt16BE(0),
    battery_millivolts: bytes.readUInt16BE(2),
    count: bytes.readUInt32BE(4),
};
return { headers: { "content-type": "application/json" }, payload: {
    type: "TELEMETRY_DATA", id: msg._msgid, received: String(Date.now()),
    version: "1.0.0", source: "UDP", device: { iccid: msg.ip, ip: msg.ip },
    payload: { type: "JSON", value },
} };
JS
    )},
 {"id":"post","type":"http request","z":"flow","method":"POST","ret":"txt","paytoqs":"ignore",
  "url":"$url","tls":"$([ "$scheme" = http ] || echo tls)","persist":true,"senderr":true,
  "wires":[["end"]]},
 {"id":"tls","type":"tls-config","cert":"","key":"","ca":"$work/ca.pem","verifyservercert":true},
 {"id":"end","type":"function","z":"flow","outputs":0,"func":"return null;","wires":[]}]
JSON
    node "$node_red/node_modules/node-red/red.js" --userDir "$work/node-red" \
        --settings "$work/node-red/settings.js" >"$work/product.log" 2>&1 &
    product=$!
    wait_for 'udp listener at' "$work/product.log"
}

syslog-ng() {
    cat >"$work/syslog-ng.conf" <<CONF
@version: 3.38
options { use-uniqid(yes); use-dns(no); keep-hostname(yes); stats-freq(0); };
source devices {
    network(transport("udp") ip("${udp%:*}") port(${udp#*:}) flags(no-parse) so-rcvbuf(4194304)
        log-iw-size(100000));
};
destination cloud {
    http(url("$url") method("POST") headers("content-type: application/json")
        body('{"id":"\$UNIQID","device":{"ip":"\$SOURCEIP"},"payload":"\$(base64-encode \$MSG)"}')
        workers(4) log-fifo-size(1000000) time-reopen(1)
        $([ "$scheme" = https ] && echo "tls(ca-file(\"$work/ca.pem\"))"));
};
log { source(devices); destination(cloud); };
CONF
    command syslog-ng --foreground --no-caps --cfgfile "$work/syslog-ng.conf" \
        --persist-file "$work/syslog-ng.persist" --control "$work/syslog-ng.control" \
        --pidfile "$work/syslog-ng.pid" >"$work/product.log" 2>&1 &
    product=$!
    sleep 1
}

simgate() {
    rm -rf "$work/data"
    "$simgate" simulate --devices "$devices" --write-sims "$work/sims.csv" >/dev/null
    "$simgate" sims import "$work/sims.csv" --data "$work/data" >/dev/null
    local settings=(SIMGATE_INTEGRATIONS_ALLOW_HTTP_LOOPBACK=true)
    if [ "$scheme" = https ]; then
        settings=(SIMGATE_INTEGRATIONS_EXTRA_ROOTS="[\"$work/ca.pem\"]"
            SIMGATE_INTEGRATIONS_ALLOW_NETWORKS='["127.0.0.0/8"]' SIMGATE_INTEGRATIONS_ALLOW_PORTS='[15690]')
    fi
    env "${settings[@]}" SIMGATE_DEVICES_UDP="[{ listen = \"$udp\" }]" SIMGATE_DEVICES_COAP='[]' \
        SIMGATE_API_LISTEN="$api" SIMGATE_LOG_FILTER=warn \
        "$simgate" serve --data "$work/data" >"$work/product.log" 2>&1 &
    product=$!
    wait_for ^ready "$work/product.log"
    python3 benchmarks/template.py "$simgate" "$work/data" "$api" "$@" "$url"
}

simgate-batch() { simgate --delivery '{"batch":{"events":100,"waitMilliseconds":50}}'; }

# Starts a receiver, with more options of its own, and a product.
begin() {
    local options=(--ledger)
    # The others speak HTTP/1.1 alone; HTTP2=1 lets simgate speak HTTP/2.
    [ "$scheme" = http ] || options+=(--tls "$work")
    [ "$scheme" = http ] || [ "${HTTP2:-0}" = 1 ] || options+=(--http1)
    "$receiver" 127.0.0.1:15690 "${options[@]}" "${@:2}" >"$work/receiver.log" &
    receives=$!
    wait_for '^receives on' "$work/receiver.log"
    "$1"
}

end() {
    kill "$product" "$receives"
    wait "$product" "$receives" 2>/dev/null || true
}

# A count of the receiver: distinct events, or duplicates.
count() { ask_receiver "$receives" "$work/receiver.log" "/webhook.$1"; }

# Sends at a rate for some seconds; says how many datagrams that were.
send() {
    "$simgate" simulate "$udp" --protocol udp --devices "$devices" --rate "$1" \
        --duration "${2}s" --payload template-three-fields --json 2>/dev/null |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["sent"])'
}

# Raises the rate from the given one, or halves it until one is held; leaves `held` and `flooded`,
# in events per second.
climb() {
    local rate="$2"
    held=0 flooded=0
    while [ "$held" = 0 ] && [ "$rate" -ge 50 ]; do
        begin "$1"
        send "$((rate / 2))" 2 >/dev/null
        sleep 1
        while is_held "$rate"; do held="$achieved" rate="$((rate * 5 / 4))"; done
        end
        rate="$((rate / 2))"
    done
}

is_held() {
    local before sent at_once delivered
    before="$(count distinct)"
    sent="$(send "$1" "$step")"
    at_once="$(count distinct)"
    sleep 1
    delivered="$(($(count distinct) - before))"
    achieved="$((sent / step))"
    # Also the generator may be what does not hold the rate.
    if [ "$((delivered * 1000))" -ge "$((sent * 999))" ] && [ "$((achieved * 20))" -ge "$(($1 * 19))" ]; then
        return 0
    fi
    flooded="$(((at_once - before) / step))"
    return 1
}

# What arrives when the receiver refuses 15 % of the requests.
refuse() {
    local sent delivered=0 started=$SECONDS
    begin "$1" --fail 15
    sent="$(send "$fail_rate" 10)"
    sleep 5
    while [ "$delivered" -lt "$sent" ] && [ $((SECONDS - started)) -lt "$patience" ]; do
        # What repeats nothing, or has given up, brings nothing new for half a minute at last.
        local before="$delivered"
        sleep "$([[ "$1" = simgate* ]] && echo 1 || echo 30)"
        delivered="$(count distinct)"
        [[ "$1" = simgate* ]] || [ "$delivered" -gt "$before" ] || break
    done
    printf '%-14s %8d %10d %8d %7.2f %11d %8d\n' "$1" "$sent" "$delivered" "$((sent - delivered))" \
        "$(python3 -c "print(100 * ($sent - $delivered) / $sent)")" "$(count duplicates)" \
        "$((SECONDS - started))"
    end
}

# 60,000 publishes of 300 bytes with QoS 1 over one connection, by the rival's own client. They must
# be fewer than 65,536: mosquitto_pub 2.0.11 leaves, with lines unsent, at the acknowledgement of the
# first message with the packet identifier of its last.
mosquitto() {
    printf 'listener 15883 127.0.0.1\nallow_anonymous true\nsys_interval 1\n' \
        >"$work/mosquitto.conf"
    command mosquitto -c "$work/mosquitto.conf" >"$work/product.log" 2>&1 &
    product=$!
    sleep 1
    python3 -c 'for number in range(60000): print(f"{number:0300d}")' >"$work/lines"
    local round
    for round in $(seq "$rounds"); do
        python3 - "$work/lines" "$round" <<'PYTHON'
import subprocess, sys, time

command = "mosquitto_pub -h 127.0.0.1 -p 15883 -t devices/events -q 1 -l".split()
started = time.monotonic()
subprocess.run(command, stdin=open(sys.argv[1]), check=True)
print(f"{sys.argv[2]:>5}  mosquitto_pub  {60_000 / (time.monotonic() - started):10.0f}/s")
PYTHON
    done
    sleep 2
    echo "the broker got $(mosquitto_sub -h 127.0.0.1 -p 15883 -C 1 -W 5 \
        -t '$SYS/broker/publish/messages/received') of $((rounds * 60000))"
    kill "$product"
    wait "$product" || true
}

# The same work by simgate's own client.
mqtt() { cargo bench -p cloud-integrator --bench mqtt; }

pushers=()
for product_name in "$@"; do
    case "$product_name" in
        node-red) [ -d "$node_red/node_modules/node-red" ] ||
            npm install --prefix "$node_red" --no-audit --no-fund node-red >/dev/null ;&
        syslog-ng | simgate | simgate-batch) pushers+=("$product_name") ;;
    esac
done

declare -A first=([node-red]=500 [syslog-ng]=8000 [simgate]=5000 [simgate-batch]=10000) best=()
if [ ${#pushers[@]} -gt 0 ]; then
    echo "round  product        held/s  delivered/s when flooded   ($scheme)"
    for round in $(seq "$rounds"); do
        for name in "${pushers[@]}"; do
            climb "$name" "${first[$name]}"
            printf '%5d  %-14s %6d %27d\n' "$round" "$name" "$held" "$flooded"
            [ "$held" -le "${best[$name]:-0}" ] || best[$name]="$held"
        done
    done
    for rival in node-red syslog-ng; do
        for own in simgate simgate-batch; do
            if [ "${best[$rival]:-0}" -gt 0 ] && [ "${best[$own]:-0}" -gt 0 ]; then
                python3 -c "print('$own: %.1f x $rival' % (${best[$own]} / ${best[$rival]}))"
            fi
        done
    done
    echo
    echo "receiver that refuses 15 %, $fail_rate/s for 10 s:"
    echo "product            sent  delivered  missing       %  duplicates  seconds"
    for name in "${pushers[@]}"; do refuse "$name"; done
fi
for product_name in "$@"; do
    case "$product_name" in mosquitto | mqtt) echo && "$product_name" ;; esac
done
