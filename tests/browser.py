"""A real browser for tests: the system's chromium, driven by Playwright.

Playwright's own browsers are not downloaded. Where there is no chromium, such tests are skipped
with the reason; ``patchbay test`` asks for it first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from patchbay.cli.development import chromium
from patchbay.testing import PATIENCE_S

DESKTOP = (1280, 800)
PHONE = (390, 844)


class Window:
    """A page in a window, and all that its console has complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                self.complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A chromium, or a skipped test."""
    path = chromium()
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    # As root it has no sandbox of its own; what it loads here is ours.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        one = await playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield one
        finally:
            await one.close()


@contextlib.asynccontextmanager
async def window(
    browser: Browser,
    size: tuple[int, int] = DESKTOP,
    scheme: Literal["light", "dark"] = "light",
) -> AsyncIterator[Window]:
    """A window of its own, with nothing in it."""
    width, height = size
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme
    )
    context.set_default_timeout(PATIENCE_S * 1000)
    expect.set_options(timeout=PATIENCE_S * 1000)
    try:
        yield Window(await context.new_page())
    finally:
        await context.close()
