"""How far the camera model goes: the demo's recipe on other cameras, with fewer photos, without parts of the camera.

    python -m b2b_jax.main --config configs/limits.py:paths --config.deblurrer.weights=FILE

Each row learns the camera and adapts the demo's deblurrer to it, in half of the demo's steps; the deblurrer is best
trained once and given. Rows:

    copies, paths, light, noise, jpeg, phone, sharpness, rotation, zoom     cameras, see CAMERAS
    photos,N                    copies, learnt from N photos of each pile (of 600)
    others                      copies; the sharp pile shows things half as large
    drift,CAMERA                rotation or zoom, with a kernel that drifts over the crop
    without,PART                phone, its camera model without kernel, sharpening or noise
    with,response               light, the camera model with a response

Instead of adapting the deblurrer, a translator may be trained with the camera's pairs, the deblurrer staying as it is:

    translator,pairs            copies; MIMO-UNet, through the deblurrer to the sharp photo
    translator,both             … and adversarially
    field,taught                copies; a kernel field, taught the filling kernels of the camera's
    field,pairs                 … through the deblurrer to the sharp photo
    field,adversarial           … as the paper trains its translator, with no camera learnt

configs/limits.txt lists them all, with three seeds; docs/results.md has the table.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import demo

COPIES = {"kind": "copies", "extent": (3.5, 5.5), "copies": 2, "angle": (-10.0, 10.0), "size": 21}
# The unknown blur, and what follows it; see b2b_jax/data/kernels.py, moving.py and processing.py.
CAMERAS = {
    "copies": (COPIES, {}),  # the demo's
    "paths": ({"kind": "trajectory", "length": (8.0, 16.0), "size": 21}, {}),  # hand-held, in all directions
    "light": (COPIES, {"response": "gamma"}),  # blur of light, not of stored values
    "noise": (COPIES, {"noise": 8 / 255}),
    "jpeg": (COPIES, {"quality": 60}),
    "phone": ({"kind": "trajectory", "length": (6.0, 12.0), "size": 21}, {"amount": (1.5, 3.0), "noise": 3 / 255}),
    "sharpness": (None, {}),  # demo.py:hard
    "rotation": ({"kind": "rotation", "angle": (3.0, 8.0)}, {}),
    "zoom": ({"kind": "zoom", "factor": (1.06, 1.16)}, {}),
}


def get_config(variant: str = "copies") -> ConfigDict:
    """Returns the row NAME or NAME,VALUE."""
    name, _, value = variant.partition(",")
    row = ROWS.get(name, camera if name in CAMERAS and not value else None)
    if row is None:
        wanted = ", ".join((*CAMERAS, "photos,N", "others", "drift,CAMERA", "without,PART", "with,response"))
        wanted += ", translator,HOW, field,HOW"
        raise ValueError(f"configs/limits.py has no row {variant!r}; it has {wanted}")
    config = demo.get_config()
    config.stages = ("deblurrer", "camera", "adaptation", "evaluation", "report")
    config.adaptation.steps = 1000
    config.evaluation.update(photographs=False, ablation=f"camera,{variant}")
    row(config, value or name)
    return config


def camera(config: ConfigDict, name: str) -> None:
    """Another camera."""
    kernel, processing = CAMERAS[name]
    config.data.scenes.unknown_processing.update(processing)
    if kernel is None:
        demo.hard(config)
    else:
        config.data.scenes.unknown_kernel = ConfigDict(kernel)


def photos(config: ConfigDict, value: str) -> None:
    """Fewer photos of the demo's camera: the first of each pile."""
    if not value.isdecimal() or not 0 < int(value) <= config.data.scenes.blur:
        raise ValueError(f"configs/limits.py:photos: got {value!r}, wanted 1 to {config.data.scenes.blur}")
    config.data.share = int(value) / config.data.scenes.blur


def others(config: ConfigDict, value: str) -> None:
    """Sharp photos of other things."""
    config.data.scenes.sharp_scale = 2


def drift(config: ConfigDict, name: str) -> None:
    """A kernel that drifts over the crop, and a discriminator that sees its four quarters."""
    camera(config, choice("drift", name, ("rotation", "zoom")))
    config.camera.crop = config.camera.network.field = 96
    config.camera.discriminator.windows = 2


def without(config: ConfigDict, part: str) -> None:
    """A camera model that lacks a part."""
    camera(config, "phone")
    config.camera.network[choice("without", part, ("kernel", "sharpening", "noise"))] = False


def with_response(config: ConfigDict, part: str) -> None:
    """A camera model that knows that its lens sees light."""
    camera(config, "light")
    config.camera.network[choice("with", part, ("response",))] = True


def translator(config: ConfigDict, name: str) -> None:
    """The demo's translator, which sees pairs of the camera."""
    supervision = {"pairs": "camera", "both": "both"}[choice("translator", name, ("pairs", "both"))]
    config.translator.supervision = supervision
    instead_of_adapting(config, "camera", "translator")


def field(config: ConfigDict, name: str) -> None:
    """A translator that can only convolve, read from larger crops; its kernels as long as the demo's."""
    choice("field", name, ("taught", "pairs", "adversarial"))
    config.kernel_field.network.update(window=96, lags=12, reads="autocorrelation")
    if name == "taught":
        config.kernel_field.update(enabled=True, steps=600, batch=32)
        config.kernel_field.known_kernel = config.data.scenes.known_kernel
        return instead_of_adapting(config, "camera", "kernel_field")
    config.translator.generator = config.kernel_field.network
    config.translator.crop = 96
    if name == "adversarial":
        return instead_of_adapting(config, "translator")
    config.translator.supervision = "camera"
    instead_of_adapting(config, "camera", "translator")


def instead_of_adapting(config: ConfigDict, *stages: str) -> None:
    """Trains these stages, and leaves the deblurrer as it is."""
    config.adaptation.enabled = False
    config.stages = ("deblurrer", *stages, "evaluation", "report")


def choice(row: str, value: str, choices: tuple[str, ...]) -> str:
    """The value; ValueError when it is none of the choices."""
    if value not in choices:
        raise ValueError(f"configs/limits.py:{row}: got {value!r}, wanted one of {', '.join(choices)}")
    return value


ROWS: dict[str, Callable[[ConfigDict, str], None]] = {
    "photos": photos,
    "others": others,
    "drift": drift,
    "without": without,
    "with": with_response,
    "translator": translator,
    "field": field,
}
