"""Pure decisions about claims: conditions, Roles, permissions, and their explanation."""
