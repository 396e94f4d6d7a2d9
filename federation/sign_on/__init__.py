"""A person's side: sign in at an OpenID Connect provider, and keep the session."""
