"""session runs a whole backup of a live database; its phases stand in one module, what they stand on beside it."""

from splitreel.session.history import foresee
from splitreel.session.phases import Phase, Session, SessionResult, examine, phase_order, run
from splitreel.session.rehearse import rehearse

__all__ = ["Phase", "Session", "SessionResult", "examine", "foresee", "phase_order", "rehearse", "run"]
