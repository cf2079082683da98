"""Deblurrers on public pairs, after their published recipes: only the deblurrer stage, no camera.

    python -m b2b_jax.main --config configs/deblurrers.py:nafnet32_gopro

Variants, with the published PSNR in dB on the test set, and what differs here:

    nafnet32_gopro       32.87    nafnet64_gopro   33.71
    nafnet64_reds        29.09    published for other photos: REDS' JPEGs (train_blur_jpeg), 300 of validation's 3,000;
                                  here train_blur and all of val_blur, which are PNGs
    restormer_gopro      32.92    published with crops growing from 128 to 384 pixels, the rate constant for 92K
                                  steps; here 256 pixels and one cosine throughout
    mimo_unet_gopro      31.73    mimo_unet_plus_gopro  32.45

Each needs its dataset in data/ (GOPRO_Large or REDS) and days on one GPU. None has been run to its end with this code.
The weights end in runs/deblurrers_VARIANT/deblurrer/weights.safetensors, ready for --config.deblurrer.weights.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "nafnet32_gopro") -> ConfigDict:
    """Returns the recipe `variant`: a network and the dataset that it is trained on."""
    recipes = {
        "nafnet32_gopro": ("gopro", lambda config: nafnet(config, 32)),
        "nafnet64_gopro": ("gopro", lambda config: nafnet(config, 64)),
        "nafnet64_reds": ("reds", lambda config: nafnet(config, 64)),
        "restormer_gopro": ("gopro", restormer),
        "mimo_unet_gopro": ("gopro", lambda config: mimo_unet(config, num_res=8, dropout=0.0)),
        "mimo_unet_plus_gopro": ("gopro", lambda config: mimo_unet(config, num_res=20, dropout=0.1)),
    }
    if variant not in recipes:
        raise ValueError(f"configs/deblurrers.py has no variant {variant!r}; it has {', '.join(recipes)}")
    config = default.get_config()
    config.stages = ("deblurrer",)
    config.data.known, recipe = recipes[variant]
    recipe(config.deblurrer)
    return config


def nafnet(config: ConfigDict, width: int) -> None:
    """Chen et al. 2022, with the settings of their published training: 400K steps of batch 64."""
    config.network.width = width
    config.update(steps=400_000, batch=64)


def restormer(config: ConfigDict) -> None:
    """Zamir et al. 2022: L1, AdamW, 300K steps of batch 64 at their smallest crop, 8 at their largest."""
    config.network = ConfigDict({"name": "restormer"})
    config.update(loss="l1", steps=300_000, batch=16)
    config.optimizer.update(learning_rate=3e-4, final=1e-6, betas=(0.9, 0.999), weight_decay=1e-4)


def mimo_unet(config: ConfigDict, num_res: int, dropout: float) -> None:
    """Cho et al. 2021: content and frequency loss at three scales, 3,000 epochs of GoPro in batches of 4."""
    config.network = ConfigDict({"name": "mimo_unet", "num_res": num_res, "dropout": dropout})
    config.update(loss="l1+0.1*fourier", steps=3_000 * 2_103 // 4, batch=4)
    config.optimizer.update(name="adam", schedule="halving", periods=6, learning_rate=1e-4, clip=0.0)
    config.optimizer.betas = (0.9, 0.999)
