"""What the paper says, and what goes beyond it: one file for each idea, as pure functions and steps."""
