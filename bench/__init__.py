"""The benchmark: the broker measured against what this machine could do at best."""
