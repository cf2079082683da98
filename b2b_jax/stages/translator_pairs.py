"""The translator trained with pairs of the learnt camera, through the frozen deblurrer: alone or beside its losses."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from b2b_jax.data.sources import check_sizes
from b2b_jax.method import paired_translation
from b2b_jax.method.known_blur import Supply
from b2b_jax.method.paired_translation import Lesson
from b2b_jax.stages import common, pairs
from b2b_jax.stages.pairs import Pairs
from b2b_jax.stages.run import Run
from b2b_jax.training import loop, optimizers
from b2b_jax.training.state import best_params

SEED = 26  # of its data stream
OWN = "taught_"  # what the names of its photos start with


class Taught(NamedTuple):
    """Pairs of the camera for a generator, opened."""

    lesson: Lesson
    supplies: list[Supply]
    frozen: Mapping[str, Any]  # weights: "camera" and "deblurrer"


def open_lesson(run: Run) -> Taught:
    """The generator's lesson on pairs of the run's camera."""
    config, deblurrer = run.config.translator, run.network("deblurrer")
    opened = apart(pairs.open_pairs(run, config.pairs))
    lesson = Lesson(common.create(config.generator, run.dtype), deblurrer.module, opened.make)
    return Taught(lesson, opened.supplies, opened.frozen | {"deblurrer": deblurrer.variables})


def apart(opened: Pairs) -> Pairs:
    """Pairs whose photos have names of their own in a batch: the set K may have some of the same names."""
    supplies = [replace(one, names={key: OWN + name for key, name in one.names.items()}) for one in opened.supplies]

    def make(frozen: Mapping, batch: Mapping[str, Any], key: Any) -> tuple:
        own = {name.removeprefix(OWN): photos for name, photos in batch.items() if name.startswith(OWN)}
        return opened.make(frozen, own, key)

    return Pairs(supplies, make, opened.frozen)


def fit_alone(run: Run, name: str, evaluate: loop.Evaluate, validated: Callable[[], None]) -> None:
    """Trains `config.translator.generator` on pairs alone and exports it to the run's folder `name`."""
    config, taught = run.config.translator, open_lesson(run)
    adam = optimizers.create(config.pairs.optimizer, config.pairs.steps)
    task = loop.Task(
        name=name,
        steps=config.pairs.steps,
        batch=config.batch,
        init=lambda key: paired_translation.init(taught.lesson, adam, config.ema, config.crop, key),
        step=paired_translation.make_step(taught.lesson, adam, config.ema),
        frozen=taught.frozen,
        evaluate=evaluate,
    )
    streams = common.streams(run, taught.supplies, config.crop, SEED)
    state = common.train(run, task, common.batches(run, streams, config.batch), validated)
    common.export(run, name, config.generator, best_params(state, "generator"))


def check(run: Run) -> None:
    """UserError when the photos or the settings cannot give pairs; nothing is compiled."""
    config = run.config.translator
    common.check_optimizer("translator.pairs", config.pairs.optimizer)
    for supply in pairs.wanted(run, config.pairs):
        check_sizes(supply.source, supply.crop(config.crop).extent, "translator.crop")
