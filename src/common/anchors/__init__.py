"""Anchors: signed checkpoints over every user's last hash, kept outside the database (0062)."""
