"""The processes around the application: HTTP limits, shutdown, workers, metrics."""
