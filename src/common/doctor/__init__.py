"""What is wrong with a running system, why it matters, and the next step (`flashslides doctor`)."""
