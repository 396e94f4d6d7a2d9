"""Exit 0 if the broker is ready and its discovery document names the public URL."""

import http.client
import json
import os
import sys


def get(path: str) -> tuple[int, bytes]:
    """Return the status and the body of the broker's answer, without any proxy."""
    connection = http.client.HTTPConnection(os.environ["BROKER"], timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


status, body = get("/readyz")
print("/readyz:", status, body.decode("utf-8", "replace").strip())
if status != 200:
    sys.exit("The broker is not ready. Its log and /readyz on the metrics port say why.")

status, body = get("/.well-known/openid-configuration")
issuer = json.loads(body).get("issuer") if status == 200 else None
print("issuer:", issuer)
if issuer != os.environ["ISSUER_URL"]:
    sys.exit(f"The broker should say that it is {os.environ['ISSUER_URL']}.")
