"""The reverse proxy in front of an OpenFaaS gateway: authenticates, authorizes and forwards."""
