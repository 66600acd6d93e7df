"""A bounded, coverage-guided run over the decoders, in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz_uart.py")


@pytest.mark.parametrize("runs", [10_000, pytest.param(30_000, marks=pytest.mark.long)])
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: it has wheels for some platforms only",
)
def test_no_input_that_the_fuzzer_finds_breaks_a_decoder(tmp_path: Path, runs: int) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    line = bytes.fromhex(
        "ff00055b445d024750530602f001be92005241570 3fa05fa04fa00fe".replace(" ", "")
    )
    (corpus / "data").write_bytes(b"\x05boot" + line)
    (corpus / "request").write_bytes(b"\x05[GET]GPS\x00\x05[E]")
    (corpus / "command").write_bytes(b"\x05SEND-\x00\x05\x02hi\n")
    options = [f"-runs={runs}", "-seed=1", "-max_len=512", "-rss_limit_mb=1024", str(corpus)]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {runs} runs" in done.stderr
