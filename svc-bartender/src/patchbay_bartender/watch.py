"""How long a run still takes, and when it counts as lost. Pure: whoever calls says what time it is.

All times are seconds on one monotonic clock.
"""

from __future__ import annotations

from typing import Final

from patchbay_bartender.bar import Run
from patchbay_bartender.messages import CLOSE_S

ANSWER_S: Final = 2.0
"""How long we wait for word of something that should have happened by now."""

LISTEN_S: Final = 20.0
"""How long after a connect: an edge that was cut off too is back by then
(`patchbay.settings.BrokerSettings.backoff_max_s`) and has said what it knows."""

NOT_STARTED: Final = ("not_started", "the pumps have not begun it")
LOST: Final = ("pumps_lost", "the pumps are away")
SILENT: Final = ("pumps_lost", "the pumps do not say what has become of it")


class Watch:
    """The times of the run under way."""

    def __init__(self, start_deadline_s: float, lost_after_s: float) -> None:
        self.run_id: str | None = None
        """The run that is watched."""
        self.why: tuple[str, str] = SILENT
        """Code and reason, for when it is `overdue`."""
        self._start_deadline_s = start_deadline_s
        self._lost_after_s = lost_after_s
        self._end_at = 0.0
        self._give_up_at = 0.0
        self._startable_until = 0.0
        self._ordered_at = 0.0
        self._away = False

    def ordered(self, run: Run, now: float) -> None:
        """It is ordered now. Until it is confirmed the pumps do not begin it, and whoever waits for
        that gives it up sooner than we do."""
        self._begin(run, now)
        self._startable_until = now + 2 * self._start_deadline_s
        self._give_up_at, self.why = self._startable_until + ANSWER_S, NOT_STARTED

    def confirmed(self, now: float) -> None:
        """The pumps may begin it, within their deadline. If they say nothing, nobody knows."""
        self._end_at += now - self._ordered_at
        self._startable_until = now + self._start_deadline_s
        self._give_up_at, self.why = self._startable_until + ANSWER_S, SILENT

    def call_off(self, code: str, reason: str, now: float) -> None:
        """It was not confirmed, and never is: it has failed."""
        self._give_up_at, self.why = now, (code, reason)

    def found(self, run: Run, passed_s: float, now: float) -> None:
        """It stands in the store, from before we were there, ordered so long ago by the wall clock:
        only the pumps know of it. If they have not begun it they never will, since nobody confirms
        it."""
        self._begin(run, now)
        self._end_at -= min(max(0.0, passed_s), run.total_s)
        self._startable_until = now
        self._give_up_at, self.why = now + LISTEN_S, SILENT

    def runs(self, remaining_s: float, now: float) -> None:
        """The pumps say so."""
        end_at = now + remaining_s
        if abs(end_at - self._end_at) > CLOSE_S:
            self._end_at = end_at
        self._give_up_at, self.why = end_at + ANSWER_S, SILENT
        self._away = False

    def idle(self, last_run: str | None, now: float) -> None:
        """The pumps say that they do nothing; this was the last run that they have begun."""
        self._away = False
        if last_run == self.run_id:  # it is over: the event is on its way
            self._give_up_at, self.why = max(self._give_up_at, now + ANSWER_S), SILENT
        elif now >= self._startable_until:
            self._give_up_at, self.why = now, NOT_STARTED

    def away(self, now: float) -> None:
        """The pumps' edge is offline. One that was killed is back soon, and says what it knows."""
        if not self._away:
            self._away = True
            soon = now + self._lost_after_s
            if soon < self._give_up_at:
                self._give_up_at, self.why = soon, LOST

    def heard_again(self, now: float) -> None:
        """We are back at the broker, or at the store: who has something to say gets the time to
        say it."""
        self._away = False
        self._give_up_at = max(self._give_up_at, now + LISTEN_S)

    def over(self) -> None:
        """Nothing runs."""
        self.run_id = None
        self._away = False

    def remaining_s(self, now: float) -> float:
        """Seconds to the end; 0 when nothing runs, or it should be over by now."""
        return max(0.0, self._end_at - now) if self.run_id is not None else 0.0

    def overdue(self, now: float) -> bool:
        """Is it time to give the run up?"""
        return self.run_id is not None and now >= self._give_up_at

    def _begin(self, run: Run, now: float) -> None:
        self.run_id = run.id
        self._ordered_at = now
        self._end_at = now + run.total_s
        self._away = False
