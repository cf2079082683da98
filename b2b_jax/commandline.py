"""The command line of `main` and of what runs beside it: flags to a run, every mistake in them one line."""

import contextlib
import importlib
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from b2b_jax import interrupts, memory, sharding, terminal
from b2b_jax.errors import UserError, disk_fault
from b2b_jax.images import ImageError
from b2b_jax.stages.run import Run

CONFIGS = Path(__file__).parent / "configs"
USAGE = "Usage: python -m b2b_jax.main --config configs/NAME.py[:VARIANT] [--workdir DIR] [--config.KEY=VALUE …]"

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's configuration: configs/NAME.py or NAME.py:VARIANT.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default runs/NAME or runs/NAME_VARIANT.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
HEARTBEAT = flags.DEFINE_integer("heartbeat", 100, "Seconds of silence after which a process counts as dead.", 1)


def outcome(command: Callable[[], None], keep: Callable[[], None] = memory.keep) -> int:
    """Runs a command; returns its exit code: 0, 2 for a user's mistake (said in one line), 130 for Ctrl-C."""
    terminal.protect()
    keep()
    try:
        command()
    except (UserError, ImageError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno is None:
            raise
        line, code = disk_fault(error)
        print(line, file=sys.stderr)
        return code
    except KeyboardInterrupt:
        print(interrupts.stopped(signal.SIGINT), file=sys.stderr)
        return 130
    return 0


def described(*holders: flags.FlagHolder) -> str:
    """A line for each of these flags: what it is, and its default."""
    known = [flags.FLAGS[holder.name] for holder in holders]
    return "\n".join(f"--{flag.name}: {flag.help} (default: {flag.default})" for flag in known)


def parse(recorded: Callable[[Path], ConfigDict] | None = None) -> Run:
    """Command line to Run; every mistake in it is a UserError of one line.

    recorded: where no configuration has to be given, what reads that of the run in the folder --workdir.
    """
    importable()
    with mistakes(USAGE, sys.argv):
        rest = flags.FLAGS(list(map(shipped, sys.argv)))
        config = CONFIG.value
    if len(rest) > 1:
        raise UserError(f"Not understood: {' '.join(rest[1:])}. {USAGE}")
    if config is None and recorded and WORKDIR.value:
        return Run(recorded(Path(WORKDIR.value)), Path(WORKDIR.value))
    if config is None:
        raise UserError("No configuration: give --workdir or --config" if recorded else f"No configuration. {USAGE}")
    if not isinstance(config, ConfigDict):
        raise UserError(f"No configuration file {config_path()}. {USAGE}")
    return Run(config, Path(WORKDIR.value or default_workdir()))


WANTED = {  # what a flag's parser says of a wrong value: what to say instead
    "invalid literal for int": "wanted a whole number",
    "could not convert string to float": "wanted a number",
    "Non-boolean argument": "wanted True or False",
    "is not a dict": "is a section; set one of its keys instead",
}


@contextlib.contextmanager
def mistakes(advice: str, words: Sequence[str]) -> Iterator[None]:
    """Makes a UserError of one line of what flags and configurations say of a mistake in `words`.

    Most lines end with `advice`.
    """
    try:
        yield
    except (AttributeError, KeyError) as error:  # of a key, and of a section that should hold it
        raise UserError(_unknown_key(str(error.args[0]), words)) from error
    except IndexError as error:  # KEY[0]: configurations hold tuples, of which nothing can be changed alone
        hint = "one of those given has an index; give the whole value, such as --config.stages=deblurrer,report"
        raise UserError(f"Unknown configuration key: {hint}") from error
    except (flags.Error, ValueError, TypeError, OSError) as error:
        raise UserError(_wrong_value(str(error), advice)) from error


def _unknown_key(message: str, words: Sequence[str]) -> str:
    """One line of what ml_collections says of a key that a configuration lacks: the word that has it, a near key."""
    names = re.findall(r"[\w.]+", message.replace("\\n", " "))
    names = names[-1:] if "lookup" in names else names  # below a number: the whole key comes last
    given = (word.partition("=")[0].lstrip("-") for word in words)
    place = next((key for key in given if names[0] in key.split(".") and key != f"config.{names[0]}"), "")
    hint = (
        f"did you mean {names[names.index('mean') + 1]!r}?" if "mean" in names else "configs/default.py lists all keys"
    )
    return f"Unknown configuration key {names[0]!r}{f' in {place}' if place else ''}; {hint}"


def _wrong_value(message: str, advice: str) -> str:
    """One line of what the flags say of a mistake; one inside a configuration file comes as a whole traceback."""
    line = message.strip().splitlines()[-1].strip().removeprefix("ValueError: ")
    if "indices must be integers" in line:  # below a text or a tuple
        line = "Unknown configuration key: one of the given keys goes below a plain value"
    elif line.startswith("flag --") and (wanted := next((w for said, w in WANTED.items() if said in line), "")):
        return f"{line.partition(': ')[0].removeprefix('flag ')}: {wanted}"
    return f"{line.rstrip('.')}. {advice}"


def importable() -> None:
    """Lets configurations import one another as `configs.NAME`, from a wheel as from a checkout."""
    sys.modules.setdefault("configs", importlib.import_module("b2b_jax.configs"))


def shipped(word: str) -> str:
    """`configs/NAME.py:VARIANT`, alone or behind `--config=`, as the package's own file where the folder has none."""
    option, path, variant = re.fullmatch(r"(--?config=)?([^:]*)(.*)", word, re.DOTALL).groups(default="")
    own = CONFIGS / Path(path).name
    if Path(path).parent != Path("configs") or Path(path).exists() or not own.is_file():
        return word
    return f"{option}{own}{variant}"


def configuration(name: str, variant: str, settings: Sequence[str] = ()) -> ConfigDict:
    """One of the package's configurations: that of `--config configs/NAME.py:VARIANT`, with KEY=VALUE of `settings`.

    UserError: there is no such key, or its value is of another kind.
    """
    importable()
    file = f"{CONFIGS / name}.py{variant and f':{variant}'}"
    words = ["b2b_jax", f"--config={file}", *(f"--config.{setting}" for setting in settings)]
    values = flags.FlagValues()
    found = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    with mistakes("Wanted KEY=VALUE, one a line", words):
        values(words)
    return found.value


def join() -> None:
    """Joins the other processes of the run, if the flags or the cluster speak of any."""
    sharding.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, HEARTBEAT.value)


def config_path() -> str:
    """What --config names."""
    return config_flags.get_config_filename(flags.FLAGS["config"])


def default_workdir() -> Path:
    """runs/NAME, or runs/NAME_VARIANT for --config configs/NAME.py:VARIANT."""
    file, _, variant = config_path().partition(":")
    return Path("runs") / "_".join(filter(None, [Path(file).stem, variant.replace(",", "_")]))
