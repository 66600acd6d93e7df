"""The page in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal, Self

import pytest
from playwright.async_api import Browser, Page, expect

from patchbay.errors import Unavailable
from patchbay.testing import PATIENCE_S, eventually, until
from patchbay_lantern.commands import KINDS, Byte, Kind, Registry
from tests.browser import DESKTOP, PHONE, Window, browser, window

if TYPE_CHECKING:
    from conftest import MakeHouse
    from tests.lantern_house import House

SOON_S = 1.0
"""What the page must show within a second of a command, on a machine that does nothing else."""

ON_THE_WAY = 5
"""Processes between a command that was answered and what is painted: the broker, ours, and the
browser's for the network, the page and the picture. On a busy machine each waits for its turn."""

WORK_S = 0.02
"""So much work tells how much of the machine we get."""

DEADLINE_MS = PATIENCE_S * 1000


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as one:
        yield one


class Cable:
    """A port that leads to another; when it is cut nothing comes through, and nobody is told.

    ``path``: what is before the paths of the other, as below the path of a proxy.
    """

    def __init__(self, port: int, path: str = "/") -> None:
        self.port = 0
        self.plugged = asyncio.Event()
        self.plugged.set()
        self.cut_off = 0
        """Connections that began while it was cut."""
        self._to = port
        self._path = path.encode()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._came, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.cut_off += not self.plugged.is_set()
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        for source, target in ((reader, back), (there, writer)):
            self._tasks.add(asyncio.create_task(self._carry(source, target)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                await self.plugged.wait()
                writer.write(data.replace(b"GET " + self._path, b"GET /", 1))
        writer.close()


async def opened(house: House, one: Window, port: int = 0, path: str = "/") -> Page:
    """The page, connected."""
    await until(lambda: house.page._told is not None)
    await one.page.goto(f"http://localhost:{port or house.page_port}{path}")
    await expect(one.page.locator("#said")).to_have_text("Connected", timeout=DEADLINE_MS)
    return one.page


async def color(page: Page) -> str:
    """The colour that the lantern is drawn in."""
    found: str = await page.evaluate(
        "getComputedStyle(document.querySelector('#glass .stop')).stopColor"
    )
    return found


class Stopwatch:
    """Takes the time from something that has happened to the picture of it in a page.

    Both are told by the machine's own clock, so what the driver of the browser takes does not
    count. How late a plain timer wakes meanwhile is told by a window in which nothing else runs;
    how much longer than alone work takes beside others, by some work of our own.
    """

    def __init__(self, page: Page, idle: Page) -> None:
        self._page = page
        self._idle = idle

    async def start(self) -> None:
        """Begin to note what is painted, and how late a timer is."""
        await self._idle.evaluate(
            """() => {
                let last = performance.now();
                setInterval(() => {
                    const now = performance.now();
                    window.worst = Math.max(window.worst, now - last - 10);
                    last = now;
                }, 10);
            }"""
        )
        await self._page.evaluate(
            """() => new MutationObserver(() => {
                const texts = {};
                for (const { id, textContent } of document.querySelectorAll("[id]"))
                    texts[id] = textContent;
                requestAnimationFrame(() => setTimeout(() => painted.push([Date.now(), texts])));
            }).observe(document.body, {subtree: true, childList: true, characterData: true})"""
        )

    @contextlib.asynccontextmanager
    async def soon(self, what: str, text: str) -> AsyncIterator[None]:
        """When the body ends, this must be painted within a second and what the machine adds."""
        slower = times_slower()
        await self._idle.evaluate("window.worst = 0")
        await self._page.evaluate("window.painted = []")
        yield
        began_s = time.time()
        painted_s: list[float] = []

        async def is_painted() -> bool:
            painted_s[:] = await self._page.evaluate(
                """([what, text]) => painted.filter(([, texts]) => texts[what] === text)
                    .map(([moment]) => moment / 1000)""",
                [what, text],
            )
            return bool(painted_s)

        await eventually(is_painted)
        late_s = await self._idle.evaluate("window.worst") / 1000
        slower = max(slower, times_slower())
        assert painted_s[0] - began_s <= SOON_S * slower + ON_THE_WAY * late_s


def times_slower() -> float:
    """How many times longer than on a machine of our own some work takes now."""
    began_s, used_s = time.monotonic(), time.thread_time()
    while time.thread_time() - used_s < WORK_S:
        pass
    return max(1.0, (time.monotonic() - began_s) / WORK_S)


async def test_the_lantern_and_the_count_follow_within_a_second(
    house: House, chromium: Browser
) -> None:
    async with window(chromium) as one, window(chromium) as idle:
        page = await opened(house, one)
        lantern, number = page.locator("body"), page.locator("#number")
        await expect(page.locator("#shines")).to_have_text("Nobody has lit it yet")
        await expect(number).to_have_text("0")
        watch = Stopwatch(page, idle.page)
        await watch.start()
        async with watch.soon("shines", "Nobody has lit it yet, #ff0000"):
            await house.tell("COLOR", "ff0000")
        async with watch.soon("shines", "On, #ff0000"):
            await house.tell("ON")
        await expect(page.locator("#look")).to_have_text("A lantern: On, colour #ff0000")
        assert "lit" in str(await lantern.get_attribute("class"))
        assert await color(page) == "rgb(255, 0, 0)"
        async with watch.soon("shines", "Off, #ff0000"):
            await house.tell("OFF")
        assert "lit" not in str(await lantern.get_attribute("class"))
        async with watch.soon("number", "1"):
            device = await house.lantern()
        await expect(page.locator("#unit")).to_have_text("lantern connected")
        async with watch.soon("number", "0"):
            await device.close()
        assert one.complaints == []


async def test_the_three_buttons_and_the_colour_picker_command_every_lantern(
    house: House, chromium: Browser
) -> None:
    device = await house.lantern()
    async with window(chromium) as one:
        page = await opened(house, one)
        await page.click("#command-ON")
        await device.hears(b"\x12\x00\x00")
        await expect(page.locator("#command-ON")).to_have_attribute("aria-pressed", "true")
        await page.click("#command-OFF")
        await device.hears(b"\x13\x00\x00")
        await expect(page.locator("#command-OFF")).to_have_attribute("aria-pressed", "true")
        await expect(page.locator("#command-ON")).to_have_attribute("aria-pressed", "false")
        await page.fill("#value-COLOR", "#12ab34")
        await page.locator("#value-COLOR").dispatch_event("change")
        await device.hears(b"\x20\x00\x03\x12\xab\x34")
        await page.click("#command-COLOR")
        await device.hears(b"\x20\x00\x03\x12\xab\x34")
        await expect(page.locator("#problem")).to_have_text("")
        assert one.complaints == []
    await device.close()


async def test_it_works_with_the_keyboard_alone(house: House, chromium: Browser) -> None:
    device = await house.lantern()
    async with window(chromium) as one:
        page = await opened(house, one)
        await page.keyboard.press("Tab")
        await expect(page.locator("#command-ON")).to_be_focused()
        await page.keyboard.press("Enter")
        await device.hears(b"\x12\x00\x00")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Space")
        await device.hears(b"\x13\x00\x00")
        await page.keyboard.press("Tab")
        await expect(page.locator("#command-COLOR")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.locator("#value-COLOR")).to_be_focused()
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    await device.close()


async def test_stop_and_start_of_the_server_is_shown_and_healed(
    house: House, chromium: Browser
) -> None:
    await house.tell("COLOR", "ff0000")
    async with window(chromium) as one:
        page = await opened(house, one)
        await house.stop("page")
        said = page.locator("#said")
        await expect(said).to_have_text("Cut off: trying again…", timeout=DEADLINE_MS)
        await expect(page.locator("#number")).to_have_text("–")
        assert "cut" in str(await page.locator("body").get_attribute("class"))
        await house.tell("COLOR", "00ff00")
        await house.start("page")
        await expect(said).to_have_text("Connected", timeout=DEADLINE_MS)
        await expect(page.locator("#shines")).to_contain_text("#00ff00", timeout=DEADLINE_MS)
        refused = [text for text in one.complaints if "WebSocket" not in text]
        assert refused == []  # a browser itself complains of each try that fails, and only of those


async def test_a_connection_that_is_gone_without_a_word_is_shown_and_healed(
    house: House, chromium: Browser
) -> None:
    async with Cable(house.page_port) as cable, window(chromium) as one:
        page = await opened(house, one, cable.port)
        said = page.locator("#said")
        cable.plugged.clear()
        await expect(said).to_have_text("Cut off: trying again…", timeout=DEADLINE_MS)
        await expect(page.locator("#number")).to_have_text("–")
        # Nobody answers the second try, and it is given up for a third.
        await until(lambda: cable.cut_off == 2)
        cable.plugged.set()
        await expect(said).to_have_text("Connected", timeout=DEADLINE_MS)


async def test_the_page_finds_its_socket_below_the_path_of_a_proxy(
    house: House, chromium: Browser
) -> None:
    async with Cable(house.page_port, "/lights/") as proxy, window(chromium) as one:
        sockets: list[str] = []
        one.page.on("websocket", lambda socket: sockets.append(socket.url))
        await opened(house, one, proxy.port, "/lights/?from=here#top")
        assert sockets == [f"ws://localhost:{proxy.port}/lights/ws"]
        assert one.complaints == []


async def test_an_api_that_is_away_is_said(make_house: MakeHouse, chromium: Browser) -> None:
    house = make_house(answer_s=2.0)
    await house.start()
    async with window(chromium) as one:
        page = await opened(house, one)
        await house.stop("domain")
        await page.click("#command-ON")
        problem = page.locator("#problem")
        await expect(problem).to_contain_text("has not answered", timeout=DEADLINE_MS)
        await house.stop("api")
        await page.click("#command-ON")
        await expect(problem).to_contain_text("does not answer", timeout=DEADLINE_MS)
        await house.start("api", "domain")
        await page.click("#command-ON")
        await expect(problem).to_have_text("", timeout=DEADLINE_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE, (320, 568)], ids=["desktop", "phone", "small"])
async def test_everything_is_on_the_page_and_can_be_read(
    house: House, chromium: Browser, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    await house.tell("ON")
    async with window(chromium, size, scheme) as one:
        page = await opened(house, one)
        assert await page.evaluate("document.documentElement.scrollWidth") <= size[0]
        for what in ("#lantern", "#command-ON", "#command-OFF", "#command-COLOR", "#value-COLOR"):
            box = await page.locator(what).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size[0]
            assert box["height"] >= 44, what
        for what in ("h1", "#said", "#count", "#command-ON", "#command-OFF"):
            assert await contrast(page, what) >= 4.5, what
        assert one.complaints == []


async def contrast(page: Page, what: str) -> float:
    """How far a text stands out from what is behind it (WCAG 2: 4.5 is enough)."""
    found: float = await page.evaluate(
        """(what) => {
            const parse = (text) => text.match(/[0-9.]+/g).map(Number);
            const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
                .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            let element = document.querySelector(what);
            const ink = parse(getComputedStyle(element).color);
            let ground = [0, 0, 0, 0];
            for (; element && ground[3] === 0; element = element.parentElement) {
                const found = parse(getComputedStyle(element).backgroundColor);
                ground = found.length === 3 ? [...found, 1] : found;
            }
            const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
            return (high + 0.05) / (low + 0.05);
        }""",
        what,
    )
    return found


async def test_a_new_command_has_its_button_without_a_new_page(
    make_house: MakeHouse, chromium: Browser
) -> None:
    kind = Kind("BRIGHTNESS", 0x21, Byte(), sets="brightness", label="Brightness")
    house = make_house(Registry([*KINDS, kind]))
    await house.start()
    device = await house.lantern()
    async with window(chromium) as one:
        page = await opened(house, one)
        await page.fill("#value-BRIGHTNESS", "128")
        await device.hears(b"\x21\x00\x01\x80")
        await page.click("#command-BRIGHTNESS")
        await device.hears(b"\x21\x00\x01\x80")
        assert one.complaints == []
    await device.close()


async def test_several_windows_show_the_same(house: House, chromium: Browser) -> None:
    async with window(chromium) as one, window(chromium, PHONE, "dark") as other:
        pages = await asyncio.gather(opened(house, one), opened(house, other))
        await pages[0].click("#command-ON")
        for page in pages:
            await expect(page.locator("#shines")).to_have_text("On", timeout=DEADLINE_MS)


async def test_an_unknown_outcome_is_shown_until_the_service_tells_it(
    make_house: MakeHouse, chromium: Browser
) -> None:
    house = make_house(answer_s=0.5)
    await house.start()
    kept, save, load = house.kept, house.kept.save, house.kept.load
    async with window(chromium) as one:
        page = await opened(house, one)
        problem = page.locator("#problem")

        async def fail(*_: object) -> Any:
            raise Unavailable("the store is away")

        async def fail_from_now_on(*_: object) -> None:
            kept.load = fail  # type: ignore[assignment, method-assign]
            await fail()

        kept.save = fail_from_now_on  # type: ignore[assignment, method-assign]
        await page.click("#command-ON")
        await expect(problem).to_contain_text("outcome is unknown", timeout=DEADLINE_MS)
        kept.documents.doubt(["all"])
        kept.save, kept.load = save, load  # type: ignore[method-assign]
        await expect(problem).to_contain_text("Nothing was done", timeout=DEADLINE_MS)
        await page.click("#command-ON")
        await expect(problem).to_have_text("", timeout=DEADLINE_MS)
