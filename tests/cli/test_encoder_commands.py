"""`faiss-dmih train`, `encode`, `build`, `search`, `evaluate`, run as they stand on tiny data."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import CLASSES, QUICK, done, invoke, make_photos, refused
from matplotlib.image import imread

from faiss_dmih.cli import picture
from faiss_dmih.cli.search import Found, Neighbour
from faiss_dmih.cli.splits import Drawn
from faiss_dmih.data import image_folder, labelled
from faiss_dmih.encoded import EncodedIndex
from faiss_dmih.encoders import DeepHash, EnsembleDSH, Training, load_encoder
from faiss_dmih.metrics.evaluation import Evaluation
from faiss_dmih.metrics.evaluation import evaluate as by_hand
from faiss_dmih.options import paper_cuts

pytestmark = pytest.mark.usefixtures("here")


def folder_of(world: Path) -> Any:
    return image_folder(world / "photos")


# train


def test_what_train_writes(world: Path) -> None:
    names = {path.name for path in (world / "enc").iterdir()}
    assert names == {
        *("encoder.json", "trunk.safetensors", "head-0.safetensors"),
        *("split.json", "training.json", "log"),
    }
    assert [path.name for path in (world / "enc" / "log").iterdir()] == ["metrics.csv"]
    assert not (world / "enc.training").exists()
    said = json.loads((world / "enc" / "training.json").read_text())
    assert (said["method"], said["backbone"], said["psi"], said["n"]) == (
        "deephash",
        "small",
        0,
        33,
    )
    parts = Drawn.load(world / "enc" / "split.json").split
    labels = folder_of(world).labels
    assert np.bincount(labels[parts.queries]).tolist() == [1, 1, 1]
    assert sorted([*parts.queries, *parts.database]) == list(range(36))
    assert load_encoder(world / "ens").cuts == (8, 8)


def test_train_gives_the_library_what_was_asked_for(
    world: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options, and never a query."""
    seen: list[Any] = []
    fit = DeepHash.fit

    def spy(self: Any, x: Any, labels: Any, *, validation: Any) -> Any:
        seen.append((self, x, labels, validation))
        return fit(self, x, labels, validation=validation)

    monkeypatch.setattr("faiss_dmih.encoders.DMIH.fit", spy)
    out = done(
        *("train", world / "photos", "--out", here / "enc", *QUICK, "--n", 300, "--seed", 5),
        *("--margin", 3, "--psi", 0.2, "--ablation", "feature-level", "--learning-rate", 0.01),
        *("--validation", 0.25, "--patience", 1, "--queries-per-class", 2, "--split-seed", 4),
    )
    encoder, x, labels, (held_out, _) = seen[0]
    parts = Drawn.load(here / "enc" / "split.json").split
    np.testing.assert_array_equal(x.rows, parts.train)
    np.testing.assert_array_equal(held_out.rows, parts.validation)
    np.testing.assert_array_equal(labels, folder_of(world).labels[parts.train])
    assert not set(parts.queries) & {*x.rows, *held_out.rows}
    assert [len(parts.queries), len(x), len(held_out)] == [6, 23, 7]
    o, t = encoder.objective, encoder.training
    assert (o.margin, o.feature_weight, o.instance_weight) == (3, 0.2, 0)
    assert (t.seed, t.epochs, t.batch_size, t.learning_rate, t.patience) == (5, 1, 16, 0.01, 1)
    assert encoder.cuts == paper_cuts(16, 300)
    for said in ("DMIH, 16 bits", "triplet + 0.2 psi", "36 items, 3 classes", "queries 6"):
        assert said in out


def test_a_named_set(here: Path) -> None:
    few = ["--queries-per-class", 2, "--train-per-class", 3]
    done("train", "digits", "--out", here / "enc", "--method", "deephash", *QUICK, *few)
    parts = Drawn.load(here / "enc" / "split.json").split
    assert [len(parts.queries), len(parts.train), len(parts.database)] == [20, 30, 1777]
    done("build", here / "enc", "digits", "--out", here / "idx", "--part", "database")
    index = EncodedIndex.load(here / "idx")
    np.testing.assert_array_equal(index.ids, parts.database)
    query = int(parts.queries[0])
    out = json.loads(done("search", here / "idx", f"digits[{query}]", "-k", 1, "--json"))
    assert out["queries"][0]["label"] == [str(labelled("digits").labels[query])]
    done("search", here / "idx", "digits[5]", "--show", here / "d.png")
    assert refused("search", here / "idx", "digits[1797]").endswith("has the items 0 to 1796\n")


def test_stopped_and_taken_up(world: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["train", world / "photos", "--out", here / "enc", "--method", "deephash", *QUICK]

    def stop(self: Any, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Drawn, "save", stop)
        assert invoke(*command).exit_code == 130
    assert [path.name for path in here.iterdir()] == ["enc.training"]
    said = refused(*command, "--seed", 3)
    assert "enc.training holds a training that was stopped, with other options (seed)" in said
    result = invoke(*command)
    assert "going on with the training that was stopped" in result.stderr
    assert [path.name for path in here.iterdir()] == ["enc"]
    assert load_encoder(here / "enc").fingerprints == load_encoder(world / "enc").fingerprints
    assert {path.name for path in (here / "enc" / "log").iterdir()} >= {"metrics-0.csv"}


def test_interrupted_while_fitting(
    world: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("faiss_dmih.encoders.DMIH.fit", stop)
    result = invoke("train", world / "photos", "--out", here / "enc", *QUICK)
    assert result.exit_code == 130
    assert "stopped before the first epoch was over; nothing is kept" in result.stderr
    assert list(here.iterdir()) == []

    def stop_later(self: Any, *_: Any, **__: Any) -> None:
        (self.training.folder / "epoch=0.ckpt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("faiss_dmih.encoders.DMIH.fit", stop_later)
    result = invoke("train", world / "photos", "--out", here / "enc", *QUICK)
    assert result.exit_code == 130
    assert f"goes on from the last whole epoch, kept in {here}/enc.training" in result.stderr
    assert [path.name for path in here.iterdir()] == ["enc.training"]


def test_corrupt_images(world: Path, here: Path) -> None:
    photos = shutil.copytree(world / "photos", here / "photos")
    bad = photos / "green" / "03.png"
    bad.write_bytes(b"no image")
    train = ["train", photos, "--method", "deephash", *QUICK, "--out", here / "enc"]
    said = refused(*train)
    assert str(bad) in said
    assert "--skip-corrupt" in said
    assert "of no known format" in said
    result = invoke(*train, "--skip-corrupt")
    assert result.exit_code == 0, result.output
    assert f"skipped 1: {bad} (of no known format)" in result.stderr
    assert "35 items, 3 classes, 1 skipped" in result.stdout
    assert json.loads((here / "enc" / "training.json").read_text())["skipped"][0][0] == str(bad)
    # What the split leaves out nobody stumbles over.
    done("evaluate", here / "enc", photos, "--out", here / "ev")
    done("build", here / "enc", photos, "--out", here / "db", "--part", "database")
    assert "--skip-corrupt" in refused("build", here / "enc", photos, "--out", here / "idx")
    done("build", here / "enc", photos, "--out", here / "idx", "--skip-corrupt")
    index = EncodedIndex.load(here / "idx")
    assert index.ntotal == 35
    assert str(bad) not in (index.names or [])
    assert str(photos / "red" / "11.png") == (index.names or [])[-1]
    assert index.ids[-1] == 35
    assert "--skip-corrupt" in refused("search", here / "idx", bad)


def test_copies_of_queries_are_said(here: Path) -> None:
    photos = make_photos(here / "photos")
    for path in sorted((photos / "red").iterdir())[1:]:
        shutil.copy(photos / "red" / "00.png", path)
    result = invoke("train", photos, "--out", here / "enc", "--method", "deephash", *QUICK)
    assert result.exit_code == 0, result.output
    assert "11 exact copies of queries are in the database" in result.stderr


# encode, build, search


@pytest.mark.parametrize("listing", ["names.txt", "names.json"])
def test_encode(world: Path, here: Path, listing: str) -> None:
    out = done("encode", world / "enc", world / "photos", "--out", "c.npy", "--names", listing)
    assert "36 codes of 16 bits to c.npy" in out
    codes = np.load(here / "c.npy")
    expected = load_encoder(world / "enc").encode(folder_of(world))
    np.testing.assert_array_equal(codes, expected)
    text = (here / listing).read_text()
    paths = [folder_of(world).item_name(i) for i in range(36)]
    if listing.endswith(".txt"):
        assert text.splitlines() == paths
    else:
        listed = json.loads(text)
        assert [each["name"] for each in listed] == paths
        assert listed[35] == {"id": 35, "name": paths[35], "label": ["red"]}


def test_every_image_finds_itself(world: Path) -> None:
    out = done("search", world / "idx", world / "photos", "-k", 36, "--json")
    found = json.loads(out)["queries"]
    index = EncodedIndex.load(world / "idx")
    D, I = index.search(folder_of(world), 36)
    assert len(found) == 36
    for q, each in enumerate(found):
        path = folder_of(world).item_name(q)
        assert each["query"] == path
        assert each["label"] == [path.split(os.sep)[-2]]
        assert [n["distance"] for n in each["neighbours"]] == D[q].tolist()
        assert [n["id"] for n in each["neighbours"]] == I[q].tolist()
        assert [n["rank"] for n in each["neighbours"]] == list(range(1, 37))
        itself = [n for n in each["neighbours"] if n["name"] == path]
        assert [(n["distance"], n["id"], n["label"]) for n in itself] == [(0, q, each["label"])]


def test_within_a_radius(world: Path) -> None:
    query = world / "photos" / "red" / "00.png"
    for radius in (1, 6):
        out = json.loads(done("search", world / "idx", query, "-r", radius, "--json"))
        index = EncodedIndex.load(world / "idx")
        _, D, I = index.range_search(folder_of(world)[24:25], radius)
        got = [(n["distance"], n["id"]) for n in out["queries"][0]["neighbours"]]
        assert got == sorted(zip(D.astype(int).tolist(), I.tolist(), strict=True))
        assert max(distance for distance, _ in got) < radius


def test_the_table(world: Path) -> None:
    out = done("search", world / "idx", world / "photos" / "red" / "00.png", "-k", 3)
    for said in ("rank", "distance", "label", "00.png (red)", "/photos/"):
        assert said in out
    assert out.count(".png") == 4


def test_vectors(world: Path, here: Path) -> None:
    with np.load(world / "x.npz") as z:
        np.save(here / "q.npy", z["features"][:2].astype(np.float32))
    out = json.loads(done("search", world / "ens-idx", "q.npy", "-k", 60, "--json"))
    for q, each in enumerate(out["queries"]):
        assert each["query"] == f"{here}/q.npy[{q}]"
        itself = next(n for n in each["neighbours"] if n["id"] == q)
        assert itself["distance"] == 0
        assert itself["name"] == f"{world}/x.npz[{q}]"
        assert itself["label"] == [CLASSES[q]]
    assert "holds vectors, which cannot be shown" in refused(
        "search", world / "ens-idx", "q.npy", "--show", "p.png"
    )
    assert "takes vectors" in refused("search", world / "ens-idx", world / "photos")
    assert "takes images" in refused("search", world / "idx", "q.npy")


def test_the_database_has_no_query(world: Path, here: Path) -> None:
    done("build", world / "enc", world / "photos", "--out", "db", "--part", "database")
    index = EncodedIndex.load(here / "db")
    parts = Drawn.load(world / "enc" / "split.json").split
    np.testing.assert_array_equal(index.ids, parts.database)
    assert index.names == [folder_of(world).item_name(i) for i in parts.database]
    other = make_photos(here / "photos") / "red"
    assert f"was trained on {world}/photos, not on" in refused(
        "build", world / "enc", other, "--out", "no", "--part", "database"
    )


def test_a_stale_index(world: Path, here: Path) -> None:
    index = EncodedIndex.load(world / "ens-idx")
    encoder = index.encoder
    assert isinstance(encoder, EnsembleDSH)
    encoder.training = Training(epochs=1, progress=False)
    with np.load(world / "x.npz") as z:
        encoder.update(z["features"].astype(np.float32)[:30], z["labels"][:30])
    index.save(here / "stale")
    said = refused("search", here / "stale", world / "x.npz")
    assert "or build the index anew" in said
    assert str(here / "stale") in said


# The picture


def test_the_picture(world: Path, here: Path) -> None:
    red = [world / "photos" / "red" / f"{i:02}.png" for i in range(2)]
    done("search", world / "idx", *red, "-k", 12, "--show", "p.png")
    pixels = imread(here / "p.png")
    tile = picture.Tile(np.zeros((2, 2, 3), np.uint8), "", "")
    width, height = picture.size([picture.Row(tile, [tile] * 12)] * 2)
    assert pixels.shape[:2] == (height, width)
    assert (width, height) == (1841, 907)
    said = refused("search", world / "idx", *red, "--show", "p.png")
    assert "p.png exists: --overwrite" in said
    done("search", world / "idx", *red, "-k", 3, "--show", "p.png", "--overwrite")
    assert imread(here / "p.png").shape[1] < width
    # A neighbour whose file is gone is named.
    gone = shutil.copytree(world / "idx", here / "idx") / "names.json"
    gone.write_text(gone.read_text().replace("/red/", "/was/"))
    assert "/was/" in refused("search", here / "idx", red[0], "-k", 36, "--show", "n.png")


def frame_at(path: Path, column: int) -> list[int]:
    """The colour of a neighbour's frame, half-way down its left side."""
    p = picture
    x = p.MARGIN + p.ASIDE + (1 + column) * (p.IMAGE + p.GAP)
    y = p.MARGIN + p.TITLE + p.ABOVE + p.IMAGE / 2
    pixel = imread(path)[round(y * p.DPI), round(x * p.DPI), :3]
    return [round(255 * float(value)) for value in pixel]


def test_frames_say_what_is_right(here: Path) -> None:
    def neighbour(*label: str) -> Neighbour:
        return Neighbour(1, 0, 0, "x", list(label))

    found = Found("q", ["cat", "pet"], [])
    frames = [found.frame(neighbour(*label)) for label in (["pet"], ["dog", "tree"], [])]
    assert frames == [picture.RIGHT, picture.WRONG, picture.UNKNOWN]
    assert Found("q", [], []).frame(neighbour("cat")) == picture.UNKNOWN
    grey = np.full((500, 300, 3), 128, np.uint8)
    tiles = [picture.Tile(grey, "distance 3", "a cat" * 9, frame) for frame in frames]
    picture.write_picture([picture.Row(picture.Tile(grey, "q", "cat"), tiles)], here / "p.png")
    for column, frame in enumerate(frames):
        assert frame_at(here / "p.png", column) == [int(frame[i : i + 2], 16) for i in (1, 3, 5)]


# evaluate


def test_figures_are_those_of_the_library(world: Path, here: Path) -> None:
    out = done("evaluate", world / "enc", world / "photos", "--out", "ev", "--cutoff", 5)
    parts = Drawn.load(world / "enc" / "split.json").split
    encoder, images = load_encoder(world / "enc"), folder_of(world)
    xb, xq = encoder.encode(images[parts.database]), encoder.encode(images[parts.queries])
    yb, yq = images.labels[parts.database], images.labels[parts.queries]
    expected = by_hand(xb, xq, yb, yq, encoder.cuts, name="DeepHash", cutoffs=[5])
    assert Evaluation.load(here / "ev" / "DeepHash-16.json").to_json() == expected.to_json()
    assert {path.name for path in (here / "ev").iterdir()} == {
        *("DeepHash-16.json", "evaluation.md", "split.json"),
        *("map.png", "precision_recall.png", "precision_at.png", "correlation.png"),
        f"buckets_16x{len(encoder.cuts)}.png",
    }
    value = f"{expected.mean_average_precision.value:.3f}"
    for text in (out, (here / "ev" / "evaluation.md").read_text()):
        assert value in text
        assert "DeepHash" in text
    # The same of codes that are there already.
    done("encode", world / "enc", world / "photos", "--out", "c.npy")
    shutil.copytree(world / "enc", here / "other")
    done(
        *("evaluate", here / "c.npy", f"again={here}/other", world / "enc"),
        *(world / "photos", "--out", "ev", "--overwrite"),
    )
    cuts = paper_cuts(16, len(xb))
    expected = by_hand(xb, xq, yb, yq, cuts, name="c")
    assert Evaluation.load(here / "ev" / "c-16.json").to_json() == expected.to_json()
    assert (here / "ev" / "again-16.json").exists()
    assert (here / "ev" / "enc-16.json").exists()
    assert not (here / "ev" / "DeepHash-16.json").exists()


def test_codes_and_labels_alone(here: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    codes = rng.integers(0, 256, (40, 4), dtype=np.uint8)
    np.save(here / "c.npy", codes)
    np.savez(here / "y.npz", labels=labels)
    done("evaluate", "c.npy", "y.npz", "--out", "ev", "--queries-per-class", 3)
    parts = Drawn.load(here / "ev" / "split.json").split
    assert len(parts.queries) == 6
    b, q = parts.database, parts.queries
    expected = by_hand(codes[b], codes[q], labels[b], labels[q], paper_cuts(32, 34), name="c")
    assert Evaluation.load(here / "ev" / "c-32.json").to_json() == expected.to_json()


def test_splits_have_to_agree(world: Path, here: Path) -> None:
    options = ["--method", "deephash", *QUICK, "--split-seed", 1]
    done("train", world / "photos", "--out", "b", *options)
    said = refused("evaluate", world / "enc", here / "b", world / "photos", "--out", "ev")
    assert "were trained with other queries of" in said
    assert "--split-seed" in said
    said = refused(
        *("evaluate", world / "enc", world / "photos", "--out", "ev", "--queries-per-class", 2)
    )
    assert "was trained with queries of its own" in said
    # Of another source a split is drawn, as no encoder has seen it.
    done("evaluate", world / "enc", here / "b", "digits", "--out", "ev")
    assert len(Drawn.load(here / "ev" / "split.json").split.queries) == 100


@pytest.mark.parametrize(
    ("method", "kind", "objective"),
    [
        ("cnnh", "CNNH", {"loss": "codes"}),
        ("desh", "DeSH", {"loss": "pairwise", "margin": 3.0, "quantisation_weight": 0.01}),
        ("dnnh", "DNNH", {"loss": "triplet", "margin": 3.0}),
        ("drsch", "DRSCH", {"loss": "triplet", "margin": 3.0, "adjacency_weight": 0.01}),
    ],
)
def test_what_others_have_published(
    world: Path, method: str, kind: str, objective: dict[str, Any]
) -> None:
    margin = ["--margin", 3] if "margin" in objective else []
    said = done("train", world / "x.npz", "--out", "e", "--method", method, *QUICK, *margin)
    assert kind in said
    saved = json.loads(Path("e/encoder.json").read_text())
    assert saved["kind"] == kind
    assert saved["arguments"]["objective"].items() >= objective.items()
    assert type(load_encoder("e")).__name__ == kind
