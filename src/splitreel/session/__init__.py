"""session runs a whole backup of a live database; its phases stand in one module, what they stand on beside it."""

from splitreel.session.phases import Phase, Session, SessionResult, examine, phase_order, run

__all__ = ["Phase", "Session", "SessionResult", "examine", "phase_order", "run"]
