"""The file, the environment, and what is said of mistakes in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta, Struct

from patchbay.errors import SettingsError
from patchbay.services import Service
from patchbay.settings import BrokerSettings, Config, RuntimeSettings, StoreSettings


class GateSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: Annotated[int, Meta(ge=0, le=65_535)] = 5000
    listen_host: str | None = None
    nodes: list[str] = []


SERVICES = {"gate": Service(name="gate", settings=f"{__name__}:GateSettings", roles={})}


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where there is no file."""
    monkeypatch.chdir(tmp_path)


def read(text: str = "", **environ: str) -> Config:
    path = Path("patchbay.toml")
    path.write_text(text)
    return Config.read(path, environ, SERVICES)


def complaint(text: str = "", **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(text, **environ)
    return str(caught.value)


def test_without_a_file_and_a_variable_all_are_defaults() -> None:
    config = Config.read(None, {"HOME": "/"}, SERVICES)
    assert config.runtime == RuntimeSettings()
    assert config.broker == BrokerSettings()
    assert config.store == StoreSettings()
    assert config.table("gate", GateSettings) == GateSettings()


def test_the_file_in_the_working_directory_is_read() -> None:
    Path("patchbay.toml").write_text("[gate]\nport = 6000\nnodes = ['a']\n")
    config = Config.read(None, {}, SERVICES)
    assert config.table("gate", GateSettings) == GateSettings(port=6000, nodes=["a"])


def test_a_variable_may_name_the_file() -> None:
    Path("other.toml").write_text("[broker]\nhost = 'mosquitto'\n")
    config = Config.read(None, {"PATCHBAY_CONFIG": "other.toml"}, SERVICES)
    assert config.broker.host == "mosquitto"


def test_a_named_file_must_be_there() -> None:
    with pytest.raises(SettingsError, match=r"^nowhere\.toml: No such file"):
        Config.read(Path("nowhere.toml"), {}, SERVICES)
    with pytest.raises(SettingsError, match=r"^nowhere\.toml: No such file"):
        Config.read(None, {"PATCHBAY_CONFIG": "nowhere.toml"}, SERVICES)


def test_the_environment_overrides_the_file_key_by_key() -> None:
    config = read(
        "[gate]\nport = 6000\nnodes = ['a']\n",
        PATCHBAY_GATE__PORT="7000",
        PATCHBAY_STORE__URI="mongodb://db:27017",
    )
    assert config.table("gate", GateSettings) == GateSettings(port=7000, nodes=["a"])
    assert config.store.uri == "mongodb://db:27017"


def test_lists_in_the_environment_are_json() -> None:
    config = read(PATCHBAY_GATE__NODES='["mixer-1:5000", "mixer-2:5000"]')
    assert config.table("gate", GateSettings).nodes == ["mixer-1:5000", "mixer-2:5000"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gate]\nprot = 1\n", "patchbay.toml: [gate] prot: unknown key (did you mean port?)"),
        (
            "[gate]\nport = 'x'\n",
            'patchbay.toml: [gate] port: must be an integer from 0 to 65535, got "x"',
        ),
        ("[gates]\n", "patchbay.toml: [gates]: unknown table (did you mean gate?)"),
        ("[broker]\nprt = 1\n", "patchbay.toml: [broker] prt: unknown key (did you mean port?)"),
        (
            "[store]\nport = -1\n",
            "patchbay.toml: [store] port: must be an integer from 0 to 65535, got -1",
        ),
        ("[runtime]\ndemo = 1\n", "patchbay.toml: [runtime] demo: must be true or false, got 1"),
        ("[broker]\npassword = 1\n", "patchbay.toml: [broker] password: must be text or null"),
        ("port = 1\n", "patchbay.toml: port: stands outside of a table"),
    ],
)
def test_a_mistake_in_any_table_of_the_file_is_named(text: str, said: str) -> None:
    assert complaint(text) == said


def test_a_file_that_is_no_toml_says_where() -> None:
    assert complaint("[gate\n").startswith("patchbay.toml: not TOML: ")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "PATCHBAY_GATE__PORT",
            "abc",
            'PATCHBAY_GATE__PORT: must be an integer from 0 to 65535, got "abc"',
        ),
        ("PATCHBAY_GATE__PROT", "1", "PATCHBAY_GATE__PROT: unknown key (did you mean port?)"),
        ("PATCHBAY_GAT__PORT", "1", "PATCHBAY_GAT__PORT: unknown table gat (did you mean gate?)"),
        (
            "PATCHBAY_GATE_PORT",
            "1",
            "PATCHBAY_GATE_PORT: no setting; they are named PATCHBAY_<TABLE>__<KEY>",
        ),
    ],
)
def test_a_mistake_in_the_environment_is_named(variable: str, value: str, said: str) -> None:
    assert complaint(**{variable: value}) == said


def test_variables_of_the_launcher_and_of_others_are_no_settings() -> None:
    read(PATCHBAY_PYTHON="python3.12", PATCHBAY_CONFIG="", PATH="/bin", XPATCHBAY_A__B="1")


def test_a_wrong_value_in_the_file_is_no_error_when_the_environment_overrides_it() -> None:
    config = read("[gate]\nport = 'x'\n", PATCHBAY_GATE__PORT="1")
    assert config.table("gate", GateSettings).port == 1


def test_a_table_is_asked_for_by_its_name_and_type() -> None:
    config = read()
    with pytest.raises(SettingsError, match=r"\[nothing\]: no such table of GateSettings"):
        config.table("nothing", GateSettings)
    with pytest.raises(SettingsError, match=r"\[broker\]: no such table of GateSettings"):
        config.table("broker", GateSettings)


def test_the_offset_moves_every_port_but_any_free_one() -> None:
    config = read("[runtime]\nport_offset = 100\n")
    assert config.port(5000) == 5100
    assert config.port(0) == 0
    with pytest.raises(SettingsError, match="port 65500 becomes 65600"):
        config.port(65_500)


def test_the_offset_moves_our_own_broker_and_store_and_nobody_elses() -> None:
    ours = read("[runtime]\nport_offset = 100\n")
    assert ours.broker_port == 1983
    assert ours.store_uri == "mongodb://127.0.0.1:27117"
    others = read(
        "[runtime]\nport_offset = 100\n[broker]\nhost = 'mqtt'\n[store]\nuri = 'mongodb://db'\n"
    )
    assert others.broker_port == 1883
    assert others.store_uri == "mongodb://db"


def test_device_ports_listen_on_loopback_in_a_demo_and_everywhere_without() -> None:
    assert read().listen_host(None) == "0.0.0.0"
    demo = read(PATCHBAY_RUNTIME__DEMO="true")
    assert demo.listen_host(None) == "127.0.0.1"
    assert demo.listen_host("10.0.0.1") == "10.0.0.1"


@pytest.mark.parametrize("root", ["/patchbay", "patchbay/", "a/+/b", "#", "", "a/b/c/d/e"])
def test_a_root_topic_that_would_break_the_grammar_is_refused(root: str) -> None:
    assert complaint(PATCHBAY_RUNTIME__ROOT_TOPIC=root).startswith(
        "PATCHBAY_RUNTIME__ROOT_TOPIC: must be text that matches"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[broker]\npassword = 'a'\npassword_file = 'b'\n",
            "[broker]: password and password_file: give one of them",
        ),
        ("[broker]\nca_file = 'ca.crt'\n", "[broker]: ca_file, cert_file: they mean nothing"),
        ("[broker]\ntls = true\nkey_file = 'a'\n", "[broker]: key_file: its certificate is"),
        ("[store]\nusername = 'locker'\n", "[store]: username and password_file: give both"),
    ],
)
def test_keys_that_contradict_each_other_are_named(text: str, said: str) -> None:
    assert complaint(text).startswith(said)


@pytest.mark.parametrize(
    "host",
    ["", " 127.0.0.1 ", "mqtt://10.0.0.1", "10.0.0.1:1883", "[::1]", "a host", "x/y"],
)
def test_a_broker_host_that_is_none_is_one_line_that_names_the_setting(host: str) -> None:
    said = complaint(PATCHBAY_BROKER__HOST=host)
    assert "PATCHBAY_BROKER__HOST" in said or "[broker]" in said
    assert "host must be a name or an address" in said
    assert "\n" not in said


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0", "my-host.local", "a_b"])
def test_a_broker_host_may_be_a_name_or_an_address(host: str) -> None:
    assert read(PATCHBAY_BROKER__HOST=host).broker.host == host


def test_a_file_that_an_editor_began_with_a_byte_order_mark_is_read() -> None:
    Path("patchbay.toml").write_bytes(b"\xef\xbb\xbf[broker]\nport = 1884\n")
    assert Config.read(None, {}, SERVICES).broker.port == 1884


def test_a_store_uri_of_another_kind_is_one_line_that_names_the_setting() -> None:
    for uri in ("http://x", "127.0.0.1:27017", "mongodb:"):
        said = complaint(PATCHBAY_STORE__URI=uri)
        assert "uri must begin with mongodb://" in said
        assert "\n" not in said


def test_a_file_or_variable_nested_without_end_is_one_line() -> None:
    assert complaint("x = " + "[" * 100_000).startswith("patchbay.toml: not TOML")
    assert "PATCHBAY_GATE__NODES" in complaint(PATCHBAY_GATE__NODES="[" * 100_000)
