"""The credit ledger: every credit has a lot, every movement an entry, every write a key."""
