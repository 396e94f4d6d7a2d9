"""The broker's HTTP endpoints, its error boundary and its rate limit."""
