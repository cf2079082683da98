"""The method: the paper's steps as pure functions, and what goes beyond the paper."""
