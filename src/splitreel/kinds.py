"""kinds makes an object of the configuration table that names its type. It knows no mirror and no quiescer."""

import importlib
from collections.abc import Mapping
from typing import Any, cast

from splitreel.errors import UsageError

# type -> (module, class); the class has KEYS: key -> (kind, required), kinds as in splitreel.config
Types = Mapping[str, tuple[str, str]]


def keys_of(types: Types, kind: str) -> dict[str, tuple[str, bool]]:
    """The configuration keys of one type: key -> (value kind, required). Raises KeyError."""
    return cast("dict[str, tuple[str, bool]]", _class(types, kind).KEYS)


def make(what: str, types: Types, settings: Mapping[str, Any]) -> Any:
    """An object of the class that ``type`` names, made with the other settings; ``what`` is for the message.

    Raises:
        UsageError: there is no such type.
    """
    kind = str(settings.get("type"))
    if kind not in types:
        raise UsageError(f"{what} type {kind!r}", f"known are {', '.join(sorted(types))}")
    return _class(types, kind)(**{key: value for key, value in settings.items() if key != "type"})


def _class(types: Types, kind: str) -> Any:
    module, name = types[kind]
    return getattr(importlib.import_module(module), name)
