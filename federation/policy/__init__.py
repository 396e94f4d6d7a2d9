"""The rules by which the broker decides: conditions, Roles, permissions."""
