"""Documents from the Kubernetes API: list and watch, status, events and the leader's Lease."""
