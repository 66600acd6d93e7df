"""The seed's files."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from patchbay_allocator.conf import (
    Chromebook,
    ConfError,
    read_combinators,
    read_conf,
    read_data,
    read_table,
    toml,
)

CONF = Chromebook("CHROMEBOOK_01", "10.0.0.2", 8372)


@pytest.mark.parametrize(
    "text",
    [
        "ClientName: CHROMEBOOK_01\nServerAddr: 10.0.0.2\nServerPort: 8372\n",
        "ClientName = CHROMEBOOK_01\r\nServerAddr=10.0.0.2\r\nServerPort = 8372",
        "\ufeff[client]\nclientname: CHROMEBOOK_01\nserveraddr: 10.0.0.2\nserverport: 8372\n",
        "# ours\n[a]\nClientName: CHROMEBOOK_01\n[b]\nServerAddr: 10.0.0.2\nServerPort: 8372\n",
    ],
)
def test_a_conf_is_read_however_it_is_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "conf.conf"
    path.write_bytes(text.encode())
    assert read_conf(path) == CONF


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("ClientName: a\nServerAddr: b\n", "ServerPort: missing"),
        (
            "ClientName: a\nServerAddr: b\nServerPort: many\n",
            "to 65535, got many",
        ),
        (
            "ClientName: a\nServerAddr: b\nServerPort: 70000\n",
            "to 65535, got 70000",
        ),
        ("nonsense\n", "nonsense"),
    ],
)
def test_a_conf_that_cannot_be_used_says_why(tmp_path: Path, text: str, wrong: str) -> None:
    path = tmp_path / "conf.conf"
    path.write_text(text)
    with pytest.raises(ConfError, match=wrong):
        read_conf(path)
    with pytest.raises(ConfError, match="No such file"):
        read_conf(tmp_path / "none")


def test_data_is_two_lines_without_what_is_around_them(tmp_path: Path) -> None:
    path = tmp_path / "data.dat"
    path.write_bytes("\ufeff 이름 \r\nFFFFFF\t\r\n".encode())
    assert read_data(path) == ("이름", "FFFFFF")
    for bad in ("", "이름", "이름\n \n", "\nFFFFFF\n"):
        path.write_text(bad)
        with pytest.raises(ConfError, match="line 1 is the name"):
            read_data(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfError, match="not UTF-8"):
        read_data(path)


def test_combinators_become_a_table_of_our_settings(tmp_path: Path) -> None:
    path = tmp_path / "allocatemgr.conf"
    path.write_text(
        "ColorCombinator1Addr: localhost\nColorCombinator1Port: 5000\n"
        "ColorCombinator2Addr: ::1\nColorCombinator2Port: 5001\n"
        "SignalAddr: localhost\nSignalPort: 6000\n"
    )
    found = tomllib.loads(toml(read_combinators(path)))
    assert found == {"allocator": {"combinators": ["localhost:5000", "[::1]:5001"]}}


def test_the_combinators_table_of_colours_becomes_their_palette(tmp_path: Path) -> None:
    path = tmp_path / "color_table.json"
    path.write_text('{\n  "EF9595": [20,80,0,0],\n  "FACBEA" : [0,0,0,100],\n "TESTR": [1]}\n\n')
    found = tomllib.loads(toml(["a:1", "b:2"], read_table(path)))["allocator"]
    assert found["palettes"] == {"1": ["EF9595", "FACBEA"], "2": ["EF9595", "FACBEA"]}
    for text, wrong in (("[]", "must be a JSON object"), ('{"TESTR": [1]}', "no key is a colour")):
        path.write_text(text)
        with pytest.raises(ConfError, match=wrong):
            read_table(path)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("ColorCombinator1Addr: a\n", "ColorCombinator1Port: missing"),
        ("ColorCombinator2Addr: a\nColorCombinator2Port: 1\n", "without a gap"),
        ("ColorMixer: a\n", "colormixer: unknown key"),
    ],
)
def test_an_allocatemgr_conf_that_cannot_be_used_says_why(
    tmp_path: Path, text: str, wrong: str
) -> None:
    path = tmp_path / "allocatemgr.conf"
    path.write_text(text)
    with pytest.raises(ConfError, match=wrong):
        read_combinators(path)
