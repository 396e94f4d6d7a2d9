"""The broker's own endpoints: exchange, revocation, discovery, health."""
