"""__main__ turns arguments into one verb's run and an exception into an exit code. It does no work of its own."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from splitreel import __version__, errors
from splitreel.cli import VERB_MODULES, output


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are told as all others are: what, why, what to do."""

    def error(self, message: str) -> NoReturn:
        """End with 2."""
        output.complain(errors.UsageError(self.prog, message, f"See: {self.prog} --help"))
        sys.exit(errors.EXIT_USAGE)


def parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The command line; of the verbs only those among ``words`` are imported, so that start-up stays quick, or all."""
    top = Parser(prog="splitreel", description="Back up a live database to tape from a split mirror.")
    top.add_argument("--version", action="version", version=f"splitreel {__version__}")
    top.set_defaults(state=None, traceback=False)
    _add_common(top)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    named = {module for module, owned in VERB_MODULES.items() if not set(owned).isdisjoint(words)}
    for module in VERB_MODULES:
        if not named or module in named:
            importlib.import_module(f"splitreel.cli.{module}").register(verbs)
    for verb in set(verbs.choices.values()):
        _add_common(verb)
        for nested in (action for action in verb._actions if isinstance(action, argparse._SubParsersAction)):
            for part in set(nested.choices.values()):
                _add_common(part)
    return top


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Options that may stand before the verb or behind it; what is not given there leaves alone what was given here."""
    parser.add_argument(
        "--state",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="state directory (default: $SPLITREEL_STATE, else the XDG one)",
    )
    parser.add_argument(
        "--traceback",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show where in the program an error arose",
    )


def _parse(given: Sequence[str]) -> argparse.Namespace:
    top = parser(given)
    args, unknown = top.parse_known_args(given)
    if unknown:
        # argparse would blame the whole program, and show which verbs there are
        top.prog = f"splitreel {args.verb}"
        top.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def _after_interrupt(verb: str) -> str:
    if verb == "backup":
        return "The tape holds what was synchronised until then; to write it anew, run this again with --overwrite."
    return "Run the same command again."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code of the contract: 0, 1, 2, 3, 4 or 130."""
    if arguments is None:
        output.write_whole()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        parser().print_help(sys.stderr)
        return errors.EXIT_USAGE
    args = _parse(given)
    try:
        return int(args.run(args))
    except errors.SplitreelError as error:
        if args.traceback:
            raise
        output.complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        output.complain(errors.Cancelled(f"splitreel {args.verb}", "interrupted", _after_interrupt(args.verb)))
        return errors.EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (| head): not a failure worth a traceback at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
