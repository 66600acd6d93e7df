"""A password in a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay.errors import SettingsError
from patchbay.secret_file import read_secret


def test_white_space_around_it_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "ann").write_text(" a b\r\n")
    assert read_secret(f"{tmp_path}/{{user}}", "ann", "key") == "a b"


def test_a_file_that_may_not_be_read_is_named_and_the_setting_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_secret(str(tmp_path), "ann", "[store] password_file")
    assert str(caught.value) == f"[store] password_file: {tmp_path}: Is a directory"


def test_a_byte_order_mark_is_not_part_of_a_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xef\xbb\xbfopen sesame\r\n")
    assert read_secret(str(file), "user", "[broker] password_file") == "open sesame"
