"""Your camera: a folder of its blurry photos and a folder of its sharp photos of other scenes.

    python -m b2b_jax.main --config configs/camera.py --workdir runs/mine \
        --config.data.unknown_blur=shots/ --config.data.unknown_sharp=clear/

Either folder may hold photos and videos, nested or flat; a sub-folder and a video are a scene each. A report on both
(numbers, sizes, sharpness, warnings) is printed before anything is trained and kept in data_report.json; broken photos
are skipped and named in bad_photos.json. config.data.videos says which frames are taken.

The known blur is GoPro's (data/GOPRO_Large), moved onto your sharp photos by the blur extractor. Give
--config.deblurrer.weights=weights/nafnet_gopro64.safetensors to load a converted NAFNet instead of training one, and
--config.blur_extractor.weights=FILE for a converted KernelWizard. The content loss needs no downloaded weights here.
With pairs to score on (--config.data.test_blur=DIR --config.data.test_sharp=DIR, equal names) the run is evaluated too;
without, it ends with the translator. 200K steps of batch 16 at 256 pixels: less than the paper's million, for a camera
of few scenes.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's settings, shortened, for two folders of photos."""
    if variant:
        raise ValueError(f"configs/camera.py has no variants, got {variant!r}")
    config = default.get_config()
    config.data.unknown = ""
    config.deblurrer.network.update(width=64)
    config.translator.content.update(kind="pooled", weight=2.0)
    config.blur_extractor.steps = 200_000
    config.translator.steps = 200_000
    config.translator.optimizer.constant_steps = 100_000
    config.translator.curriculum.update(grow_from=40_000, full_at=100_000)
    return config
