"""One cell of the paper's ablation tables (3: ratio, 4: generator, 5: size), on one of the datasets.

    python -m b2b_jax.main --config configs/ablations.py:ratio,0.7             REDS, 70 % of its scenes blurry
    python -m b2b_jax.main --config configs/ablations.py:generator,mimo_unet_plus,rsblur
    python -m b2b_jax.main --config configs/ablations.py:size,0.5,demo         half of the demo's photos

ratio: the share of the camera's photos that becomes unknown_blur, between 0 and 1; the rest is unknown_sharp.
generator: mimo_unet (8 residual blocks a stage), mimo_unet_plus (20), unet (the U-Net of pix2pix with an output for
each of the three scales) or nafnet (in its original form, of one scale, which is reduced for the other two).
size: the share of both piles that is used, above 0 and at most 1: whole scenes are left out until it is met.

The third word is the dataset: reds (default), gopro, rsblur, rb2v, demo, or quick: demo.py:quick, which proves the
plumbing and whose scores mean nothing. b2b_jax.sweep runs a list of such commands, b2b_jax.tables prints the
tables. No cell changes the deblurrer: train it once and give it to the others with --config.deblurrer.weights. Hours,
hardware and expected scores: as in the dataset's own file. The demo's ratio cells take five minutes each on two busy
cores, the deblurrer given; of the other datasets none has been run to its end here.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import demo, gopro, rb2v, reds, rsblur

BASES = {
    "reds": reds.get_config,
    "gopro": gopro.get_config,
    "rsblur": rsblur.get_config,
    "rb2v": rb2v.get_config,
    "demo": demo.get_config,
    "quick": lambda: demo.get_config("quick"),
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the cell NAME,VALUE or NAME,VALUE,DATASET."""
    name, value, base = (*variant.split(","), "reds")[:3] if variant.count(",") in (1, 2) else ("", "", "")
    if name not in CELLS or base not in BASES:
        wanted = f"NAME,VALUE[,DATASET] with NAME one of {', '.join(CELLS)}, DATASET one of {', '.join(BASES)}"
        raise ValueError(f"configs/ablations.py has no cell {variant!r}; wanted {wanted}")
    config = BASES[base]()
    CELLS[name](config, value)
    config.evaluation.ablation = f"{name},{value if name == 'generator' else format(float(value), 'g')}"
    return config


def ratio(config: ConfigDict, value: str) -> None:
    """Table 3: B : S."""
    share = between_0_and_1(value)
    if config.data.unknown == "scenes":
        total = config.data.scenes.blur + config.data.scenes.sharp
        config.data.scenes.update(blur=round(share * total), sharp=total - round(share * total))
    config.data.split_ratio = share


def generator(config: ConfigDict, value: str) -> None:
    """Table 4: the translator's network."""
    if value not in GENERATORS:
        raise ValueError(f"configs/ablations.py has no generator {value!r}; it has {', '.join(GENERATORS)}")
    GENERATORS[value](config)


def mimo_unet(blocks: int) -> Callable[[ConfigDict], None]:
    """MIMO-UNet with `blocks` residual blocks a stage."""
    return lambda config: config.translator.generator.update(num_res=blocks)


def unet(config: ConfigDict) -> None:
    """Batch norm would mix photos: instance norm, as the discriminator's."""
    size = {"num_downs": 4, "ngf": 8} if config.data.unknown == "scenes" else {"num_downs": 8, "ngf": 64}
    hyper = {"norm": "instance", "scales": 3, "signed": True}
    config.translator.generator = ConfigDict({"name": "unet", **size, **hyper})


def nafnet(config: ConfigDict) -> None:
    """Width 32, as the smaller of its published sizes; on generated scenes the demo's."""
    size = {"width": 32, "encoders": (1, 1, 1, 28), "middle": 1, "decoders": (1, 1, 1, 1)}
    if config.data.unknown == "scenes":
        size = {"width": 8, "encoders": (1, 1), "middle": 1, "decoders": (1, 1)}
    config.translator.generator = ConfigDict({"name": "nafnet", **size, "local": False})


GENERATORS = {"unet": unet, "mimo_unet": mimo_unet(8), "mimo_unet_plus": mimo_unet(20), "nafnet": nafnet}


def size(config: ConfigDict, value: str) -> None:
    """Table 5: how many photos of the camera there are."""
    config.data.share = between_0_and_1(value)


def between_0_and_1(value: str) -> float:
    """The number in `value`; ValueError when it is none, or outside (0, 1]."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise ValueError(f"configs/ablations.py: got {value!r}, wanted a number above 0, at most 1")
    return number


CELLS = {"ratio": ratio, "generator": generator, "size": size}
