"""The paper's RSBlur row: RSBlur is the camera, GoPro the known blur (Blur2Blur, CVPR 2024, table 2).

    python -m b2b_jax.main --config configs/rsblur.py --workdir runs/rsblur

Needs data/GOPRO_Large, data/RSBlur and weights/vgg19.safetensors. Expected (published, NAFNet): PSNR 26.33 → 29.00 dB,
SSIM 0.790 → 0.857, 1M steps of batch 16, 3 days on 2 A100. The paper's counts match no public list: the official 3,360
test images are used. Not run to the end here.

Beyond the paper, --config.adaptation.enabled=True learns the camera and adds the row `adapted`; not run on this data.
"""

from ml_collections import ConfigDict

from configs import reds


def get_config(variant: str = "paper") -> ConfigDict:
    """Returns the paper's settings, or the released code's ("release")."""
    config = reds.get_config(variant)
    config.data.unknown = "rsblur"
    if variant == "release":
        reds.release(config.translator, photos=5_327)  # 0.6 of the official 8,878
    return config
