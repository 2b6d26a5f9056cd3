"""Figures of the whole ledger for finance; they tie to the last credit (decision 0045)."""
