"""The demo: a local CI issuer, a small gateway, a broker, and the jobs that it runs on them."""
