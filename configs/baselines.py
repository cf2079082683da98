"""The rivals of the paper's table 2, each trained and scored by one command, on one of the datasets.

    python -m b2b_jax.main --config configs/baselines.py:cyclegan              REDS
    python -m b2b_jax.main --config configs/baselines.py:dualgan,rsblur

cyclegan, dualgan: unpaired deblurrers, which see the camera's two piles and nothing else. Of CycleGAN the settings are
the published ones; DualGAN's paper gives ranges. How the rivals of the table were trained the paper does not say.

The second word is the dataset: reds (default), gopro, rsblur, rb2v, demo, or quick: demo.py:quick, which proves the
plumbing and whose scores mean nothing. b2b_jax.tables prints the table. Published scores: there, in brackets. On the
datasets none has been run to its end here; on generated scenes all have: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import ablations


def get_config(variant: str = "") -> ConfigDict:
    """Returns the rival NAME or NAME,DATASET."""
    name, _, base = variant.partition(",")
    base = base or "reds"
    if name not in RIVALS or base not in ablations.BASES:
        wanted = f"NAME[,DATASET] with NAME one of {', '.join(RIVALS)}, DATASET one of {', '.join(ablations.BASES)}"
        raise ValueError(f"configs/baselines.py has no rival {variant!r}; wanted {wanted}")
    config = ablations.BASES[base]()
    RIVALS[name](config)
    config.evaluation.ablation = f"rival,{name}"
    return config


def cyclegan(config: ConfigDict) -> None:
    """Zhu et al. 2017: the settings of configs/default.py."""
    config.stages = ("cycle", "evaluation", "report")
    config.cycle.enabled = True
    if config.data.unknown == "scenes":
        config.cycle.generator.update(ngf=16, n_blocks=3)
        small(config)


def dualgan(config: ConfigDict) -> None:
    """Yi et al. 2017."""
    config.stages = ("cycle", "evaluation", "report")
    config.cycle.enabled = True
    published_dualgan(config.cycle)
    if config.data.unknown == "scenes":
        config.cycle.generator.update(num_downs=4, ngf=16)
        small(config)


def published_dualgan(config: ConfigDict) -> None:
    """The section `cycle` as in section 4 of DualGAN's paper; of its ranges a value in the middle."""
    config.update(kind="dualgan", critics=3, clip=0.01, pool=0, cycle_weight=500.0, identity_weight=0.0, augment=False)
    config.generator = ConfigDict(
        {"name": "unet", "num_downs": 8, "ngf": 64, "norm": "instance", "dropout": 0.5, "signed": True}
    )
    config.optimizer.update(name="rmsprop", schedule="constant", learning_rate=5e-5, rho=0.9)


def small(config: ConfigDict) -> None:
    """Batches, crops and steps of the demo's translator, and a discriminator of its size that sees colours."""
    size = {key: config.translator[key] for key in ("steps", "batch", "crop")}
    config.cycle.update(augment=False, **size)
    config.cycle.discriminator.update(ndf=config.translator.discriminator.ndf, n_layers=2)
    config.cycle.optimizer.update(constant_steps=size["steps"] // 2)


RIVALS = {"cyclegan": cyclegan, "dualgan": dualgan}
