"""Users from before the ledger: what they had becomes one entry (decision 0010)."""
