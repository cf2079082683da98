"""GoPro as the camera, with the paper's split (Blur2Blur, CVPR 2024, table 1); REDS as the known blur.

    python -m b2b_jax.main --config configs/gopro.py --workdir runs/gopro

Needs data/GOPRO_Large, data/REDS and weights/vgg19.safetensors; --config.deblurrer.weights=… loads a NAFNet that was
trained on REDS instead of training one. 1M steps of batch 16: 3 days on 2 A100 in the paper, which has no score for
this camera. Not run to the end here.

Beyond the paper, --config.adaptation.enabled=True learns the camera and adds the row `adapted`; not run on this data.
"""

from ml_collections import ConfigDict

from configs import reds


def get_config(variant: str = "paper") -> ConfigDict:
    """Returns the paper's settings, or the released code's ("release")."""
    config = reds.get_config(variant)
    config.data.update(known="reds", unknown="gopro")
    if variant == "release":
        reds.release(config.translator, photos=1_261)
    return config
