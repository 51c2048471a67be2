"""The `faiss-dmih` command."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from faiss_dmih import _abi_check

_NEEDED = ("typer", "rich", "matplotlib", "sklearn", "PIL")
if sys.version_info < (3, 11):
    _NEEDED += ("tomli",)


def main() -> None:
    """Entry point. Says in one line what to install when FAISS or the extra is missing."""
    try:
        _abi_check.check()
    except _abi_check.NoFaiss as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"faiss-dmih needs {', '.join(missing)}: pip install 'faiss-dmih[bench]'",
            file=sys.stderr,
        )
        raise SystemExit(1)
    from faiss_dmih.cli.app import app

    app()
