"""Everything to try the broker with on one machine: a local CI issuer and sample documents."""
