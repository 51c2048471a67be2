"""A folder of images as a set: `folder/class/**/*.jpg` with labels, or `folder/*.jpg` without."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from faiss_dmih.data.errors import InputError
from faiss_dmih.data.files import Progress, no_progress
from faiss_dmih.data.items import Images
from faiss_dmih.data.sources import ImageFiles

EXTENSIONS = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"}
    | {".webp"}
)
"""Of image files, in lower case; files may have them in any."""


def image_folder(
    folder: str | Path,
    *,
    labels: bool | None = None,
    skip_corrupt: bool = False,
    progress: Progress = no_progress,
) -> Images:
    """The images in `folder`, ordered by path, whatever order the file system has.

    Each subfolder is a class, however deep images lie in it; without subfolders there are no
    labels. `labels=False` takes all images, without labels; `labels=True` insists on them. Files
    without an extension of `EXTENSIONS` are left out, and so is what is hidden (".name").

    An image that cannot be decoded raises `InputError`, naming it, when it is asked for. With
    `skip_corrupt` all images are decoded once now, and those that cannot be are listed in
    `skipped`. Raises `InputError`.
    """
    root = Path(folder)
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {problem}; expected a folder of images, or of folders of images")
    files = sorted(_visible_files(root))
    paths = [path for path in files if os.path.splitext(path)[1].lower() in EXTENSIONS]
    if not paths:
        found = Counter(os.path.splitext(path)[1] or "none" for path in files)
        extensions = ", ".join(f"{name} ({count})" for name, count in found.most_common(5))
        raise InputError(
            f"{root}: no images found; the extensions of its {len(files)} files are: "
            f"{extensions or 'none'}; expected {' '.join(sorted(EXTENSIONS))}"
        )
    flat = [path for path in paths if os.sep not in path]
    if labels is None and flat and len(flat) < len(paths):
        raise InputError(
            f"{root}: {len(flat)} images lie beside the folders of classes, the first is {flat[0]};"
            " move them into one, or pass labels=False to take all images without labels"
        )
    if labels and flat:
        raise InputError(
            f"{root}: {len(flat)} images have no label, the first is {flat[0]}; put the images "
            "into one folder for each class"
        )
    source = ImageFiles(root, tuple(paths))
    if labels is False or flat:
        images = Images.of(str(root), source)
    else:
        names = [path.split(os.sep, 1)[0] for path in paths]
        classes = sorted(set(names))
        number = {name: i for i, name in enumerate(classes)}
        images = Images.of(str(root), source, [number[name] for name in names], classes)
    return images.without_corrupt(progress) if skip_corrupt else images


def _visible_files(root: Path) -> Iterator[str]:
    """Paths relative to `root`. Follows a link at the first level, where classes may be linked;
    deeper ones could lead in circles."""
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield entry.name
                continue
            for folder, below, files in os.walk(entry.path):
                below[:] = [name for name in below if not name.startswith(".")]
                for name in files:
                    if not name.startswith("."):
                        yield os.path.relpath(os.path.join(folder, name), root)
