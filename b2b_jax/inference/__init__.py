"""Inference: the deblurrer after the translator, on photos."""
