"""Evaluation: scores, the honest rivals, the report."""
