"""What SEND says: is a report new, a repeat, or late, and has the board rebooted?

SEND counts a board's reports from its start (source: "номер сообщения (при перезагрузке счётчик
обнуляется)"), and a board that got no answer asks again with SEND + 1, not with the same number.
So a number that falls is either a reboot or a packet that took its time:

    the report                                       is
    -----------------------------------------------  ----------------------------------------
    SEND and bytes of the last one                   a repeat: nothing has happened
    RESET=1                                          new, in a new boot; in the same boot while
                                                     the board goes on saying RESET=1
    higher SEND                                      new
    lower SEND, by more than 100                     new, in a new boot
    lower SEND, the first on a new connection after  new, in a new boot
      the one on which the board was told to reboot
    lower SEND, the one after a late one's           new, in a new boot: the late one began it
    any other SEND that is not higher                late

A *boot* is a board's run between two reboots. Its number is the Unix time in seconds at which it
was seen to begin, or one more than the boot before where the clock has not moved on; so (boot,
SEND) rises for ever, and `key` names a fact once.

Pure: the clock is passed in, and what is remembered of a board (`Last`) is handed back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import Struct, error
from typing import Final, Literal, Protocol

LATE_WINDOW: Final = 100
"""A SEND lower by more than this is no late packet: no board has that many under way."""

_FIXED: Final = Struct("<qqqBBH")
_ANSWERED, _RESET, _SUSPECT = 1, 2, 4


class Numbered(Protocol):
    """What is read of a report."""

    @property
    def send(self) -> int: ...
    @property
    def reset(self) -> bool: ...
    @property
    def box_acc(self) -> tuple[int, ...]: ...
    @property
    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Last:
    """What is remembered of a board: its last report that was not late."""

    boot: int
    send: int
    digest: bytes
    box_acc: tuple[int, ...]
    """Cells, 1 to 65,535."""
    answered: bool = False
    """The answer was written whole. Set by `with_answer`."""
    suspect: int | None = None
    """SEND of a late report since then: if the next one continues from it, it was a reboot."""
    reset: bool = False
    """It said RESET=1."""

    def with_answer(self) -> Last:
        """The same report, now answered."""
        # Spelled out: this runs for every report, and replace() takes twice as long.
        return Last(self.boot, self.send, self.digest, self.box_acc, True, self.suspect, self.reset)

    def to_bytes(self) -> bytes:
        """For keeping: 28 bytes, the digest and 2 a cell."""
        flags = (
            _ANSWERED * self.answered
            | _RESET * self.reset
            | (0 if self.suspect is None else _SUSPECT)
        )
        fixed = _FIXED.pack(
            self.boot, self.send, self.suspect or 0, flags, len(self.digest), len(self.box_acc)
        )
        return fixed + self.digest + Struct(f"<{len(self.box_acc)}H").pack(*self.box_acc)

    @classmethod
    def from_bytes(cls, data: bytes) -> Last:
        """What `to_bytes` kept. Raises ValueError if it is not that."""
        try:
            boot, send, suspect, flags, digest_size, cells = _FIXED.unpack_from(data)
            digest, *box_acc = Struct(f"<{digest_size}s{cells}H").unpack(data[_FIXED.size :])
        except error as problem:
            raise ValueError(f"not the memory of a board: {problem}") from None
        return cls(
            boot,
            send,
            digest,
            tuple(box_acc),
            bool(flags & _ANSWERED),
            suspect if flags & _SUSPECT else None,
            bool(flags & _RESET),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report is. ``last`` is what to remember from now on.

    ``rebooted``: it is the first of a new boot. ``maybe_repeat``: its accesses may be those of a
    report before. ``boot`` of a late report is the boot it was seen in.
    """

    kind: Literal["new", "repeat", "late"]
    boot: int
    rebooted: bool
    maybe_repeat: bool
    last: Last


def judge(last: Last | None, report: Numbered, now_s: int, *, came_back: bool = False) -> Verdict:
    """Judge a report by what is remembered of its board (None: nothing). ``now_s``: Unix time.

    ``came_back``: the board was told to reboot, and this is the first report on a connection since.
    Of a board never seen, RESET alone says whether it has rebooted.
    """
    if last is None:
        return _new(report, now_s, rebooted=report.reset)
    send = report.send
    if send == last.send and report.digest == last.digest:
        return Verdict("repeat", last.boot, False, False, last)
    if report.reset:
        if last.reset and send > last.send:
            return _next(last, report)
        return _reboot(last, report, now_s)
    if send > last.send:
        return _next(last, report)
    if came_back or last.send - send > LATE_WINDOW:
        return _reboot(last, report, now_s)
    if last.suspect is not None and send == last.suspect + 1:
        return _reboot(last, report, now_s)
    return Verdict("late", last.boot, False, bool(report.box_acc), replace(last, suspect=send))


def continues(before: Last, last: Last, report: Numbered) -> bool:
    """Does a report go on with the boot before this one, and not with this one? A board does so
    once at most, with a packet that was late; two boards with one ID do so in turn."""
    if 0 < report.send - last.send <= LATE_WINDOW:
        return False
    if report.send == before.send:
        return report.digest == before.digest
    return 0 < report.send - before.send <= LATE_WINDOW


def key(board: str, boot: int, send: int, late_digest: bytes | None = None) -> str:
    """The name of the fact that a report is: the same for the same fact, also after a restart.

    ``late_digest``: the digest of a late report, which may have the SEND of one that was new; two
    late ones of one SEND are told apart by it, and the very same one is the same fact.
    """
    name = f"{board}:{boot}:{send:010d}"
    return name if late_digest is None else f"{name}:late:{late_digest.hex()}"


def _next(last: Last, report: Numbered) -> Verdict:
    maybe_repeat = (
        not last.answered  # of the tries in between, SEND counts also those that never came here
        and bool(report.box_acc)
        and report.box_acc == last.box_acc
    )
    return _new(report, last.boot, maybe_repeat=maybe_repeat)


def _reboot(last: Last, report: Numbered, now_s: int) -> Verdict:
    return _new(report, max(now_s, last.boot + 1), rebooted=True)


def _new(
    report: Numbered, boot: int, *, rebooted: bool = False, maybe_repeat: bool = False
) -> Verdict:
    last = Last(boot, report.send, report.digest, report.box_acc, reset=report.reset)
    return Verdict("new", boot, rebooted, maybe_repeat, last)
