#!/usr/bin/env bash
# From a position to its alert at a webhook: 1,000 devices on the road, each with a position per second, and a
# geofence round each of the 107 cells along the way. Prints how long after the arrival of the position its
# GEOFENCE event is at the webhook.
#
#   benchmarks/locator.sh            30 seconds
#   SECONDS_LONG=120 RATE=2000 benchmarks/locator.sh
set -euo pipefail
cd "$(dirname "$0")/.."

rate="${RATE:-1000}"
seconds="${SECONDS_LONG:-30}"
folder=$(mktemp -d)
cargo build --release --quiet -p gateway --bin simgate
simgate="${CARGO_TARGET_DIR:-target}/release/simgate"
cat > "$folder/simgate.toml" <<CONF
[api]
listen = "127.0.0.1:28280"
[devices]
coap = []
coaps = []
lwm2m = []
lwm2ms = []
[[devices.udp]]
listen = "127.0.0.1:24545"
[integrations]
allow_http_loopback = true
CONF
place=(--config "$folder/simgate.toml" --data "$folder/data")
"$simgate" simulate --devices 1000 --write-sims "$folder/sims.csv"
"$simgate" simulate --scenario drive --devices 1000 --write-cells "$folder/cells.csv"
"$simgate" simulate --scenario drive --print-template > "$folder/template.json"
"$simgate" sims import "$folder/sims.csv" "${place[@]}"
"$simgate" client create --name benchmark "${place[@]}" > "$folder/client.json"
"$simgate" serve "${place[@]}" > "$folder/log" 2>&1 &
gateway=$!
trap 'kill $gateway 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 100); do
    grep -q '^ready' "$folder/log" && break
    sleep 0.1
done
python3 - "$folder" "$simgate" "$rate" "$seconds" <<'PYTHON'
import base64, csv, datetime, json, subprocess, sys, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder, simgate, rate, seconds = sys.argv[1:]
base = "http://127.0.0.1:28280/management-api"
client = json.load(open(f"{folder}/client.json"))
user = f"{client['client_id']}:{client['client_secret']}".encode()


def call(path, body, authorization):
    request = urllib.request.Request(base + path, json.dumps(body).encode(), method="POST")
    request.add_header("content-type", "application/json")
    request.add_header("authorization", authorization)
    return json.load(urllib.request.urlopen(request))


basic = "Basic " + base64.b64encode(user).decode()
token = "Bearer " + call("/oauth/token?grant_type=client_credentials", {
    "grant_type": "client_credentials"}, basic)["access_token"]
delays = []


class Webhook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        sampled = datetime.datetime.fromisoformat(event["geofence"]["sampleTime"].replace("Z", "+00:00"))
        delays.append(time.time() - sampled.timestamp())
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
threading.Thread(target=server.serve_forever, daemon=True).start()
template = open(f"{folder}/template.json").read()
call("/v1/optimize/templates", {"name": "drive", "template": template, "protocolFilter": ["UDP"],
                                "status": "ACTIVE"}, token)
for number, cell in enumerate(csv.DictReader(open(f"{folder}/cells.csv"))):
    center = [float(cell["lon"]), float(cell["lat"])]
    call("/v1/locate/geofences", {"name": f"cell {number}", "type": "circle", "center": center,
                                  "radius": 1000}, token)
    time.sleep(0.01)
call("/v1/integrate/clouds/webhooks", {
    "name": "alerts", "url": f"http://127.0.0.1:{server.server_port}/", "headers": {},
    "eventTypes": [{"type": "GEOFENCE"}]}, token)
subprocess.run([simgate, "simulate", "127.0.0.1:24545", "--scenario", "drive", "--protocol", "udp", "--devices",
                "1000", "--rate", rate, "--duration", f"{seconds}s", "--step", "500"],
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
time.sleep(3)
delays.sort()
at = lambda part: delays[int((len(delays) - 1) * part)] * 1000
print(f"{rate} positions/s for {seconds} s: {len(delays)} alerts, p50 {at(.5):.0f} ms, p99 {at(.99):.0f} ms, "
      f"at most {delays[-1] * 1000:.0f} ms after the arrival of the position")
PYTHON
