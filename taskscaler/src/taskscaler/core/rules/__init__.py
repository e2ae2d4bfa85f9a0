"""What follows from what the core knows."""
