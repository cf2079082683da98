"""Whether two piles can tell blur from scenes: by blur alone, by scenes alone, and by both."""

import numpy as np
import pytest

from b2b_jax.data import blur
from b2b_jax.data.sources import ArraySource
from b2b_jax.stages import camera_figures, piles

SHARP = blur.gaussian_kernel(0.6, 5)
SOFT = blur.gaussian_kernel(1.6, 9)
MOTION = blur.box_filter_kernel(7)


def pile(kernels: list[np.ndarray], seed: int, scenes: list[np.ndarray] | None = None) -> ArraySource:
    """24 photos of noise, in equal runs each under one of the scenes' own softness, then under the camera's kernel."""
    rng, photos = np.random.default_rng(seed), []
    for i in range(24):
        photo = rng.random((64, 64, 3)).astype(np.float32)
        own = (scenes or [SHARP])[i * len(scenes or [SHARP]) // 24]
        photos.append(blur.round8(blur.apply(blur.apply(photo, own), kernels[i % len(kernels)])))
    return ArraySource("pile", image=np.stack(photos))


NONE = [blur.box_filter_kernel(1)]


def test_blur_between_equal_scenes_is_evidence():
    assert piles.evidence(pile([MOTION], 0), pile(NONE, 1)) > 20


def test_no_blur_is_none():
    assert piles.evidence(pile(NONE, 0), pile(NONE, 1)) < 4


def test_a_few_scenes_that_differ_are_none():
    few = piles.evidence(pile(NONE, 0, [SOFT, SHARP, SOFT]), pile(NONE, 1, [SHARP, SHARP, SOFT]))
    assert few < 3
    assert piles.evidence(pile([MOTION], 0, [SOFT, SHARP] * 4), pile(NONE, 1, [SHARP, SOFT] * 4)) > few


def test_photos_that_show_nothing_count_for_nothing():
    flat = ArraySource("pile", image=np.full((9, 64, 64, 3), 120, np.uint8))
    assert piles.evidence(flat, pile(NONE, 1)) == 0.0
    assert piles.features(np.full((20, 90, 3), 7, np.uint8)) is None


@pytest.mark.parametrize(("evidence", "wanted", "said"), [(4.8, 6.0, True), (6.1, 6.0, False), (0.3, 0.0, False)])
def test_a_camera_without_evidence_is_doubted(evidence, wanted, said):
    found = {"held_out_auc": 0.5, "spread": [2.0, 0.1], "sharpening": [0.1, 0.1], "evidence": evidence}
    reasons = camera_figures.doubts(found, wanted)
    assert len(reasons) == said and all("more different scenes" in reason for reason in reasons)
