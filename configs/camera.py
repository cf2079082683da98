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
without, it ends with the report. 200K steps of batch 16 at 256 pixels: less than the paper's million, for a camera of
few scenes.

Beyond the paper, the camera's own blur is learnt from the two folders, the deblurrer is adapted to it, and the result
is made to agree with the photo where that helps; the report shows what was found, and b2b_jax.deblur then uses the
adapted deblurrer unless pairs to score on say otherwise. With a strong deblurrer that stays as it is, --method
consistent makes its results agree with the photo instead. If your camera does not over-sharpen, say so:
--config.camera.network.sharpening=False. A real lens blurs light, which is then stored as sRGB:
--config.camera.network.response=True tells the learnt camera so. Blurry photos need 256 pixels a side, sharp ones 302
(with `camera.py:small` and `medium` 240 and 276, for the camera is learnt from crops of 240 pixels). Where photos are
smaller, the error names the crop to reduce. The sizes above have not been run to the end; those of `small` and `medium`
have.

`camera.py:small` needs nothing but the two folders, and a CPU instead of days on a GPU: small networks, and a
deblurrer that is trained on generated scenes under the paths of a hand-held camera. `camera.py:medium` is the
same with a deblurrer of four times as many parameters: one to two hours on a CPU, for two decibels more on photographs
of a burst merge (docs/photographs.md).
"""

from ml_collections import ConfigDict

from configs import default, demo


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's settings, shortened, for two folders of photos, or those of a CPU ("small", "medium")."""
    variants = {"": full, "small": small, "medium": medium}
    if variant not in variants:
        raise ValueError(f"configs/camera.py has no variant {variant!r}; it has {', '.join(filter(None, variants))}")
    config = default.get_config()
    config.data.unknown = ""
    config.adaptation.enabled = True
    config.camera.learner = "likelihood"  # your two folders show different things
    config.denoiser.enabled = True  # where the camera has noise or JPEG, or a response
    config.kernel_field.update(enabled=True, teacher="reader")  # what reads the blur translates, too; nothing is taught
    variants[variant](config)
    config.camera.crop = 240  # 128 pixels of a photo with much noise tell too little of its blur
    return config


def full(config: ConfigDict) -> None:
    """The networks of the paper."""
    config.deblurrer.network.update(width=64)
    config.translator.content.update(kind="pooled", weight=2.0)
    config.blur_extractor.steps = 200_000
    config.translator.steps = 200_000
    config.translator.optimizer.constant_steps = 100_000
    config.translator.curriculum.update(grow_from=40_000, full_at=100_000)
    config.camera.steps = 600


def small(config: ConfigDict) -> None:
    """The demo's networks; the known blur is generated, too."""
    config.data.known = "scenes"
    config.data.scenes.known_kernel = ConfigDict({"kind": "trajectory", "length": (5.0, 20.0), "size": 21})
    config.known_blur.source = "synthetic"
    demo.small_deblurrer(config.deblurrer)
    demo.small_translator(config.translator)
    demo.small_camera(config)
    demo.small_denoiser(config.denoiser)
    config.deblurrer.update(augment=True, steps=3_000)  # this blur has every direction
    config.loop.update(log_every=20, evaluate_every=150, checkpoint_every=150)
    config.evaluation.update(validation_images=16, validation_crop=96)


def medium(config: ConfigDict) -> None:
    """The same with a deblurrer of 1.1 million parameters, which is trained and adapted for longer, on larger crops."""
    small(config)
    config.deblurrer.network.update(demo.MEDIUM_NAFNET)
    config.deblurrer.update(steps=6_000, crop=64)
    config.adaptation.update(steps=6_000, crop=64)
    config.loop.update(evaluate_every=500, checkpoint_every=500)
