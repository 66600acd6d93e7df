"""What the bartender service keeps in MongoDB.

    pumps      one document a bar: `bar.Bar`, all its pumps and the run under way, changed by
               compare-and-set. The truth
    blends     one a blend or refill, for looking up: {_id: the run, bar, kind, by, status,
               ordered_at, ended_at, reason, cup_size, ratios, seconds, millilitres}
    settings   {_id: "bartender:<bar>", sec_per_liter}
    dead       dead letters, for as long as ``[store] events_ttl_s`` says

``_id`` of a run is ``<bar>:<milliseconds>-<random>``: those of a bar are a range that rises with
time. An index on ``ended_at`` finds runs that have not ended, and deletes old ones after
``blends_ttl_s``.
"""

from __future__ import annotations

import math
from datetime import datetime

from patchbay.errors import DocumentRejected
from patchbay.inbox import Aggregate, Aggregates
from patchbay.messages import DeadLetter, rfc3339
from patchbay.store import Document, Store
from patchbay_bartender.bar import Bar, Run
from patchbay_bartender.messages import Number
from patchbay_bartender.messages import Pump as ShownPump
from patchbay_bartender.rules import Record

PUMPS = "pumps"
BLENDS = "blends"
SETTINGS = "settings"
DEAD = "dead"

NEVER_S = 2_147_483_647
"""The longest time that an index can keep documents: 68 years."""

LOST = "what has become of it is not known"
"""A store that was put back from a copy: the bar's own document knows the run no more."""


class BartenderStore:
    """The collections of one bar. ``first``: the bar as it is before anybody has set anything."""

    def __init__(
        self,
        store: Store,
        dead_letters_ttl_s: int,
        first: Bar,
        sec: Number,
        blends_ttl_s: int = 0,
    ) -> None:
        self.sec_per_liter: Number = sec
        self.bars: Aggregates[Bar] = Aggregates(store, PUMPS, Bar)
        self._store = store
        self._ttl_s = dead_letters_ttl_s
        self._blends_ttl_s = blends_ttl_s or NEVER_S
        self._first = first
        self._settings_id = f"bartender:{first.bar}"
        self._records: dict[str, Document] = {}
        self._shown: tuple[Run | None, list[ShownPump]] | None = None
        self._prepared = False

    @property
    def bar(self) -> Aggregate[Bar]:
        """The bar. `prepare` first."""
        found = self.bars.get(self._first.bar)
        assert found is not None  # noqa: S101 - prepare() has made it
        return found

    @property
    def shown(self) -> tuple[Run | None, list[ShownPump]]:
        """The run and the pumps as they are stored: what everybody may see. `prepare` first."""
        bar = self.bar
        if not bar.changed or self._shown is None:
            self._shown = bar.state.run, bar.state.shown()
        return self._shown

    @property
    def known(self) -> bool:
        """Has `prepare` come to its end?"""
        return self._prepared and self.bars.get(self._first.bar) is not None

    async def prepare(self) -> None:
        """Read the bar, make it if there is none, and finish what a kill cut short: at the start,
        and after each save that failed. Raises Unavailable."""
        if await self.bars.load():
            self._prepared = False
        self.bars.wait_for(self._first.bar)
        if self._prepared:
            return
        if self.bars.get(self._first.bar) is None:
            fresh = Aggregate(self._first.bar, self._first)
            fresh.changed = True
            self.bars.add(fresh)
            await self.bars.save([fresh])
        await self._store.ensure_index(DEAD, [("at", 1)], expireAfterSeconds=self._ttl_s)
        await self._store.ensure_index(
            BLENDS, [("ended_at", 1)], expireAfterSeconds=self._blends_ttl_s
        )
        for one in await self._store.find(SETTINGS, {"_id": self._settings_id}):
            found = one.get("sec_per_liter")
            if isinstance(found, int | float) and 0 < found < math.inf:
                self.sec_per_liter = found
            else:
                await self._report(SETTINGS, one, "sec_per_liter must be a number above 0")
        await self._reconcile()
        self._prepared = True

    async def set_sec_per_liter(self, sec_per_liter: Number) -> None:
        """Keep how long a litre takes. Raises Unavailable."""
        document = {"_id": self._settings_id, "sec_per_liter": sec_per_liter}
        await self._store.save(SETTINGS, [document])
        self.sec_per_liter = sec_per_liter

    async def forget(self, bar: str, *, history: bool) -> dict[str, int]:
        """Remove another bar; ``history``: the records of its runs as well. Returns how many
        documents there were. Hold the lock. Raises Unavailable; then call it again."""
        removed = {}
        if history:
            query = {"_id": {"$gte": f"{bar}:", "$lt": f"{bar};"}}
            removed[BLENDS] = await self._store.remove(BLENDS, query)
        removed[SETTINGS] = await self._store.remove(SETTINGS, {"_id": f"bartender:{bar}"})
        removed[PUMPS] = await self.bars.remove([bar])
        return removed

    def record(self, effect: Record) -> None:
        """A run's record to be written by `save_records`."""
        self._records[effect.run.id] = _record(self._first.bar, effect)

    async def save_records(self) -> None:
        """Write what `record` was given. Raises Unavailable; then `prepare` writes it."""
        documents = list(self._records.values())
        try:
            try:
                await self._store.save(BLENDS, documents)
            except DocumentRejected as error:  # the bar is the truth, and goes on
                await self._store.set_aside(BLENDS, error)
        except BaseException:
            self._prepared = False
            raise
        for one in documents:
            if self._records.get(one["_id"]) is one:
                del self._records[one["_id"]]

    async def _reconcile(self) -> None:
        """The bar is the truth; a kill may have come between it and its records."""
        await self.save_records()
        bar = self.bar.state
        run, ended = bar.run, bar.ended
        found = await self._store.find(BLENDS, {"_id": self._range(), "ended_at": None})
        open_records = {one["_id"]: one for one in found}
        if run is not None and open_records.pop(run.id, None) is None:
            self.record(Record(run, "running" if run.started else "ordered"))
        for id, one in open_records.items():
            if ended is not None and ended.run.id == id:
                self.record(Record(ended.run, ended.status, ended))
            elif not isinstance(one.get("ordered_at"), datetime):
                await self._report(BLENDS, one, "ordered_at must be a time")
            else:
                lost = {"status": "failed", "reason": LOST, "ended_at": one["ordered_at"]}
                self._records[id] = {**one, **lost}
        await self.save_records()

    async def _report(self, collection: str, found: Document, fault: str) -> None:
        if self.bars.report is not None:
            await self.bars.report(collection, found["_id"], fault)

    def _range(self) -> dict[str, str]:
        return {"$gte": f"{self._first.bar}:", "$lt": f"{self._first.bar};"}

    async def history(self, *, skip: int, limit: int) -> list[Document]:
        """Runs of this bar, newest first. Raises Unavailable."""
        query = {"_id": self._range()}
        found = await self._store.find(BLENDS, query, sort=[("_id", -1)], skip=skip, limit=limit)
        return [
            {
                "run_id" if key == "_id" else key: rfc3339(value)
                if isinstance(value, datetime)
                else value
                for key, value in one.items()
                if key != "bar"
            }
            for one in found
        ]

    async def bury(self, letter: DeadLetter) -> None:
        """Store a dead letter. Raises Unavailable."""
        await self._store.bury(DEAD, letter)


def _record(bar: str, effect: Record) -> Document:
    run, ended = effect.run, effect.ended
    return {
        "_id": run.id,
        "bar": bar,
        "kind": run.kind,
        "by": run.by,
        "status": effect.status,
        "ordered_at": run.ordered_at,
        "ended_at": ended.at if ended else None,
        "reason": ended.reason if ended else "",
        "cup_size": run.cup_size,
        "ratios": run.ratios,
        "seconds": run.seconds,
        "millilitres": ended.pumped if ended else {},
    }
