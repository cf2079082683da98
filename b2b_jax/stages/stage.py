"""What a run knows of one of its trained networks: an entry of the table `stages.STAGES`.

The order of the stages, progress, report, record, checks and digests of weights are all read from that table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ml_collections import ConfigDict

from b2b_jax import named
from b2b_jax.stages.run import Run

Open = Callable[[], object]


def asked(config: ConfigDict) -> list[str]:
    """The stages that `config.stages` names."""
    return named.names(config.stages)


@dataclass(frozen=True)
class Stage:
    """One trained network; its folder in a run is its name in the table."""

    steps: Callable[[ConfigDict], int]  # how many it trains, of the whole configuration
    inputs: Callable[[Run], list[Open]]  # called before anything is compiled; each may raise UserError
    fit: Callable[[Run, Callable[[], None]], None]  # trains and exports it; the second is called at every validation
    reads: tuple[str, ...]  # which of the run's photos: "known", "unknown"
    seeds: range  # numbers of its data streams, apart from those of the other stages
    section: str = ""  # of the configuration, if it has one of its own, whose `weights` may be given
    needed: Callable[[Run], bool] = lambda run: True  # False when nothing in the run will use it
    restores: bool = True  # its network makes photos of photos
    serves: str = ""  # "evaluation": trained when that is asked for, not by a name of its own in config.stages

    def given(self, run: Run) -> str:
        """The file of weights that the configuration gives, which are then not trained; "" for none."""
        return run.config[self.section].weights if self.section else ""
