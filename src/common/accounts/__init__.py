"""Users and the services' API keys: identity, profile, preferences, sign-in."""
