"""Checks signed webhooks with the Python library of Standard Webhooks.

Reads one JSON object a line: {"key", "headers", "body"}. Writes a line for each: "verified",
or "refused" and why.
"""
import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

for line in sys.stdin:
    case = json.loads(line)
    try:
        Webhook(case["key"]).verify(case["body"], case["headers"])
        print("verified")
    except WebhookVerificationError as error:
        print(f"refused {error}")
