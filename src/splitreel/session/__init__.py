"""session runs a whole backup of a live database; its phases stand in one module, what they stand on beside it."""

from splitreel.session.history import foresee
from splitreel.session.phases import Session, examine, run
from splitreel.session.rehearse import rehearse
from splitreel.session.result import Phase, SessionResult, phase_order

__all__ = ["Phase", "Session", "SessionResult", "examine", "foresee", "phase_order", "rehearse", "run"]
