"""ResUNet on one dataset of a curated list: the small baseline, trained from nothing on pairs.

    python -m b2b_jax.main --config configs/resunet.py --config.data.root=DIR --config.data.name=NAME

DIR/NAME holds {train,validation,test}/{blur,sharp}/. RMSprop at 1e-3 with rho 0.9 on the mean absolute error; other
losses: --config.deblurrer.loss=l1+0.1*sobel, +0.1*fourier, +0.01*perceptual (needs weights/vgg19.safetensors).
tools/grid_search.py --config configs/resunet.py searches them. 972,739 parameters; no published score.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the baseline's settings."""
    if variant:
        raise ValueError(f"configs/resunet.py has no variants, got {variant!r}")
    config = default.get_config()
    config.stages = ("deblurrer",)
    config.data.update(known="curated", unknown="curated")
    config.deblurrer.network = ConfigDict({"name": "resunet"})
    config.deblurrer.update(loss="l1", steps=100_000, batch=8)
    config.deblurrer.optimizer.update(name="rmsprop", schedule="constant", learning_rate=1e-3, rho=0.9, clip=0.0)
    return config
