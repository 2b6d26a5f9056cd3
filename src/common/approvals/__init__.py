"""What one person asks for and another consents to (rule 13)."""
