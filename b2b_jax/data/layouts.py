"""Where the photos lie in the official downloads: one literal table. `finding.find` lists what it describes."""

from collections.abc import Mapping
from dataclasses import dataclass

SUBFOLDER = r"^{}(?:(.+)/)?[^/]+$"  # the scene is what lies between a folder and the photo


@dataclass(frozen=True)
class Part:
    """One part of a dataset. Where the download has the list file `listing`, that says what belongs to the part.

    Paths are relative to the root; {variant} in them stands for the layout's variant.
    """

    blur: str  # glob of the blurry photos
    twin: tuple[tuple[str, str], ...]  # replacements that turn a blurry path into its sharp one; none: no twin
    scene: str  # its first group, found in the blurry path, names the scene; without one a photo is its own scene
    photos: int = 0  # as published; 0 = not a published set
    listing: str = ""


@dataclass(frozen=True)
class Layout:
    """A dataset: its folder below `data.root`, its parts, and where to get it.

    `train` and `test` are parts of every paired layout, `validation` of some.
    """

    folder: str
    source: str
    parts: Mapping[str, Part]
    variants: tuple[str, ...] = ("",)  # the first is the default; none: any name of a folder


LAYOUTS = {
    "gopro": Layout(
        folder="GOPRO_Large",
        source="GOPRO_Large of https://seungjunnah.github.io/Datasets/gopro (CC BY 4.0)",
        parts={
            part: Part(f"{part}/*/{{variant}}/*.png", (("/{variant}/", "/sharp/"),), rf"^{part}/([^/]+)/", photos)
            for part, photos in (("train", 2_103), ("test", 1_111))
        },
        variants=("blur", "blur_gamma"),
    ),
    "reds": Layout(
        folder="REDS",
        source="train_blur, train_sharp, val_blur, val_sharp: https://seungjunnah.github.io/Datasets/reds (CC BY 4.0)",
        parts={
            "train": Part(
                "train/train_blur/*/*.png", (("train_blur/", "train_sharp/"),), "train_blur/([^/]+)/", 24_000
            ),
            # The official test set has no truth; the paper's is the validation set.
            "test": Part("val/val_blur/*/*.png", (("val_blur/", "val_sharp/"),), "val_blur/([^/]+)/", 3_000),
        },
    ),
    "rsblur": Layout(
        folder="RSBlur",
        source="RSBlur.zip and datalist/RSBlur/*.txt of https://github.com/rimchang/RSBlur (CC BY 4.0)",
        parts={
            # The 8,821 additional images are not for training on real blur, as their authors say.
            part: Part(
                f"{folder}/*/*/real_blur/real_blur.png",
                (("/real_blur/real_blur.png", "/gt/gt_sharp.png"),),
                "([^/]+)/[^/]+/real_blur/",  # coarser than the truth: such a folder holds several scenes
                photos,
                listing=f"RSBlur_real_{folder}.txt",
            )
            for part, folder, photos in (
                ("train", "train", 8_878),
                ("validation", "val", 1_120),
                ("test", "test", 3_360),
            )
        },
    ),
    "rb2v_street": Layout(
        folder="RB2V_Street",
        source="RB2V-Street of https://github.com/VinAIResearch/HyperCUT (research only)",
        parts={
            # Seven sharp frames were averaged into each blurry one; the middle one is its truth.
            part: Part(
                f"{part}/*/blur/*.png",
                (("/blur/", "/sharp/"), (".png", "_4.png")),
                "([^/]+)/blur/",
                photos,
                listing="metadata.json",
            )
            for part, photos in (("train", 9_000), ("test", 2_053))
        },
    ),
    "realblur_j": Layout(
        folder="RealBlur",
        source="RealBlur.zip of https://github.com/rimchang/RealBlur (CC BY 4.0)",
        parts={
            part: Part(
                f"{part}/*/blur/*.png",
                (("/blur/blur_", "/gt/gt_"),),
                "([^/]+)/blur/",
                photos,
                listing=f"RealBlur_J_{part}_list.txt",
            )
            for part, photos in (("train", 3_758), ("test", 980))
        },
    ),
    "hide": Layout(
        folder="HIDE_dataset",
        source="HIDE_dataset of https://github.com/joanshen0508/HA_deblur",
        parts={
            "train": Part("train/*.png", (("train/", "GT/"),), r"from([^/.]+)", 6_397),
            "test": Part(
                "test/*/*.png",
                (("test/test-close-ups/", "GT/"), ("test/test-long-shot/", "GT/")),
                r"from([^/.]+)",
                2_025,
            ),
        },
    ),
    "curated": Layout(
        folder="",  # the root itself
        source="a folder NAME/{train,validation,test}/{blur,sharp}/ with equal names in blur/ and sharp/",
        parts={
            part: Part(
                f"{{variant}}/{part}/blur/**/*",
                ((f"/{part}/blur/", f"/{part}/sharp/"),),
                SUBFOLDER.format(f".+/{part}/blur/"),
            )
            for part in ("train", "validation", "test")
        },
        variants=(),
    ),
    "original": Layout(
        folder="original",
        source="the folders of the published code: trainA (your blurry), trainB (your sharp), trainC and trainD "
        "(known pairs of equal names), testA (blurry)",
        parts={
            "unknown_blur": Part("trainA/**/*", (), SUBFOLDER.format("trainA/")),
            "unknown_sharp": Part("trainB/**/*", (), SUBFOLDER.format("trainB/")),
            "train": Part("trainC/**/*", (("trainC/", "trainD/"),), SUBFOLDER.format("trainC/")),
            "test": Part("testA/**/*", (), SUBFOLDER.format("testA/")),
        },
    ),
    "folder": Layout(
        folder="",
        source="a folder of your own photos and videos",
        parts={"photos": Part("**/*", (), SUBFOLDER.format(""))},
    ),
}
