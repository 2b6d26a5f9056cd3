"""What is sold, and how a payment becomes credits, exactly once."""
