"""proving holds the verb prove: the point in time, shown on the user's own volume, mirror and tape."""

import argparse
import shutil
import tempfile
from pathlib import Path

from splitreel import config
from splitreel.cli import output
from splitreel.cli.backups import terminate_like_interrupt
from splitreel.drive.address import FORMS
from splitreel.prove.finding import KINDS
from splitreel.prove.proof import Options, Proof, Proved
from splitreel.prove.run import PASSABLE, prove
from splitreel.state import state_directory

EPILOG = f"""Writers stamp files in a directory of their own on the job's volume, and rows in a table of their own in
its databases, while session after session runs; what each tape holds of them is restored and examined. The
job's tape is written over and over: it must be blank or allowed to be overwritten, or name another with --tape.
{FORMS}."""
LISTED = 20


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verb."""
    parser = verbs.add_parser(
        "prove", help="show on this set-up that a backup is the volume at one instant", epilog=EPILOG
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="the configuration")
    parser.add_argument("--job", metavar="NAME", help="which job of the configuration")
    parser.add_argument("--seconds", metavar="N", type=_positive, default=60, help="for how long (default: 60)")
    parser.add_argument("--writers", metavar="N", type=_positive, default=4, help="processes that stamp (default: 4)")
    parser.add_argument("--tape", metavar="TAPE", default="", help="write to this drive instead of the job's")
    parser.add_argument("--no-rows", action="store_true", help="leave the job's database alone")
    parser.add_argument("--scratch", metavar="DIR", help="where to restore to (default: a temporary directory)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run_prove)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no count")
    return int(text)


def run_prove(args: argparse.Namespace) -> int:
    """The verb prove: 0 nothing was wrong, 3 something was, 1 it could not be carried out."""
    job = config.load(args.config).job(args.job)
    options = Options(args.seconds, args.writers, args.tape, not args.no_rows)
    scratch = Path(tempfile.mkdtemp(prefix="splitreel-prove-", dir=args.scratch))
    scratch.chmod(PASSABLE)
    kept = ""
    try:
        with terminate_like_interrupt():
            proof = prove(
                job,
                options,
                state=state_directory(args.state),
                scratch=scratch,
                tell=_tell_json if args.json else _tell,
            )
        kept = proof.kept
    finally:
        if not kept:
            shutil.rmtree(scratch, ignore_errors=True)
    if args.json:
        output.emit(proof.record())
    else:
        _verdict(proof)
    if proof.error is not None:
        output.complain(proof.error)
    return proof.exit_code


def _tell_json(one: Proved) -> None:
    output.emit(one.record())


def _tell(one: Proved) -> None:
    wrong = sum(finding.count for finding in one.findings)
    print(
        f"session {one.session:>5}: window {one.window_ms:7.1f} ms, {one.stamps} stamps and {one.rows} rows examined, "
        f"{one.in_flight} operations in flight: {output.count(wrong, 'violation')}",
        flush=True,
    )


def _verdict(proof: Proof) -> None:
    facts = proof.record()
    print(f"\n{output.count(facts['sessions'], 'session')} in {facts['seconds']:.0f} s, ", end="")
    print(f"window {facts['window_ms_median']:.1f} ms in the middle, {facts['window_ms_max']:.1f} ms at most")
    print(f"{facts['stamps_written']} stamps and {facts['rows_written']} rows were written and acknowledged meanwhile,")
    print(f"{facts['stamps_examined']} stamps and {facts['rows_examined']} rows were examined as restored.")
    for kind, count in proof.violations.items():
        print(f"  {kind}: {count} ({KINDS[kind]})")
    for line in facts["findings"][:LISTED]:
        print(f"    {line}")
    if len(facts["findings"]) > LISTED:
        print(f"    ... {len(facts['findings']) - LISTED} more; --json lists them")
    if proof.kept:
        print(f"  the first copy that was wrong is kept: {proof.kept}")
    print("\n".join(["", *_meaning(proof), ""]))
    print(_word(proof))


def _word(proof: Proof) -> str:
    if proof.violations:
        return "VIOLATED"
    if proof.error is None:
        return "PROVED"
    return f"ENDED EARLY, after {output.count(len(proof.sessions), 'session')} without a violation"


def _meaning(proof: Proof) -> list[str]:
    """What was shown, and what was not, in words."""
    unit = "system call" if proof.frozen else "sector"
    lines = [
        "What was looked for in every copy, and not found:" if not proof.violations else "What was looked for:",
        "  a stamp begun after the window, one acknowledged before it that is missing or older,",
        f"  a {unit} that is there in part, a stamp at another place, an operation without those before it.",
        "What this does not show:",
        "  that hardware keeps what it acknowledges when the power goes; writes through a memory map;",
    ]
    if not proof.frozen:
        lines.append("  calls of many sectors: without a freeze of the file system only a sector is one unit;")
    if not proof.databases:
        lines.append("  rows: the job has no database that could be stamped;")
    lines.append("  files that were not stamped: of those the backup's own checksums speak (splitreel verify).")
    return lines + [f"  Note: {note}." for note in proof.notes]
