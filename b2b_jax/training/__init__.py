"""Training: one loop, pure steps."""
