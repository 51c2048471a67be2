"""What the encoders' commands refuse, what they replace, and what they do without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import EACH, QUICK, done, refused

from faiss_dmih.encoded import EncodedIndex

pytestmark = pytest.mark.usefixtures("here")


def test_a_changed_folder(world: Path, here: Path) -> None:
    photos = shutil.copytree(world / "photos", here / "photos")
    options = ["--method", "deephash", *QUICK]
    done("train", photos, "--out", "enc", *options)
    (photos / "red" / "00.png").unlink()
    assert "other items or labels than when enc was trained on it" in refused(
        "evaluate", "enc", photos, "--out", "ev"
    )


def test_errors(world: Path, here: Path) -> None:
    photos, enc = world / "photos", world / "enc"
    flat = photos / "red"
    np.save(here / "c.npy", np.zeros((5, 2), np.uint8))
    np.save(here / "f.npy", np.zeros((5, 2)))
    for arguments, message in (
        (["train", flat, "--out", "x"], "has no labels: put the images into one folder"),
        (["train", "cifar11", "--out", "x"], "no data set: there are cifar10, cifar10-jpeg"),
        (["train", "tiny-imagenet-100", "--out", "x"], "tinyimagenet100_jpeg.npz is not in"),
        (["train", photos, "--out", enc], "enc exists: --overwrite replaces it"),
        (["train", photos, "--out", photos, "--overwrite"], "which are not replaced: name another"),
        (["train", photos, "--out", "c.npy"], "is a file, expected a folder"),
        (
            ["train", photos, "--out", "x", "--bits", "12"],
            "got bits = 12, expected a multiple of 8",
        ),
        (["train", photos, "--out", "x", "--epochs", "0"], "epochs: got 0, expected at least 1"),
        (["train", photos, "--out", "x", "--backbone", "vgg"], "unknown backbone 'vgg'"),
        (["train", photos, "--out", "x", "--freeze", "conv9"], "there is no stage 'conv9'"),
        (["train", photos, "--out", "x", "--loss", "quad"], "unknown loss 'quad'"),
        (["train", photos, "--out", "x", "--loss", "codes"], "unknown loss 'codes'"),
        (
            ["train", photos, "--out", "x", "--method", "dnnh", "--loss", "triplet"],
            "--loss: dnnh has a loss of its own",
        ),
        (
            ["train", photos, "--out", "x", "--method", "desh", "--psi", "0.1"],
            "--psi: desh has a loss of its own",
        ),
        (
            ["train", photos, "--out", "x", "--method", "cnnh", "--margin", "3"],
            "--margin: cnnh has a loss of its own",
        ),
        (
            ["train", photos, "--out", "x", "--method", "orthohash", "--margin", "3"],
            "--margin: orthohash has a loss of its own",
        ),
        (["train", photos, "--out", "x", "--n", "0"], "--n 0: expected at least 1"),
        (["train", photos, "--out", "x", "--vary"], "--vary goes with --method ensemble"),
        (["train", photos, "--out", "x", "--workers", "0"], "--workers 0: expected at least 1"),
        (["train", photos, "--out", "x", "--patience", "2"], "give --validation 0.1"),
        (["train", photos, "--out", "x", "--queries-per-class", "12"], "classes have fewer images"),
        (
            ["train", photos, "--out", "x", "--backbone", "features"],
            "holds images, --backbone feat",
        ),
        (
            ["train", world / "x.npz", "--out", "x", "--backbone", "small"],
            "holds vectors, the back",
        ),
        (
            ["train", photos, "--out", "x", "--backbone", "alexnet", "--weights", "no.npz"],
            "there is no file of weights",
        ),
        (
            ["train", photos, "--out", "x", "--phi", "1", "--ablation", "feature-level"],
            "drops the other term, whose weight is 1",
        ),
        (
            ["train", photos, "--out", "x", "--method", "ensemble", "--n", "9"],
            "--n cuts the tables of one net",
        ),
        (
            ["encode", photos, photos, "--out", "x.npy"],
            "holds no encoder (there is no encoder.json)",
        ),
        (["encode", enc, photos, "--out", "x.bin"], "expected a name that ends in .npy"),
        (["encode", enc, photos, "--out", "c.npy"], "c.npy exists: --overwrite"),
        (["encode", enc, world / "x.npz", "--out", "x.npy"], "holds vectors, the encoder"),
        (["build", enc, photos, "--out", world / "idx"], "idx exists: --overwrite"),
        (["build", world / "ens", photos, "--out", "x"], "holds images, the encoder"),
        (["build", world / "ens", "f.npy", "--out", "x"], "vectors of 2 dimensions, expected 8"),
        (["search", enc, photos], "holds no encoded index"),
        (["search", world / "idx", "no.png"], "no.png: there is no such image"),
        (["search", world / "idx", photos, "-k", "0"], "-k 0: expected at least 1"),
        (["search", world / "idx", photos, "-k", "1", "-r", "1"], "exclude each other"),
        (["evaluate", photos, photos, "--out", "x"], "holds no encoder (there is no encoder.json)"),
        (["evaluate", enc, flat, "--out", "x"], "has no labels"),
        (["evaluate", "c.npy", photos, "--out", "x"], "holds 5 codes, expected 36"),
        (["evaluate", "f.npy", photos, "--out", "x"], "f.npy: "),
        (["evaluate", enc, photos, "--out", "x", "--cutoff", "0"], "--cutoff 0: expected at least"),
    ):
        assert message in refused(*arguments), arguments
    assert {path.name for path in here.iterdir()} == {"c.npy", "f.npy"}


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("encoder.json", lambda b: b.replace(b'"small"', b'"features"'), "of another|input_dim"),
        ("encoder.json", lambda b: b[:50], "enc is damaged, train or copy it anew"),
        (
            "encoder.json",
            lambda b: b.replace(b'"version": 1', b'"version": 9'),
            "version 9, expect",
        ),
        ("head-0.safetensors", lambda b: b[:50], "enc is damaged, train or copy it anew"),
        ("trunk.safetensors", None, "safetensors"),
    ],
)
def test_damaged_encoders(world: Path, here: Path, file: str, damage: Any, message: str) -> None:
    path = shutil.copytree(world / "enc", here / "enc") / file
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    said = refused("encode", "enc", world / "photos", "--out", "c.npy")
    assert any(part in said for part in message.split("|")), said


def test_weights_of_another_architecture(world: Path, here: Path) -> None:
    done("train", world / "photos", "--out", "b", "--method", "deephash", *QUICK, "--bits", 24)
    shutil.copy(here / "b" / "head-0.safetensors", shutil.copytree(world / "enc", here / "enc"))
    said = refused("encode", "enc", world / "photos", "--out", "c.npy")
    assert "enc holds weights of another architecture than encoder.json names: 2 are" in said


def test_what_is_replaced(world: Path, here: Path) -> None:
    shutil.copytree(world / "idx", here / "idx")
    (here / "idx" / "old").write_text("x")
    done("build", world / "enc", world / "photos" / "red", "--out", "idx", "--overwrite")
    assert EncodedIndex.load(here / "idx").ntotal == EACH
    assert not (here / "idx" / "old").exists()
    assert [path.name for path in here.iterdir()] == ["idx"]


WITHOUT_TORCH = """
import sys

import importlib.util

HIDDEN = ("torch", "torchvision", "lightning", "safetensors", "tqdm")

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in HIDDEN else real(name, *rest)
sys.meta_path.insert(0, Hide())
from faiss_dmih.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules and "matplotlib.pyplot" not in sys.modules
"""


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_torch() -> None:
    helped = without_torch("--help")
    assert helped.returncode == 0, helped.stderr
    assert "evaluate" in helped.stdout
    told = without_torch("train", "digits", "--out", "x")
    assert told.returncode == 2, told.stderr
    assert (
        "encoders need torch, torchvision, lightning, safetensors, tqdm, not installed"
        in told.stderr
    )
    assert "pip install 'faiss-dmih[train]'" in told.stderr


@pytest.mark.parametrize("command", ["train", "encode", "build", "search", "evaluate"])
def test_help(command: str) -> None:
    out = done(command, "--help")
    assert "--overwrite" in out
    assert "Usage" in out
    if command == "train":
        assert "[default: small; for vectors: features]" in " ".join(out.split())
