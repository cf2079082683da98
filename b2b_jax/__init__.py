"""Blur2Blur in JAX: translate the unknown blur of a camera into one that a frozen deblurrer removes."""

__version__ = "0.1.0"
