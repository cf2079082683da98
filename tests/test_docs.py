"""Links in the documents: every relative one and its anchor lead somewhere, every address of the web is well formed.

Nothing is fetched; `mkdocs build --strict` checks the site that is made of docs/. And the commands that documents and
programs tell their readers to type: none would be refused (helpers/commands.py).
"""

import ipaddress
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from helpers import commands

from b2b_jax import commandline
from b2b_jax.errors import UserError

ROOT = Path(__file__).parents[1]
MODULE = re.compile(r"(?<![\w./])((?:\w+/)+\w+\.py)\b")
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs" / "tour.ipynb"]
PLAIN = [ROOT / "CITATION.cff", ROOT / "pyproject.toml", ROOT / "mkdocs.yml", ROOT / "docs" / "onnx_page.html"]

FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"``.+?``|`[^`\n]*`")
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)|<a\s[^>]*href=\"([^\"]*)\"", re.MULTILINE
)
ADDRESS = re.compile(r"\b[a-z]+://[^\s<>\"'`]*", re.IGNORECASE)
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
HOST = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", re.IGNORECASE)


def text(path: Path) -> str:
    """A document in Markdown; of a notebook its cells of text."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def links(markdown: str) -> list[str]:
    """Where a document leads to, without what stands in code."""
    return [next(filter(None, found.groups()), "") for found in LINK.finditer(CODE.sub("", FENCED.sub("", markdown)))]


def addresses(markdown: str) -> list[str]:
    """Addresses of the web, in code too; what ends a sentence or a bracket is no part of one."""
    found = (re.match(r"[^()]*(\([^()]*\)[^()]*)*", address)[0] for address in ADDRESS.findall(markdown))
    return [address.rstrip(".,;:!*") for address in found]


def modules(markdown: str) -> set[str]:
    """Files of Python with their folders, in code and in commands; of a name in capitals there are many."""
    return {name for name in MODULE.findall(markdown) if not Path(name).stem.isupper()}


def anchors(markdown: str) -> set[str]:
    """The headings as the site and GitHub name them: a second one of a name has no use here."""
    plain = (re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading) for heading in HEADING.findall(FENCED.sub("", markdown)))
    return {re.sub(r"[\s]", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain}


def malformed(address: str) -> bool:
    """True for what no browser could open, or only without encryption."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return True
    local = parts.hostname == "localhost" or is_ip(parts.hostname)
    named = bool(parts.hostname and HOST.fullmatch(parts.hostname)) and port is None and parts.scheme == "https"
    clean = not re.search(r"[^\x21-\x7e]|[\\^{}|]", address) and "//" not in parts.path
    return not ((named or (local and parts.scheme in ("http", "https"))) and clean)


def is_ip(host: str | None) -> bool:
    try:
        return bool(ipaddress.ip_address(host or ""))
    except ValueError:
        return False


def broken(path: Path, markdown: str) -> Iterator[str]:
    """The relative links of a document that lead nowhere."""
    for link in links(markdown):
        if ADDRESS.match(link) or link.startswith("mailto:"):
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / unquote(place) if place else path
        inside = bool(link) and target.exists() and target.resolve().is_relative_to(ROOT)
        known = anchors(text(target) if place else markdown) if inside and anchor else {anchor}
        if not inside or anchor not in known:
            yield link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    assert not list(broken(path, text(path)))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_module_is_there(path):
    roots = (ROOT, ROOT / "b2b_jax", ROOT / "tests")
    assert not [name for name in modules(text(path)) if not any((root / name).is_file() for root in roots)]


@pytest.mark.parametrize("path", DOCUMENTS + PLAIN, ids=lambda path: path.name)
def test_every_address_is_well_formed(path):
    assert not [address for address in addresses(text(path)) if malformed(address)]


def test_what_is_broken_is_found():
    """A check that finds nothing anywhere would prove nothing."""
    page = """# One `b2b-jax` heading, and more

[good](README.md) ![good](docs/demo.jpg "a title") [good](#one-b2b-jax-heading-and-more) `[code](none.md)`
[good](docs/reliability.md#files-of-weights)
[bad](gone.md) [bad](docs/reliability.md#files-of-nothing) [bad](#two) [bad]() [bad](../../etc/passwd)

[bad]: docs/gone.md

```
[code](none.md)
```
"""
    bad = ["gone.md", "docs/reliability.md#files-of-nothing", "#two", "", "../../etc/passwd", "docs/gone.md"]
    assert list(broken(ROOT / "README.md", page)) == bad
    assert len(links(page)) == len(bad) + 4 and links('<a href="x.md">') == ["x.md"]
    assert modules("`stages/gone.py`, python tools/gone.py; configs/NAME.py") == {"stages/gone.py", "tools/gone.py"}


@pytest.mark.parametrize(
    ("address", "bad"),
    [
        ("https://arxiv.org/abs/2403.16205", False),
        ("http://127.0.0.1:7860/report?x=1", False),
        ("https://a-b.example.org/p_(q)#r", False),
        ("http://arxiv.org/abs/2403.16205", True),
        ("https://arxiv,org/abs", True),
        ("https://arxiv", True),
        ("https:///abs", True),
        ("htps://arxiv.org", True),
        ("https://arxiv.org//abs", True),
        ("https://arxiv.org/a{b}", True),
        ("https://arxiv.org:port/a", True),
        ("https://[::1/a", True),
    ],
)
def test_addresses_are_told_apart(address, bad):
    assert malformed(address) == bad
    assert addresses(f"(see {address}).") == [address] or "[" in address


# ------------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def accepting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    commands.without_networks(monkeypatch)


def refused(found: Iterable[commands.Command]) -> dict[str, str]:
    """The commands that are not accepted, each with what is said; those that differ in their seed only are one."""
    reasons = {}
    for command in {re.sub(r"_\d\b|seed=\d", "", " ".join(one.words)): one for one in found}.values():
        try:
            commands.accept(command)
        except (UserError, ImportError, SystemExit) as error:
            reasons[" ".join((command.module, *command.words))] = str(error)
    return reasons


@pytest.mark.slow
def test_no_documented_command_is_refused(accepting):
    found = {one[1:]: one for path in commands.files() for one in commands.commands(commands.told(path), path.name)}
    assert len(found) > 200 and {one.module for one in found.values()} >= set(commands.CONFIGURED)
    assert not refused(found.values())


MAIN = "python -m b2b_jax.main --config configs/"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("python -m b2b_jax.gone --help", "there is no b2b_jax.gone"),
        ("b2b-jax deblur photo.jpg --modle demo", "2"),
        ("python tools/photographs.py DIR --camera gone --output out", "2"),
        (f"{MAIN}demo.py --wrokdir runs/mine", "has no option wrokdir"),
        ("python tools/benchmark.py train --config configs/demo.py:gone", "has no variant 'gone'"),
        (f"{MAIN}demo.py --config.camera.lerner=likelihood", "did you mean 'learner'"),
        (f"{MAIN}demo.py --config.seed=one", "wanted a whole number"),
        (f"{MAIN}demo.py --config.stages=camra", "did you mean 'camera'"),
        (f"{MAIN}camera.py:small \\\n      --config.camera.learner=adversarial", "it can be likelihood"),
    ],
)
def test_a_command_that_is_refused_is_found(accepting, tmp_path, command, reason):
    page = tmp_path / "page.md"
    page.write_text(f"A `page` with\n\n    {command}\n")
    (found,) = refused(commands.commands(commands.told(page))).values()
    assert reason in found


def test_every_configuration_and_key_that_is_named_exists():
    """In errors, too."""
    sources = [path for folder in ("b2b_jax", "configs", "tools") for path in (ROOT / folder).rglob("*.py")]
    told = "".join(path.read_text() for path in {*sources, *commands.files()})
    for key, value in set(re.findall(r"--config\.([a-z][\w.]*\w)(?:=([^\s`\"'(){}]*[^\s`\"'(){}.,;]))?", told)):
        given = [f"{key}={value}"] if value and not value.isupper() else []
        config = commandline.configuration("camera", "", given)
        for part in key.split("."):
            config = config[part]
    named = set(re.findall(r"(?<![\w/])(?:configs/)?([a-z]\w+)\.py:([a-z][\w,.]*\w)", told))
    for name, variant in named - {("limits", "photos")}:  # of which there is one for every number
        assert commandline.configuration(name, variant)


def test_photos_of_the_sizes_that_are_documented_are_accepted(accepting):
    sizes = {"small": (240, 276), "": (256, 302)}
    readme, told = (re.sub(r"\s+", " ", (ROOT / file).read_text()) for file in ("README.md", "configs/camera.py"))
    assert "need 240 pixels a side, sharp ones 276" in readme
    assert "needs blurry photos of 256 and sharp ones of 302 pixels a side" in readme
    assert "need 256 pixels a side, sharp ones 302 (with `camera.py:small` and `medium` 240 and 276" in told
    for variant, (blurry, sharp) in sizes.items():
        config = commandline.configuration("camera", variant)
        commands.begin(config, blurry, sharp)
        for smaller in ((blurry - 1, sharp), (blurry, sharp - 1)):
            with pytest.raises(UserError, match=f"smaller than the {max(set((blurry, sharp)) - set(smaller))} that"):
                commands.begin(config, *smaller)
