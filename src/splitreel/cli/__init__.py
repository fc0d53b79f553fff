"""cli holds the verbs by group; ``register(subparsers)`` adds them, ``run(args)`` returns the exit code.

It holds no mechanism: a verb calls one room below and prints what it says.
"""

# module -> the verbs it owns; only the module of the verb at hand is imported
VERB_MODULES: dict[str, tuple[str, ...]] = {
    "inspect": ("map", "cat"),
    "backups": ("backup",),
    "transfer": ("restore", "verify", "list"),
    "planning": ("plan",),
    "tapes": ("tape",),
    "catalogs": ("catalog",),
    "sessions": ("resume",),
    "proving": ("prove",),
    "reports": ("report",),
    "health": ("doctor", "selftest"),
    "demo": ("demo",),
}
