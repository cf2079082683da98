"""The training stages of a run, one file each: what is trained on what, and what must be there before."""
