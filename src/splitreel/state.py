"""state is where splitreel keeps what it must remember: catalog, session journals, saved maps. It opens none."""

import os
from pathlib import Path

from splitreel.errors import UsageError


def state_directory(given: str | os.PathLike[str] | None = None) -> Path:
    """The state directory, made (mode 0700) when absent: ``given``, else $SPLITREEL_STATE, else the XDG one.

    Raises:
        UsageError: it cannot be made or is not a directory.
    """
    chosen = given or os.environ.get("SPLITREEL_STATE")
    base = Path(chosen) if chosen else _xdg_state() / "splitreel"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"state directory {base}",
            error.strerror or str(error),
            "Name another one with --state or $SPLITREEL_STATE.",
        ) from error
    return base


def _xdg_state() -> Path:
    configured = os.environ.get("XDG_STATE_HOME", "")
    return Path(configured) if Path(configured).is_absolute() else Path.home() / ".local" / "state"
