"""The admission webhook: an API server asks it about a JwtIssuer, Policy or Role before it keeps it."""
