"""Trust rules: which Roles are refused, which are doubtful, and which can never match."""
