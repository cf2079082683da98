"""Blur2Blur on generated scenes: everything from nothing, on a laptop's CPU, in minutes.

    python -m b2b_jax.main --config configs/demo.py

The deblurrer learns to remove continuous motion; the "camera" averages two displaced copies instead, which leave the
deblurrer with ghosts; the translator turns the one into the other without ever seeing a pair.

Then the camera itself is learnt from its blurry and its sharp photos, and the deblurrer adapted to it.

Variants: `demo.py:full` adds the upper bound, a deblurrer trained on the camera's own pairs, and a translator trained
with pairs of the learnt camera (twice the time); `demo.py:hard` has a camera that no single filter serves:
over-sharpened or soft, from photo to photo; `demo.py:extractor` learns the known blur from pairs, too (half as long
again); `demo.py:quick` proves the plumbing in about a minute, its scores mean nothing; `demo.py:gpu` is the same idea
with the paper's generator and NAFNet-32, meant for minutes on one accelerator, where it has not been run yet.
"""

from ml_collections import ConfigDict

from configs import default

MEDIUM_NAFNET = {"width": 32, "encoders": (1, 1, 1), "middle": 1, "decoders": (1, 1, 1), "unshuffle": 2}
"""Of 1.1 million parameters."""


def get_config(variant: str = "") -> ConfigDict:
    """Returns the demo, or one of its variants: full, hard, extractor, quick, gpu."""
    variants = {"": lambda config: None, "full": full, "hard": hard, "extractor": extractor, "quick": quick, "gpu": gpu}
    if variant not in variants:
        raise ValueError(f"configs/demo.py has no variant {variant!r}; it has {', '.join(filter(None, variants))}")
    config = default.get_config()
    config.data.update(known="scenes", unknown="scenes")
    config.known_blur.source = "synthetic"
    small_deblurrer(config.deblurrer)
    small_translator(config.translator)
    small_camera(config)
    config.loop.update(log_every=20, evaluate_every=150, checkpoint_every=150)
    config.evaluation.update(fixed_filter=True, oracle=True, photographs=True)
    config.evaluation.update(validation_images=16, validation_crop=96)
    variants[variant](config)
    return config


def small_deblurrer(config: ConfigDict) -> None:
    """A NAFNet of 277 thousand parameters behind a pixel-unshuffle."""
    config.network.update(width=24, encoders=(2, 2), middle=2, decoders=(2, 2), unshuffle=2, local=False)
    config.update(loss="l1", steps=1500, batch=8, crop=48)
    # The demo's blurs are horizontal: turning them would make another problem of it.
    config.augment = False
    config.optimizer.update(learning_rate=1.5e-3, warmup=50, betas=(0.9, 0.99), weight_decay=0.0, clip=1.0)


def small_translator(config: ConfigDict) -> None:
    """A MIMO-UNet of 88 thousand parameters that starts as the identity, against a PatchGAN that sees gradients."""
    config.generator.update(base_channels=8, num_res=1, weight_init="torch", zero_init=True)
    config.discriminator.update(ndf=16, n_layers=2, norm="none", input="gradient", weight_init="torch")
    config.gan_loss = "hinge"
    config.gradient_penalty.update(weight=1e-5, every=4)
    config.content.update(kind="pooled", weight=2.0)
    config.curriculum.start = 1.0
    config.update(steps=600, batch=8, crop=48, augment=False, color_jitter=0.0, ema=0.99)
    config.optimizer.update(generator_rate=3e-4, discriminator_rate=1e-3, constant_steps=300, warmup=100)


def small_camera(config: ConfigDict) -> None:
    """A camera model of short blur, and the deblurrer's own recipe on the pairs that it makes."""
    config.camera.network.size = 21
    config.camera.discriminator.lags = 12
    config.camera.update(steps=600, batch=32, crop=64)
    config.adaptation.update(enabled=True, known=0.1, steps=2000, batch=8, crop=48, augment=False)
    config.adaptation.optimizer.update(learning_rate=1e-3)
    config.translator.pairs.update(steps=800, augment=False)
    config.translator.pairs.optimizer.update(learning_rate=2e-3)


def small_denoiser(config: ConfigDict) -> None:
    """A NAFNet of 1.1 million parameters behind a pixel-unshuffle: at full resolution it would take twice as long."""
    config.network.update(MEDIUM_NAFNET)
    config.update(enabled=True, steps=3_000, batch=8, crop=64)
    config.optimizer.update(learning_rate=2e-3, weight_decay=1e-4)


def full(config: ConfigDict) -> None:
    """Adds the upper bound and the translator that is trained with pairs to the table."""
    config.evaluation.update(paired=True, blur2blur_pairs=True)


def hard(config: ConfigDict) -> None:
    """A camera that over-sharpens half of its photos and leaves the others soft: no single filter serves both."""
    kernel = {"kind": "sharpness", "amount": (3.0, 6.0), "halo": (1.5, 2.5), "sigma": (1.0, 2.0), "size": 21}
    config.data.scenes.unknown_kernel = ConfigDict(kernel)
    config.camera.update(steps=1200, batch=64)  # with 16 crops too strong a sharpening is found


def extractor(config: ConfigDict) -> None:
    """The known blur is learnt from the known pairs, too: nothing is given but photos."""
    config.known_blur.source = "extractor"
    config.blur_extractor.network.update(nf=16, kernel_dim=64, front_blocks=1, back_blocks=2, kernel_blocks=1)
    # No halving before the adapter's: 16 channels hold a cell of 2 x 2 pixels, not one of 4 x 4.
    config.blur_extractor.network.update(shrinks=0, reductions=4, tail=16)
    config.blur_extractor.update(steps=2000, batch=8, crop=48, augment=False)
    config.blur_extractor.optimizer.update(schedule="cosine", learning_rate=1e-3, warmup=50)
    config.evaluation.true_kernels = True


def quick(config: ConfigDict) -> None:
    """Every stage for a few steps."""
    config.data.scenes.update(size=80, known=24, blur=24, sharp=24, validation=4, test=8)
    config.deblurrer.network.update(width=8, encoders=(1,), middle=1, decoders=(1,))
    config.deblurrer.update(steps=20, batch=4, crop=32)
    # A discriminator that learns as fast as ever would tell so short a training apart, and the camera would be refused.
    config.camera.update(steps=20, batch=4, crop=32, discriminator_rate=1e-5, evidence=0.0)
    config.camera.network.start = 2.0
    config.adaptation.update(steps=20, batch=4, crop=32)
    config.translator.pairs.steps = 20
    config.translator.generator.update(base_channels=4)
    config.translator.discriminator.update(ndf=4)
    config.translator.update(steps=20, batch=4, crop=48)
    config.translator.optimizer.update(constant_steps=10, warmup=5)
    config.loop.update(log_every=5, evaluate_every=10, checkpoint_every=10)
    config.evaluation.update(validation_images=4, validation_crop=32, batch=4, examples=2, photographs=False)


def gpu(config: ConfigDict) -> None:
    """The paper's generator and NAFNet-32 on crops of 128 pixels; the discriminator, wider, still sees gradients."""
    reference = default.get_config()
    config.data.scenes.update(size=256, known=1000, blur=600, sharp=600)
    config.data.update(threads=14, prefetch=16)
    config.deblurrer.network.update(reference.deblurrer.network)
    config.deblurrer.network.train_size = 128
    config.deblurrer.update(steps=4_000, batch=16, crop=128)
    config.deblurrer.optimizer.learning_rate = 1e-3
    config.adaptation.update(steps=3_000, batch=16, crop=128)
    config.adaptation.optimizer.learning_rate = 5e-4
    config.translator.generator.update(base_channels=32, num_res=8)
    config.translator.discriminator.update(ndf=64, n_layers=3, weight_init="normal")
    config.translator.update(steps=4_000, batch=16, crop=128, ema=0.999)
    config.translator.optimizer.update(
        generator_rate=2e-4, discriminator_rate=2e-4, constant_steps=2_000, warmup=500, betas=(0.5, 0.999)
    )
    config.loop.update(log_every=100, evaluate_every=1_000, checkpoint_every=1_000)
    config.evaluation.update(validation_images=32, validation_crop=128)
    config.evaluation.photographs = False  # of other sizes, each of which takes a GPU a minute to compile for
