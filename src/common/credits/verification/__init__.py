"""Users' journals put through the rules once more, and each row that differs (decision 0021)."""
