"""What the networks are trained on: datasets, generated scenes, parametric blur, and the input pipeline.

Nothing here imports jax: a data worker must never start an accelerator. This file imports nothing at all, so that
a worker process loads only the module it needs.
"""
