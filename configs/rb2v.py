"""The paper's RB2V_Street row: a street camera's real blur, GoPro the known one (Blur2Blur, CVPR 2024, table 2).

    python -m b2b_jax.main --config configs/rb2v.py --workdir runs/rb2v

Needs data/GOPRO_Large, data/RB2V_Street and weights/vgg19.safetensors. Expected (published, NAFNet): PSNR
24.78 → 26.98 dB, SSIM 0.714 → 0.812, 1M steps of batch 16, 3 days on 2 A100. Not run to the end here.

Beyond the paper, --config.adaptation.enabled=True learns the camera and adds the row `adapted`; not run on this data.
"""

from ml_collections import ConfigDict

from configs import reds


def get_config(variant: str = "paper") -> ConfigDict:
    """Returns the paper's settings, or the released code's ("release")."""
    config = reds.get_config(variant)
    config.data.unknown = "rb2v_street"
    if variant == "release":
        reds.release(config.translator, photos=5_400)
    return config
