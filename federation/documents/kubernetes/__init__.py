"""Documents as objects of a Kubernetes API server: their CRDs, their form, and one bad object."""
