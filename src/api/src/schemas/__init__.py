"""What comes in and what goes out; outputs have no defaults, so nothing is left out silently."""
