"""Tiny trees in the layouts of the official downloads. Grey levels tell which photo it is."""

import itertools

import numpy as np

from b2b_jax import images

SCENES = ("000", "001")
# Part, blurry and sharp photo of the official downloads; s: scene, i: photo, o: number over all.
TREES = {
    "gopro": {
        part: (f"{part}/{{s}}/blur/{{i:06d}}.png", f"{part}/{{s}}/sharp/{{i:06d}}.png") for part in ("train", "test")
    },
    "reds": {
        "train": ("train/train_blur/{s}/{i:08d}.png", "train/train_sharp/{s}/{i:08d}.png"),
        "test": ("val/val_blur/{s}/{i:08d}.png", "val/val_sharp/{s}/{i:08d}.png"),
    },
    "rsblur": {
        part: (f"{folder}/{{s}}/{{i}}/real_blur/real_blur.png", f"{folder}/{{s}}/{{i}}/gt/gt_sharp.png")
        for part, folder in (("train", "train"), ("validation", "val"), ("test", "test"))
    },
    "rb2v_street": {
        part: (f"{part}/{{s}}/blur/{{i:04d}}.png", f"{part}/{{s}}/sharp/{{i:04d}}_4.png") for part in ("train", "test")
    },
    "realblur_j": {
        part: (f"{part}/{{s}}/blur/blur_{{i}}.png", f"{part}/{{s}}/gt/gt_{{i}}.png") for part in ("train", "test")
    },
    "hide": {
        "train": ("train/{o}from{s}.png", "GT/{o}from{s}.png"),
        "test": ("test/test-close-ups/{o}from{s}.png", "GT/{o}from{s}.png"),
    },
    "curated": {
        part: (f"GOPRO_A/{part}/blur/{{s}}/{{i}}.jpg", f"GOPRO_A/{part}/sharp/{{s}}/{{i}}.jpg")
        for part in ("train", "validation", "test")
    },
    "original": {"train": ("trainC/{s}/{i}.png", "trainD/{s}/{i}.png")},
}
VARIANTS = {"curated": "GOPRO_A"}
DECOYS = (
    "train/000/blur_gamma/000001.png",
    "train/000/sharp/0001_3.png",
    "train/000/1/avg65_img/avg_blur.png",
    "notes.png",
    "GOPRO_B/train/blur/000/1.jpg",
    "trainC/000/.hidden.png",
    "trainC/000/Thumbs.db",
)


def write(path, level):
    images.write(path, np.full((4, 4, 3), level, np.uint8))


def write_tree(root, name):
    """Every part: two scenes of two photos, blurry ones of even grey levels, their twins one level above."""
    for number, forms in enumerate(TREES[name].values()):
        for count, (scene, i) in enumerate(itertools.product(SCENES, (1, 2))):
            for twin, form in enumerate(forms):
                order = 10 * number + count
                write(root / form.format(s=scene, i=i, o=order), 50 * number + 2 * count + twin)
    for decoy in DECOYS:
        (root / decoy).parent.mkdir(parents=True, exist_ok=True)
        (root / decoy).write_bytes(b"not a photo of the dataset")
