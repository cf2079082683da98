"""The paper's REDS row: REDS is the camera, GoPro the known blur (Blur2Blur, CVPR 2024, tables 1 and 2).

    python -m b2b_jax.main --config configs/reds.py --workdir runs/reds

Needs data/GOPRO_Large, data/REDS and weights/vgg19.safetensors (converted from torchvision's vgg19); with
--config.deblurrer.weights=weights/nafnet_gopro64.safetensors the deblurrer is loaded instead of trained, with
--config.blur_extractor.weights=FILE the blur extractor (a converted KernelWizard) too.

Expected (published, NAFNet): PSNR 25.80 → 28.11 dB, SSIM 0.880 → 0.893, after 1M steps of batch 16, 3 days on 2 A100.
This implementation has not been run to the end on REDS.

`reds.py:release` follows the released code where it differs from the paper: hinge loss, VGG16 features, penalty 1e-4,
batch 1, no curriculum, the camera's photos reduced to 512 pixels before the crop (the known pairs are not, and neither
are the photos that are scored or deblurred later), mirrored left to right only, no colour jitter, 100 + 200 epochs of
REDS' 14,400 blurry photos. Without it the moving average of G's weights is what is scored (translator.ema=0.999), which
the paper does not mention.

Beyond the paper, --config.adaptation.enabled=True learns the camera and adds the row `adapted`; not run on this data.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "paper") -> ConfigDict:
    """Returns the paper's settings ("paper", the default), or the released code's ("release")."""
    config = default.get_config()
    config.data.update(known="gopro", unknown="reds")
    config.deblurrer.network.update(width=64)
    if variant == "release":
        release(config.translator, photos=14_400)
    elif variant != "paper":
        raise ValueError(f"no variant {variant!r}; the variants are paper and release")
    return config


def release(config: ConfigDict, photos: int) -> None:
    """The released code's settings for a camera of `photos` blurry photos."""
    config.update(gan_loss="hinge", batch=1, resize=512, turns=False, color_jitter=0.0, ema=0.0)
    config.steps = 300 * photos
    config.content.update(kind="vgg16", weights="weights/vgg16.safetensors")
    config.gradient_penalty.weight = 1e-4
    config.curriculum.start = 1.0
    config.optimizer.constant_steps = 100 * photos
