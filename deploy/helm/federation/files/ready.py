"""
Exit 0 if the broker is ready and its discovery document names the public URL.

With a dashboard that must be ready too, and where people sign in must be published as it is set.
"""

import http.client
import json
import os
import sys


def get(path: str, server: str = "BROKER") -> tuple[int, bytes]:
    """Return the status and the body of the answer of *server*, without any proxy."""
    connection = http.client.HTTPConnection(os.environ[server], timeout=10)
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

if "SIGN_IN_ISSUER" in os.environ:
    status, body = get("/.well-known/oauth-protected-resource")
    published = json.loads(body).get("authorization_servers") if status == 200 else None
    print("people sign in at:", published)
    if published != [os.environ["SIGN_IN_ISSUER"]]:
        sys.exit("The broker should publish where people sign in.")

if "DASHBOARD" in os.environ:
    status, body = get("/readyz", "DASHBOARD")
    print("dashboard /readyz:", status, body.decode("utf-8", "replace").strip())
    if status != 200:
        sys.exit("The dashboard is not ready: nobody can sign in. Its log says why.")
