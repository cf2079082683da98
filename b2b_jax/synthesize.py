"""Writes photos of a run for other tools: with the known blur, or pairs of the camera that the run has learnt.

    python -m b2b_jax.synthesize --workdir runs/mine --output known_blur/ --count 200
    python -m b2b_jax.synthesize --workdir runs/mine --output pairs/ --what camera

The configuration is the run's own, runs/mine/config.json, unless --config gives another; known blur that needs no run
is made with --config alone.

--what known_blur: the set K of a run, what `known_blur.source` makes, crop by crop, before colour jitter. DIR/blurry
holds the photos and, unless they come from a folder, DIR/sharp their sharp twins under the same names.

--what camera: the paired dataset that the camera never had, whole photos of unknown_sharp and what the learnt camera
makes of them, in GoPro's layout, DIR/{train,test}/camera/{blur,sharp}: --config.data.known=gopro
--config.data.known_path=DIR reads it, and b2b_jax.prepare makes ArrayRecord of it. DIR/camera.json holds the seed, the
camera and what it did to each photo, DIR/kernels.npy its kernels.
"""

import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from b2b_jax import arrays, commandline, files, images, levels, record, settings, terminal
from b2b_jax.compilation import enable_compilation_cache
from b2b_jax.data import pipeline
from b2b_jax.errors import UserError, shown
from b2b_jax.files import read_object, write_json
from b2b_jax.method.known_blur import Supply
from b2b_jax.named import STARTED_IN
from b2b_jax.stages import camera, camera_dataset, common, known_blur, translator
from b2b_jax.stages.camera_dataset import Pair
from b2b_jax.stages.known_blur import KnownBlur
from b2b_jax.stages.run import Run

OUTPUT = flags.DEFINE_string("output", None, "Folder to write: new, or empty.")
WHAT = flags.DEFINE_enum("what", "known_blur", ("known_blur", "camera"), "Which photos to write.")
COUNT = flags.DEFINE_integer("count", 100, "How many photos to write.", lower_bound=1)


def command() -> int:
    """Runs the command line; returns its exit code."""
    terminal.protect()
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__, commandline.described(OUTPUT, WHAT, COUNT), sep="\n")
        return 0
    if "--version" in sys.argv:
        print(terminal.VERSION)
        return 0
    return commandline.outcome(make_photos)


def make_photos() -> None:
    """Writes the photos that the flags ask for."""
    run = commandline.parse(recorded)
    folder = output_folder()
    if WHAT.value == "camera":
        return make_pairs(run, folder)
    check(run)
    enable_compilation_cache()
    known = known_blur.open_set(run, run.config.known_blur.source)
    write(folder, synthesize(run, known, COUNT.value), COUNT.value)


def make_pairs(run: Run, folder: Path) -> None:
    """Writes pairs of the run's learnt camera."""
    settings.check_values(run.config)
    if not run.trained("camera"):
        raise UserError(f"{run.workdir} has no learnt camera; train it first: --config.stages=camera")
    check_recorded(run, "camera")
    if camera.refused(run):
        reasons = "; ".join(read_object(run.workdir / "camera" / "scores.json").get("reasons", []))
        print(shown(f"note: the run itself did not use this camera: {reasons}"), file=sys.stderr)
    enable_compilation_cache()
    pairs = terminal.bar(camera_dataset.photograph(run, COUNT.value), total=COUNT.value, unit="pair")
    write_pairs(folder, pairs, {"seed": run.config.seed, "camera": str(run.weights_path("camera"))})


def recorded(workdir: Path) -> ConfigDict:
    """The configuration of the run in the folder; UserError when there is none, or it is one of an older version."""
    saved = record.read_config(workdir)
    if not saved:
        raise UserError(f"{workdir} is no run's folder: it holds no config.json; name another, or give a --config")
    if missing := settings.lacking(keys(saved), keys(newest())):
        older = f"{workdir} holds a run of an older version, which did not have {', '.join(missing)}"
        raise UserError(f"{older}; give the configuration that it was made with, --config")
    began = str(saved.get(STARTED_IN, ""))
    return ConfigDict(tupled(settings.placed(saved, [began if os.path.isdir(began) else ""])))


def newest() -> dict:
    """A configuration of this version."""
    return commandline.configuration("camera", "small").to_dict()


def keys(part: object, depth: int = 0) -> object:
    """The keys of a configuration; within its sections not those of networks, optimizers and kernels, which vary."""
    if not isinstance(part, dict) or (depth > 1 and {"name", "kind"} & part.keys()):
        return None
    return {key: keys(value, depth + 1) for key, value in part.items()}


def tupled(value: object) -> object:
    """What JSON holds of a configuration, with the tuples that it had."""
    if isinstance(value, dict):
        return {key: tupled(part) for key, part in value.items()}
    return tuple(map(tupled, value)) if isinstance(value, list) else value


def check_recorded(run: Run, stage: str) -> None:
    """UserError when the run trained another network in this stage than the configuration at hand describes."""
    old, now = read_object(run.workdir / "config.json").get(stage, {}), settings.as_json(run.config[stage])
    old, now = ({key: one[key] for key in ("learner", "network") if key in old} for one in (old, now))
    changes = settings.differences(old, now, stage)
    if changes and not run.config[stage].weights:
        changed = f"{run.workdir} holds a run of another configuration ({'; '.join(changes)})"
        raise UserError(f"{changed}; without --config the run's own is used")


def output_folder() -> Path:
    """--output; UserError unless it is new or empty, OSError where it cannot be written."""
    if not OUTPUT.value:
        raise UserError("No folder to write: give one, --output=DIR")
    folder = Path(OUTPUT.value)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} already exists and is not an empty folder; choose another --output, or remove it if a stopped "
            "run of this command left it"
        )
    files.check_writable(folder)
    return folder


def check(run: Run) -> None:
    """UserError when the run cannot make its known blur: photos or the extractor's weights are missing."""
    settings.check_values(run.config)
    if run.config.known_blur.source == "extractor":
        check_recorded(run, "blur_extractor")
    translator.check_known_blur(run)


def synthesize(run: Run, known: KnownBlur, count: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yields `count` photos of the set K and their sharp twins (None without), uint8 (crop, crop, 3).

    The i-th depends on the run's seed and on i alone.
    """
    config, batch = run.config.translator, min(count, run.config.translator.batch)
    frozen = {part: network.variables for part, network in known.frozen.items()}
    make, key = jax.jit(known.make), jax.random.key(run.config.seed)
    supplies = with_twins(run, known)  # of which as many as can be are shown: one crop each
    streams = common.streams(run, supplies, config.crop, translator.SEED, crops=1, resize=config.resize)
    batches = pipeline.iterate(pipeline.batches(streams, batch, 0, 1), 0, -(-count // batch), 2, 2)
    for index, photos in enumerate(batches):
        photos.pop("name")
        sharp = photos.pop("sharp", photos.get("unknown_sharp"))
        blurry = levels.to_uint8(make(frozen, photos, jax.random.fold_in(key, index)))
        for i in range(min(batch, count - index * batch)):
            yield blurry[i], None if sharp is None else sharp[i]


def with_twins(run: Run, known: KnownBlur) -> list[Supply]:
    """The photos of the set K, and with them the sharp twins that some of its sources have."""
    if run.config.known_blur.source not in ("paired", "synthetic"):
        return known.supplies
    return [dataclasses.replace(supply, names={**supply.names, "sharp": "sharp"}) for supply in known.supplies]


def write(folder: Path, photos: Iterator[tuple[np.ndarray, np.ndarray | None]], count: int) -> None:
    """Writes blurry/000000.png, … and their twins sharp/000000.png, …"""
    for index, (blurry, sharp) in enumerate(terminal.bar(photos, total=count, unit="photo")):
        images.write(folder / "blurry" / f"{index:06d}.png", blurry)
        if sharp is not None:
            images.write(folder / "sharp" / f"{index:06d}.png", sharp)
    print(f"{count} photos with the known blur in {folder}")


def write_pairs(folder: Path, pairs: Iterable[Pair], origin: Mapping[str, object]) -> None:
    """Writes pairs in GoPro's layout, and beside them how they were made; `origin` says by what."""
    shots, kernels = {}, []
    for index, pair in enumerate(pairs):
        name = f"{index:06d}.png"
        for kind, image in (("blur", pair.blurry), ("sharp", pair.sharp)):
            images.write(folder / pair.part / "camera" / kind / name, image)
        shots[f"{pair.part}/{name}"] = pair.shot
        kernels += [] if pair.kernel is None else [pair.kernel]
    write_json(folder / "camera.json", {**origin, "shots": shots})
    if kernels:
        arrays.write(folder / "kernels.npy", np.stack(kernels))
    print(f"{len(shots)} pairs of the camera in {folder}")


if __name__ == "__main__":
    sys.exit(command())
