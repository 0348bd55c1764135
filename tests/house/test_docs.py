"""The pages of docs/, README and its neighbours: short, true to the code, and made from it."""

import doctest
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import CHECKOUT

from fl_ppseg.config.loading import builtin_arms, configs_dir
from fl_ppseg.config.sections import Config

DOCS = CHECKOUT / "docs"
RECORDS = {"faults.md", "findings.md", "poisoning.md", "trials.md"}
"""Pages that tell what was done at earlier commits, with what there was then."""
PAGES = sorted(DOCS.glob("*.md"))
GUIDES = [path for path in PAGES if path.name not in RECORDS]
DOOR = [CHECKOUT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
MODULE = r"python -m ((?:fl_ppseg|clients|strategies)\.\w+)"
PATH = re.compile(
    r"`((?:fl_ppseg|clients|strategies|tests|configs|docs|benchmarks)/[\w./-]*\w\.\w+)`"
)


@pytest.fixture(scope="module")
def reference() -> Any:
    sys.path.insert(0, str(DOCS))
    try:
        return import_module("reference")
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    """Name of a picture -> what its script draws."""
    sys.path.insert(0, str(DOCS))
    try:
        picture, sequence = map(import_module, ("picture", "sequence"))
    finally:
        sys.path.remove(str(DOCS))
    return {picture.PICTURE.name: picture.picture(), sequence.SEQUENCE.name: sequence.sequence()}


def pages_of_site(entries: list[Any]) -> list[str]:
    found = []
    for entry in entries:
        inner = list(entry.values()) if isinstance(entry, dict) else [entry]
        for each in inner:
            found += pages_of_site(each) if isinstance(each, list) else [each]
    return found


def test_readme_is_for_one_reader() -> None:
    text = re.sub(r"```.*?```", "", DOOR[0].read_text("utf-8"), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "<!--"))]
    assert 300 < len(" ".join(lines).split()) <= 900


def test_every_page_has_its_place() -> None:
    text = (CHECKOUT / "mkdocs.yml").read_text("utf-8")
    nav = yaml.safe_load("nav:" + text.partition("\nnav:")[2])["nav"]
    made = {"reference/commands.md", "reference/config.md", "reference/arms.md"}
    assert sorted(pages_of_site(nav)) == sorted({path.name for path in PAGES} | made)


@pytest.mark.parametrize("page", [*DOOR, *PAGES], ids=lambda path: path.name)
def test_links_and_paths_lead_to_files(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [
        page.parent / target.partition("#")[0]
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if not target.startswith(("https://", "#", "reference/"))
    ]
    named = [] if page.name in RECORDS else [CHECKOUT / path for path in PATH.findall(text)]
    assert [str(path) for path in links + named if not path.exists()] == []


FLOORS = re.compile(r"owner's floor|`floor\.yaml`|on one floor")
"""What may be called a floor: the least that an owner agrees to, and a storey of the drawing."""


@pytest.mark.parametrize(
    "page", [page for page in (*DOOR, *PAGES) if page.name != "glossary.md"], ids=lambda p: p.name
)
def test_no_page_calls_a_floor_what_the_best_attack_found_leaves(page: Path) -> None:
    text = page.read_text("utf-8")
    assert len(re.findall(r"(?<!_)\bfloors?\b(?!_)", text)) == len(FLOORS.findall(text))


@pytest.fixture(scope="module")
def helps(reference: Any) -> dict[str, str]:
    """Usage of each command, with that of its verbs."""
    texts = {}
    for module in reference.commands():
        parser = reference.parser_of(module)
        own = [reference.parser_of(module, verb) for verb in reference.verbs_of(parser)]
        texts[module] = "\n".join(each.format_help() for each in (parser, *own))
    return texts


@pytest.mark.parametrize("page", [DOOR[0], *GUIDES], ids=lambda path: path.name)
def test_shown_commands_and_options_exist(page: Path, helps: dict[str, str]) -> None:
    text = page.read_text("utf-8")
    for module, rest in re.findall(MODULE + r"([^\n`|]*)", text):
        assert module in helps, module
        for option in re.findall(r"--[a-z][\w-]*", rest):
            assert re.search(rf"{option}(?![\w-])", helps[module]), f"{module} has no {option}"
    for name in re.findall(r"--config ([a-z][\w-]*)(?![\w./-])", text):
        if name != "config":
            assert (configs_dir() / f"{name}.yaml").is_file(), name
    for names in re.findall(r"--arms ([a-z][\w,-]+)", text):
        assert set(names.split(",")) <= set(builtin_arms())


def test_reference_has_all_commands_settings_and_arms(reference: Any) -> None:
    made = reference.pages()
    commands, config, arms = (
        made[f"reference/{name}.md"] for name in ("commands", "config", "arms")
    )
    for name in (
        "simulate",
        "audit",
        "predict",
        "convert folder",
        "evaluate",
        "serve",
        "synthesize",
    ):
        assert f"## fl_ppseg.{name}\n" in commands
    for name in ("vault encrypt", "node start"):
        assert f"### clients.{name}\n" in commands
    assert "### strategies.coordinator enrol\n" in commands
    assert commands.count("| `--resume` |") == 1
    for section, field in Config.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        if section == "arm_table":  # on the page of arms
            continue
        for key in [f"{section}.{name}" for name in inner] if inner else [section]:
            assert f"| `{key}` |" in config or f"## {key}\n" in config, key
    assert "| `training.learning_rate` | number > 0 | `0.003` |" in config
    assert "## federation.privacy\n" in config
    assert all(f"| `{name}` |" in arms for name in builtin_arms())


def test_reference_shows_nothing_of_the_machine_that_made_it(reference: Any) -> None:
    made = "\n".join(reference.pages().values())
    assert str(CHECKOUT) not in made
    assert str(Path.home()) not in made


def test_architecture_gets_its_layers_and_rules(reference: Any) -> None:
    page = reference.on_page_markdown((DOCS / "architecture.md").read_text("utf-8"))
    assert "clients · strategies" in page
    assert "The training node's app holds no key" in page
    assert "<!--" not in page


def test_pictures_are_what_their_scripts_draw(drawn: dict[str, str]) -> None:
    assert {path.name: path.read_text("utf-8") for path in DOCS.glob("*.svg")} == drawn


def test_pages_load_nothing_from_other_servers(reference: Any) -> None:
    config = (CHECKOUT / "mkdocs.yml").read_text("utf-8")
    assert "font: false" in config and "extra_javascript" not in config
    texts = [reference.on_page_markdown(path.read_text("utf-8")) for path in PAGES]
    for text in (config, *texts, *reference.pages().values()):
        assert "```mermaid" not in text and "mermaid" not in config  # Material fetches its script
        assert not re.search(r"<(script|iframe|link)\b|!\[[^]]*\]\(https?:|\ssrc=.https?:", text)


def test_sessions_of_the_api_page_are_true() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    sessions = re.findall(r"```pycon\n(.*?)```", text, re.DOTALL)
    assert len(sessions) >= 4
    test = doctest.DocTestParser().get_doctest("\n".join(sessions), {}, "api.md", None, 0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    assert runner.run(test).failed == 0


def test_imports_of_the_api_page_exist() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    for module, names in re.findall(r"^from (fl_ppseg[\w.]*) import (.+)$", text, re.MULTILINE):
        for name in names.split(", "):
            assert hasattr(import_module(module), name), f"{module}.{name}"


def test_extra_of_the_pages_is_pinned() -> None:
    pinned = (CHECKOUT / "constraints.txt").read_text("utf-8")
    for name in ("mkdocs", "mkdocs-material", "pymdown-extensions"):
        assert re.search(rf"^{name}==[\d.]+$", pinned, re.MULTILINE)
