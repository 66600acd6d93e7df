"""What the command line prints of others goes through the one place that makes it safe."""

from __future__ import annotations

import ast

import pytest

from tests.pages import ROOT

MODULES = sorted(ROOT.glob("svc-*/src/*/cli.py"))
RAW = {"typer.echo", "typer.secho", "print"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.parent.name)
def test_a_command_prints_only_words_of_its_own_by_itself(path: object) -> None:
    """All else it gives to `echo`, `print_table` or `print_json`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if ast.unparse(call.func) in RAW and call.args:
            said = call.args[0]
            own = isinstance(said, ast.Constant) or ast.unparse(said).startswith("conf.toml(")
            assert own, f"line {call.lineno}: {ast.unparse(call)}"
