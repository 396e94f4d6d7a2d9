"""Facts about each kind of issuer, one declarative file per provider."""
