"""The rows of the paper's table 2, each trained and scored by one command, on one of the datasets.

    python -m b2b_jax.main --config configs/baselines.py:cyclegan                      REDS
    python -m b2b_jax.main --config configs/baselines.py:imgaug,rsblur,restormer

blur2blur: the deblurrer alone, and Blur2Blur with it. paired: the same deblurrer on the camera's own pairs, the upper
bound. imgaug, bsrgan, rsblur: the same deblurrer on the camera's sharp photos under imgaug's motion blur, under the
degradation of BSRGAN with motion blur, under RSBlur's synthesis. cyclegan, dualgan: unpaired deblurrers, which see the
camera's two piles and nothing else. CycleGAN's settings are the published ones; DualGAN's paper gives ranges. How the
rivals in the table were trained the paper does not say.

adapted, which the paper does not have: the same deblurrer adapted to the learnt camera.

The second word is the dataset: reds (default), gopro, rsblur, rb2v, demo, quick (demo.py:quick, which proves the
plumbing and whose scores mean nothing), or, with equally many, few steps for every network, scenes (the demo) and burst
(the photographs of configs/photographs.py, without pairs to train on). The third is the deblurrer: nafnet (default) or
restormer. b2b_jax.tables prints the table with the published scores. None has been run to its end here on a dataset;
configs/table2.txt is the whole table on generated scenes.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import ablations, camera, deblurrers, demo, photographs


def scenes() -> ConfigDict:
    """The demo: table 2 in small."""
    config = demo.get_config()
    few_steps(config)
    config.evaluation.photographs = False
    return config


def burst() -> ConfigDict:
    """The same on photographs under the camera `burst` of configs/photographs.py; the known blur is of scenes."""
    config = camera.get_config("small")
    photographs.piles(config, "burst")
    few_steps(config)
    config.deblurrer.augment = True
    config.camera.update(learner="adversarial", crop=64)  # the rivals need no camera that takes minutes to learn
    config.kernel_field.enabled = config.denoiser.enabled = False
    config.evaluation.update(fixed_filter=True, oracle=True)
    return config


def few_steps(config: ConfigDict) -> None:
    """300 steps for every network that restores or translates."""
    for section in (config.deblurrer, config.translator, config.adaptation):
        section.steps = 300
    config.translator.optimizer.constant_steps = 150
    config.adaptation.enabled = False


BASES = ablations.BASES | {"scenes": scenes, "burst": burst}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the row NAME, NAME,DATASET or NAME,DATASET,NETWORK."""
    name, base, network = (*variant.split(","), *("", "reds", "nafnet")[variant.count(",") + 1 :])[:3]
    if name not in ROWS or base not in BASES or network not in NETWORKS or variant.count(",") > 2:
        choices = {"NAME": ROWS, "DATASET": BASES, "NETWORK": NETWORKS}
        wanted = ", ".join(f"{word} one of {' '.join(known)}" for word, known in choices.items())
        raise ValueError(f"configs/baselines.py has no row {variant!r}; wanted NAME[,DATASET[,NETWORK]], {wanted}")
    config = BASES[base]()
    NETWORKS[network](config)
    ROWS[name](config)
    return config


def rival(config: ConfigDict, name: str, *stages: str) -> None:
    """A run of these stages, without what only Blur2Blur's own rows need."""
    config.stages = (*stages, "evaluation", "report")
    config.evaluation.update(ablation=f"rival,{name}", fixed_filter=False, oracle=False)
    config.adaptation.enabled = False


# ----------------------------------------------------------------------------------------------------------------- rows


def blur2blur(config: ConfigDict) -> None:
    """The dataset's own configuration."""


def paired(config: ConfigDict) -> None:
    """The upper bound, alone; its stage serves the evaluation."""
    rival(config, "paired")
    config.evaluation.paired = True


def adapted(config: ConfigDict) -> None:
    """Ours: the camera is learnt, and the deblurrer adapted to it."""
    rival(config, "adapted", "deblurrer", "camera", "adaptation")
    config.adaptation.enabled = True


def degraded(kind: str, name: str) -> Callable[[ConfigDict], None]:
    """A row whose deblurrer knows the degradation `kind` of the camera's sharp photos."""

    def change(config: ConfigDict) -> None:
        rival(config, name, "deblurrer")
        config.data.known = "degraded"
        config.data.degradation.kind = kind

    return change


def cyclegan(config: ConfigDict) -> None:
    """Zhu et al. 2017: the settings of configs/default.py."""
    rival(config, "cyclegan", "cycle")
    config.cycle.enabled = True
    if config.data.known == "scenes":
        config.cycle.generator.update(ngf=16, n_blocks=3)
        small_cycle(config)


def dualgan(config: ConfigDict) -> None:
    """Yi et al. 2017."""
    rival(config, "dualgan", "cycle")
    config.cycle.enabled = True
    published_dualgan(config.cycle)
    if config.data.known == "scenes":
        config.cycle.generator.update(num_downs=4, ngf=16)
        small_cycle(config)


def published_dualgan(config: ConfigDict) -> None:
    """The section `cycle` as in section 4 of DualGAN's paper; of its ranges a value in the middle."""
    config.update(kind="dualgan", critics=3, clip=0.01, pool=0, cycle_weight=500.0, identity_weight=0.0, augment=False)
    config.generator = ConfigDict(
        {"name": "unet", "num_downs": 8, "ngf": 64, "norm": "instance", "dropout": 0.5, "signed": True}
    )
    config.optimizer.update(name="rmsprop", schedule="constant", learning_rate=5e-5, rho=0.9)


def small_cycle(config: ConfigDict) -> None:
    """Batches, crops and steps of the demo's translator, and a discriminator of its size that sees colours."""
    size = {key: config.translator[key] for key in ("steps", "batch", "crop")}
    config.cycle.update(augment=False, **size)
    config.cycle.discriminator.update(ndf=config.translator.discriminator.ndf, n_layers=2)
    config.cycle.optimizer.update(constant_steps=size["steps"] // 2)


ROWS = {
    "blur2blur": blur2blur,
    "adapted": adapted,
    "paired": paired,
    "imgaug": degraded("imgaug", "imgaug"),
    "bsrgan": degraded("bsrgan", "bsrgan"),
    "rsblur": degraded("realistic", "rsblur"),
    "cyclegan": cyclegan,
    "dualgan": dualgan,
}


# ------------------------------------------------------------------------------------------------------------- networks


def nafnet(config: ConfigDict) -> None:
    """The dataset's own deblurrer."""


def restormer(config: ConfigDict) -> None:
    """Restormer by its published recipe; beside generated scenes a small one, by the demo's."""
    if config.data.known == "scenes":
        small = {"dim": 12, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "heads": (1, 2, 2, 4)}
        config.deblurrer.network = ConfigDict({"name": "restormer", **small})
    else:
        deblurrers.restormer(config.deblurrer)


NETWORKS = {"nafnet": nafnet, "restormer": restormer}
