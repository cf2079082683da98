"""A learnt camera in figures and pictures, for whoever wants to know what was found, and reasons to doubt it.

Kernels are float (n, k, k), of sum 1; pictures NHWC float32 in [0, 1].
"""

from collections.abc import Mapping

import numpy as np

from b2b_jax.method.camera_model import total_variation
from b2b_jax.models.camera import Shot

NOTABLE = 0.7  # AUC above which something other than blur may have been learnt as blur, too
NOISIER = 1.5  # times the blurry photos' noise, and 1 grey level more, above which the sharp ones have too much
PARTS = {  # what is said of them, with mean and standard deviation
    "spread": "spread {:.2f} ± {:.2f} pixels",
    "sharpening": "sharpening {:.2f} ± {:.2f}",
    "sharpening_sigma": "sharpening sigma {:.2f} ± {:.2f} pixels",
    "noise": "noise {:.1f} ± {:.1f} grey levels",
    "response": "response {:.2f} ± {:.2f}",
    "jpeg_quality": "JPEG quality {:.0f} ± {:.0f}",
}
GREY = {"noise": 255}  # figures of a range of 1, shown in grey levels
BLOCK = 8  # pixels a side of the blocks in which noise is measured
TOLD_APART = 0.95  # AUC above which the generated photos are no photos of this camera
LEGIBLE = 1.0  # nats that have to be read of a photo's blur
NO_BLUR = 0.5  # pixels of a kernel's spread, and of sharpening, below which there is none


def figures(shot: Shot) -> dict[str, list[float]]:
    """[mean, standard deviation] over the shots: `spread` in pixels, and what the camera's other parts do."""
    spreads = None if shot.kernel is None else spread(np.asarray(shot.kernel))
    parts = {"spread": spreads, "sharpening": shot.amount, "sharpening_sigma": shot.sigma}
    parts |= {"noise": shot.noise, "response": shot.response, "jpeg_quality": shot.quality}
    return {
        name: [round(float(np.mean(values)), 4), round(float(np.std(values)), 4)]
        for name, values in parts.items()
        if values is not None
    }


def told(found: Mapping) -> str:
    """The figures in words."""
    means = {name: [GREY.get(name, 1) * value for value in found[name]] for name in PARTS if name in found}
    return ", ".join(PARTS[name].format(*values) for name, values in means.items())


def spread(kernels: np.ndarray) -> np.ndarray:
    """The standard deviation of each kernel about its centre along its longer axis, in pixels: (n,)."""
    along = np.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    yy, xx = kernels.sum(2) @ along**2, kernels.sum(1) @ along**2
    xy = np.einsum("nij,i,j->n", kernels, along, along)
    return np.sqrt((xx + yy) / 2 + np.hypot((xx - yy) / 2, xy))  # the covariance's larger eigenvalue


def distance(kernels: np.ndarray, truth: np.ndarray) -> float:
    """Total variation between two sets' mean kernels, 0 to 1; the smaller ones have zeros around them."""
    size = max(kernels.shape[-1], truth.shape[-1])
    margins = ([(0, 0)] + [((size - x.shape[-1]) // 2,) * 2] * 2 for x in (kernels, truth))
    return float(total_variation(*(np.pad(x, margin) for x, margin in zip((kernels, truth), margins, strict=True))))


def enlarged(kernels: np.ndarray, side: int) -> np.ndarray:
    """Kernels as pictures (n, side, side, 3): white at their peaks, whole pixels, a black border around them."""
    factor = max(1, side // kernels.shape[-1])
    white = kernels / kernels.max((1, 2), keepdims=True)
    white = white.repeat(factor, axis=1).repeat(factor, axis=2)[:, :side, :side]
    border = side - white.shape[1]
    white = np.pad(white, [(0, 0), *[(border // 2, border - border // 2)] * 2])
    return np.repeat(white[..., None], 3, axis=-1).astype(np.float32)


def sheet(kernels: np.ndarray, rows: int = 4, columns: int = 8, side: int = 88) -> np.ndarray:
    """The first kernels beside and below one another, as one picture (rows · side, columns · side, 3)."""
    cells = enlarged(kernels[: rows * columns], side).reshape(rows, columns, side, side, 3)
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3)


def noise(photos: np.ndarray) -> float:
    """Standard deviation of the noise of photos (n, h, w, c) of range 1, where they are flattest.

    Of the difference from the mean of the four neighbours, scaled so that white noise keeps its deviation; the second
    percentile over blocks, for most of the others hold detail, which is no noise. For two piles to be compared: flat
    photos with white noise give 0.8 of its deviation, and JPEG takes noise away.
    """
    x = photos[:, 1:-1, 1:-1]
    around = (photos[:, :-2, 1:-1] + photos[:, 2:, 1:-1] + photos[:, 1:-1, :-2] + photos[:, 1:-1, 2:]) / 4
    detail = (x - around) / np.sqrt(1.25)
    n, h, w, c = detail.shape
    rows, columns = h // BLOCK, w // BLOCK
    blocks = detail[:, : rows * BLOCK, : columns * BLOCK].reshape(n, rows, BLOCK, columns, BLOCK, c)
    return float(np.percentile(blocks.std((2, 4)), 2))


def notes(found: Mapping) -> list[str]:
    """What a camera of these figures should be looked at for, a line each; it is used all the same."""
    lines = []
    if NOTABLE < found.get("held_out_auc", 0.5) <= TOLD_APART:
        lines.append(
            f"its photos are still told from the generated ones (AUC {found['held_out_auc']:.2f} on photos held out): "
            "other scenes, or more than blur, may lie between the piles; look at the kernels in the report"
        )
    blurry, sharp = found["noise_of_piles"]
    blurry = max(blurry, *found.get("noise", [])[:1], 0.0)  # what the camera adds before its JPEG takes some away
    if sharp > NOISIER * blurry + 1 / 255:
        lines.append(
            f"the sharp photos have more noise than the blurry ones ({255 * sharp:.1f} against {255 * blurry:.1f} grey "
            "levels), which no camera model takes away: choose cleaner ones"
        )
    return lines


def doubts(found: Mapping, evidence: float) -> list[str]:
    """Why a camera of these figures should not be trained with, a line each; `evidence` is what the piles must give."""
    reasons = []
    if found.get("evidence", evidence) < evidence:
        reasons.append(
            f"the piles differ by {found['evidence']:.1f} times what different scenes alone would explain, wanted is "
            f"at least {evidence:g}: give photos of more different scenes, or it learns those instead of the blur"
        )
    if found.get("nats_read", LEGIBLE) < LEGIBLE:
        reasons.append(
            f"of photos held out only {found['nats_read']:.1f} nats of their blur are read, wanted are at least "
            f"{LEGIBLE:g}: give more sharp photos, or larger crops"
        )
    if found.get("held_out_auc", 0.5) > TOLD_APART:
        reasons.append(
            f"its photos are told from the generated ones (AUC {found['held_out_auc']:.2f} on photos held out): the "
            "piles differ in more than blur, such as size, noise or colour, or the training was too short"
        )
    if all(found.get(part, [0.0])[0] < NO_BLUR for part in ("spread", "sharpening")):
        reasons.append("no blur was found: the sharp photos are as blurry as the blurry ones")
    return reasons
