"""Where commands write: nothing is replaced unasked, and nothing but what a command has made."""

from __future__ import annotations

from pathlib import Path

from faiss_dmih.data.errors import InputError


def check_folder(out: Path, mark: str, overwrite: bool) -> Path:
    """`out`, absolute, if a folder can be put there. Raises `InputError`.

    mark       the file by which a folder is known as one that the command has made before
    overwrite  whether such a folder may be replaced
    """
    if not out.exists():
        return out.absolute()
    if not out.is_dir():
        raise InputError(f"--out {out} is a file, expected a folder, or nothing")
    if any(out.iterdir()):
        if not (out / mark).is_file():
            raise InputError(
                f"--out {out} holds other things (there is no {mark}), which are not replaced: "
                "name another folder"
            )
        if not overwrite:
            raise _exists(out)
    return out.absolute()


def check_file(option: str, out: Path, suffixes: tuple[str, ...], overwrite: bool) -> Path:
    """`out`, if a file of one of these kinds can be put there. Raises `InputError`."""
    if out.suffix not in suffixes:
        raise InputError(f"{option} {out}: expected a name that ends in {' or '.join(suffixes)}")
    if out.is_dir():
        raise InputError(f"{option} {out} is a folder, expected a file, or nothing")
    if out.exists() and not overwrite:
        raise _exists(out, option)
    return out


def _exists(out: Path, option: str = "--out") -> InputError:
    return InputError(
        f"{option} {out} exists: --overwrite replaces it, in one step when the new one is whole"
    )
