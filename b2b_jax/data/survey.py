"""A look at the two piles of one's own camera before days are spent on them: how many, how large, how sharp."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from b2b_jax import images, terminal
from b2b_jax.budget import BYTES_PER_PIXEL, READERS
from b2b_jax.data import photo
from b2b_jax.data.photo import File, Photo
from b2b_jax.data.sharpness import laplacian_variance
from b2b_jax.data.sources import spread
from b2b_jax.images import ImageError

MEASURED = 200  # photos of a pile that are read
EDGES = 10.0 ** np.arange(-6, 0.1, 0.5)  # of the histogram
FEW_PHOTOS, FEW_SCENES = 100, 10  # below which a translator learns the photos by heart
ALIKE = 0.7  # ratio of the piles' median sharpness above which the blurry one hardly differs


def survey(piles: Mapping[str, Sequence[Photo]]) -> dict:
    """Describes the piles `unknown_blur` and `unknown_sharp`, and warns of what will not train well.

    Returns a JSON object: by pile {"photos", "digest", "scenes", "sizes": {"WxH": photos}, "laplacian_variance":
    {"photos", "quartiles", "edges", "counts"}}, and "warnings". Sizes and sharpness are those of at most MEASURED
    photos, evenly spread; unreadable ones are passed over.
    """
    report = {name: _pile(name, photos) for name, photos in piles.items()}
    return report | {"warnings": _warnings(report, piles)}


def _pile(name: str, photos: Sequence[Photo]) -> dict:
    chosen = spread(photos, MEASURED)
    with ThreadPoolExecutor() as pool:
        jobs = pool.map(_measure, [photos[index].blurry for index in chosen])
        found = list(
            filter(None, terminal.bar(jobs, desc=f"looking at {name}", total=len(chosen), unit="photo", leave=False))
        )
    sharpness = [value for _, value in found]
    return {
        "photos": len(photos),
        "digest": digest(photos),
        "scenes": len({p.scene for p in photos}),
        "sizes": dict(Counter(size for size, _ in found).most_common()),
        "laplacian_variance": {
            "photos": len(found),
            "quartiles": np.quantile(sharpness, (0.25, 0.5, 0.75)).tolist() if found else [],
            "edges": EDGES.tolist(),
            "counts": np.histogram(np.clip(sharpness, EDGES[0], EDGES[-1]), EDGES)[0].tolist(),
        },
    }


def digest(photos: Sequence[Photo]) -> str:
    """SHA-256 of the names of photos and the sizes of their files, by which two piles are told apart.

    Frames of videos have no size of their own: they are written anew where another version reads them.
    """
    lines = []
    for one in photos:
        name = Path(str(one.blurry)).name
        given = isinstance(one.blurry, Path) and Path(one.scene).suffix.lower() not in images.VIDEO_EXTENSIONS
        lines.append(f"{one.scene} {name} {one.blurry.stat().st_size if given and one.blurry.exists() else ''}")
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def changes(report: Mapping, piles: Mapping[str, Sequence[Photo]]) -> list[str]:
    """A line for each pile that is no longer the one of an earlier report."""
    return [
        f"{name} has changed: {report[name]['photos']:,} → {len(photos):,} photos since it was last reported. Stages "
        "that are trained stay as they are; the others use the photos that are there now"
        for name, photos in piles.items()
        if report.get(name, {}).get("digest") not in (None, digest(photos))
    ]


def _measure(file: File) -> tuple[str, float] | None:
    try:
        height, width = photo.size(file)
        with READERS.take(height * width * BYTES_PER_PIXEL):
            return f"{width}x{height}", laplacian_variance(photo.read(file))
    except ImageError:
        return None


def _warnings(report: Mapping[str, dict], piles: Mapping[str, Sequence[Photo]]) -> list[str]:
    found = []
    for name, pile in report.items():
        for what, few in (("photos", FEW_PHOTOS), ("scenes", FEW_SCENES)):
            if pile[what] < few:
                found.append(f"{name} has only {pile[what]} {what}; fewer than {few} are learnt by heart")
    medians = [pile["laplacian_variance"]["quartiles"][1:2] for pile in report.values()]
    if all(medians) and medians[0][0] > ALIKE * medians[1][0]:
        found.append(
            f"unknown_blur is as sharp as unknown_sharp (median Laplacian variance {medians[0][0]:.2g} and "
            f"{medians[1][0]:.2g}); are the folders right? (Noise and over-sharpening also count as sharpness.)"
        )
    both = set.intersection(*({p.blurry for p in photos} for photos in piles.values()))
    if both:
        found.append(f"unknown_blur and unknown_sharp share {len(both)} photos, such as {min(map(str, both))}")
    return found


def lines(report: Mapping) -> list[str]:
    """The report for a person: a line for each pile, and the warnings."""
    text = []
    for name, pile in report.items():
        if name != "warnings":
            sizes = ", ".join(f"{size} ({count})" for size, count in list(pile["sizes"].items())[:3])
            quartiles = " / ".join(f"{q:.2g}" for q in pile["laplacian_variance"]["quartiles"])
            text.append(
                f"{name}: {pile['photos']:,} photos of {pile['scenes']:,} scenes; sizes of those looked at: {sizes}; "
                f"quartiles of the Laplacian variance: {quartiles}"
            )
    return text + [f"warning: {warning}" for warning in report["warnings"]]
