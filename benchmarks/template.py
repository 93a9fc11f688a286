"""Gives a gateway at rest a three-field template for UDP and CoAP, over its API, and webhooks.

    template.py SIMGATE DATA_FOLDER API_ADDRESS [--webhooks-only] [--delivery JSON] [WEBHOOK_URL...]

--webhooks-only: there is a template already; --delivery: the object `delivery` of the webhooks.
"""

import base64
import json
import subprocess
import sys
import urllib.request

TEMPLATE = {
    "sense": [
        {"asset": "temperature_tenths", "value": {"byte": 0, "bytelength": 2, "type": "int"}},
        {"asset": "battery_millivolts", "value": {"byte": 2, "bytelength": 2, "type": "uint"}},
        {"asset": "count", "value": {"byte": 4, "bytelength": 4, "type": "uint"}},
    ]
}


def call(address, path, body, authorization):
    request = urllib.request.Request(
        f"http://{address}/management-api{path}",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": authorization},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def main(simgate, data, address, *webhooks):
    command = [simgate, "client", "create", "--name", "benchmark", "--data", data]
    client = json.loads(subprocess.check_output(command))
    secret = f"{client['client_id']}:{client['client_secret']}".encode()
    basic = "Basic " + base64.b64encode(secret).decode()
    token = call(address, "/oauth/token", {"grant_type": "client_credentials"}, basic)
    bearer = "Bearer " + token["access_token"]
    template = {
        "name": "benchmark",
        "template": json.dumps(TEMPLATE),
        "protocolFilter": ["UDP", "COAP"],
        "status": "ACTIVE",
    }
    if webhooks[:1] == ("--webhooks-only",):
        webhooks = webhooks[1:]
    else:
        call(address, "/v1/optimize/templates", template, bearer)
    delivery = {}
    if webhooks[:1] == ("--delivery",):
        delivery, webhooks = {"delivery": json.loads(webhooks[1])}, webhooks[2:]
    for webhook in webhooks:
        integration = {
            "name": webhook,
            "url": webhook,
            "headers": {},
            "eventTypes": [{"type": "TELEMETRY_DATA"}],
        }
        call(address, "/v1/integrate/clouds/webhooks", integration | delivery, bearer)


main(*sys.argv[1:])
