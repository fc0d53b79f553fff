"""__main__ turns arguments into one verb's run and an exception into an exit code. It does no work of its own."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from splitreel import __version__, errors
from splitreel.cli import VERB_MODULES, output


def parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; with ``verb``, only the module that owns it is imported, so that start-up stays quick."""
    top = argparse.ArgumentParser(prog="splitreel", description="Back up a live database to tape from a split mirror.")
    top.add_argument("--version", action="version", version=f"splitreel {__version__}")
    top.add_argument("--state", metavar="DIR", help="state directory (default: $SPLITREEL_STATE, else the XDG one)")
    top.add_argument("--traceback", action="store_true", help="show where in the program an error arose")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module, owned in VERB_MODULES.items():
        if verb is None or verb not in _known_verbs() or verb in owned:
            importlib.import_module(f"splitreel.cli.{module}").register(verbs)
    return top


def _known_verbs() -> set[str]:
    return {verb for owned in VERB_MODULES.values() for verb in owned}


def _first_verb(arguments: Sequence[str]) -> str | None:
    known = _known_verbs()
    return next((argument for argument in arguments if argument in known), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code of the contract: 0, 1, 2, 3, 4 or 130."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser(_first_verb(given)).parse_args(given)
    try:
        return int(args.run(args))
    except errors.SplitreelError as error:
        if args.traceback:
            raise
        output.complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        output.complain(
            errors.Cancelled("interrupted", "", "Run the same command again; what was synchronised is kept.")
        )
        return errors.EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (| head): not a failure worth a traceback at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
