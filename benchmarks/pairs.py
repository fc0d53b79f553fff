"""pairs runs two contestants in turn, A B A B, and speaks only in ratios: the machine's speed drifts within minutes."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall time that one call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def drop_caches() -> None:
    """Forget the page cache, so that a peer that reads through it starts cold. Needs root."""
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def compare(
    ours: Callable[[], object], peer: Callable[[], object], *, rounds: int = 5, cold: bool = True
) -> tuple[float, list[float], list[float]]:
    """Run both ``rounds`` times in turn; the median of the peer's time over ours, and both lists of seconds."""
    our_times: list[float] = []
    peer_times: list[float] = []
    for _ in range(rounds):
        for work, times in ((peer, peer_times), (ours, our_times)):
            if cold:
                drop_caches()
            times.append(timed(work))
    ratios = [theirs / mine for mine, theirs in zip(our_times, peer_times, strict=True)]
    return statistics.median(ratios), our_times, peer_times


def say(title: str, ratio: float, ours: list[float], peer: list[float]) -> None:
    """Print one comparison: the ratio first, the noise beside it."""
    print(
        f"\n{title}: {ratio:.2f} x"
        f"  (ours {statistics.median(ours):.3f} s [{min(ours):.3f}..{max(ours):.3f}],"
        f" peer {statistics.median(peer):.3f} s [{min(peer):.3f}..{max(peer):.3f}])"
    )
