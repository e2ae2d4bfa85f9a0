"""What the core knows."""
