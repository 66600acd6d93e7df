"""The pages say what the code does: settings, dependencies, links."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct
from prometheus_client import CollectorRegistry

from patchbay.metrics.collector import UnitCollector
from patchbay.metrics.meter import Counters
from patchbay.services import discover, resolve
from patchbay.settings import BrokerSettings, Config, RuntimeSettings, StoreSettings
from tests import doorbell
from tests.pages import ROOT, default, kind, tables

SETTINGS: dict[str, type[Struct]] = {
    "runtime": RuntimeSettings,
    "broker": BrokerSettings,
    "store": StoreSettings,
    **{name: resolve(service.settings) for name, service in discover().items()},
}
PROJECTS = [
    path
    for path in (ROOT / "shared/pyproject.toml", *sorted(ROOT.glob("svc-*/pyproject.toml")))
    if path.exists()
]
DECISIONS = sorted((ROOT / "docs/adr").glob("*.md"))


def pages() -> list[Path]:
    """The Markdown pages of the repository, not those of what is installed in it."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.parts))


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_is_described_as_it_is(name: str) -> None:
    (table,) = [one for one in tables("docs/settings.md") if one.heading == name]
    documented = [(row["key"], row["type"], row["default"]) for row in table.rows]
    fields = msgspec.structs.fields(SETTINGS[name])
    assert documented == [(field.name, kind(field), default(field)) for field in fields]
    assert all(table.column("reason"))


def test_every_table_of_settings_is_described_and_no_other() -> None:
    headings = [table.heading for table in tables("docs/settings.md")]
    assert sorted(headings) == sorted(SETTINGS)


@pytest.mark.parametrize("name", sorted(discover()))
def test_a_service_s_page_lists_its_settings(name: str) -> None:
    (table,) = [one for one in tables(f"svc-{name}/README.md") if one.heading == "Settings"]
    documented = [(row["key"], row["default"]) for row in table.rows]
    fields = msgspec.structs.fields(SETTINGS[name])
    assert documented == [(field.name, default(field)) for field in fields]


def test_the_example_of_an_environment_is_one_that_is_understood() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    settings = dict(re.findall(r"^#?(PATCHBAY_\w+)=(.*)$", text, flags=re.MULTILINE))
    assert settings.pop("PATCHBAY_CONFIG")
    assert Config.read(None, settings, discover()).port(1) > 1


def test_the_example_of_a_service_fits_the_code(tmp_path: Path) -> None:
    doorbell.install(tmp_path)
    assert len(doorbell.sources()) == 6
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def third_party() -> list[str]:
    """The dependencies that are named in a pyproject.toml or in requirements.in."""
    named = [
        line.partition("#")[0]
        for line in (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    ]
    for path in PROJECTS:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        project = content["project"]
        named += content["build-system"]["requires"] + project["dependencies"]
        for extra in project.get("optional-dependencies", {}).values():
            named += extra
    names = {re.split(r"[ \[<>=!~;]", line.strip())[0] for line in named}
    return sorted(names - {"", *(path.parent.name for path in PROJECTS), "patchbay"})


@pytest.mark.parametrize("dependency", third_party())
def test_every_dependency_was_decided_for(dependency: str) -> None:
    word = re.compile(rf"(?<![\w-]){re.escape(dependency)}(?![\w-])", re.IGNORECASE)
    assert [path.name for path in DECISIONS if word.search(path.read_text(encoding="utf-8"))]


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_four_parts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.name[:4]} ")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == [
        "Context",
        "Decision",
        "Consequences",
        "Alternatives",
    ]


@pytest.mark.parametrize("page", pages(), ids=str)
def test_a_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [target for target in targets if not (ROOT / page.parent / target).exists()] == []


def test_the_page_of_metrics_has_every_number_as_it_is() -> None:
    registry = CollectorRegistry()
    Counters(registry)
    registry.register(UnitCollector([]))
    found = []
    for family in registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        found.append((family.name + suffix, family.type))
    (table,) = [one for one in tables("docs/metrics.md") if one.heading == "Names"]
    documented = [(row["metric"].strip("`"), row["type"]) for row in table.rows]
    assert sorted(documented) == sorted(found)
    assert all(table.column("meaning"))
