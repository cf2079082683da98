"""The local page of `b2b-jax serve`: deblur photos, train a camera. Gradio is handed in, so that it stays an extra."""
