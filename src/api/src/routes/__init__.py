"""The endpoints, one file a subject."""

API_PREFIX = "/api/v1"
