"""All tables of small sets: what they hold, how they say what was not run, how they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from elsewhere import THERE, Elsewhere

from faiss_dmih.baselines import LSH
from faiss_dmih.bench.machine import describe
from faiss_dmih.data import labelled, paper_split
from faiss_dmih.encoders import DMIH, Training, devices, load_encoder
from faiss_dmih.encoders import encoder as encoder_module
from faiss_dmih.metrics import bucket_entropy, expected_candidates, mean_average_precision
from faiss_dmih.partition import learn_partition
from faiss_dmih.tables import PAPERS, SCHEDULES, TABLES, Order, Workshop, chosen, settings
from faiss_dmih.tables import sheet as sheet_module
from faiss_dmih.tables.jobs import Activations, Codes, Fit
from faiss_dmih.tables.layout import Section
from faiss_dmih.tables.report import MARK, write_report
from faiss_dmih.tables.sets import DERIVED, Derived, Sets
from faiss_dmih.tables.sheet import Sheet, nobody
from faiss_dmih.tables.trainings import make_encoder

SEEDLESS = {"dmih-f4", "edsh-f1", "edsh-f4", "edsh-f5", "beyond-2"}


@pytest.fixture(scope="module")
def known():
    with pytest.MonkeyPatch.context() as patch:
        toys.make_known(patch)
        yield


@pytest.fixture(scope="module")
def shop(known, tmp_path_factory) -> Workshop:
    """All tables' work, done."""
    made = Workshop(tmp_path_factory.mktemp("cache"), Sets())
    made.run(Order(toys.plan()).needed(), lambda work, share: None)
    return made


@pytest.fixture(scope="module")
def sections(shop) -> dict[str, Section]:
    return {section.key: section for section in Order(toys.plan()).written(shop)}


def figures(section: Section, *labels: str) -> list[tuple[float, ...]]:
    rows = [row for row in section.rows if row.labels == labels]
    assert len(rows) == 1, [row.labels for row in section.rows]
    return [figure.values for figure in rows[0].figures]


def test_only_data_driven_search_fails_where_there_is_no_partition(shop):
    reasons = set(shop.failures.values())
    assert not any(why.startswith("failed") for why in reasons), reasons
    assert all("partition" in why for why in reasons)


def test_every_table_is_there_and_asks_for_all_it_shows(shop, sections):
    assert tuple(sections) == tuple(TABLES)
    for key, section in sections.items():
        widths = {len(row.labels) for row in section.rows} | {len(section.labels)}
        assert len(widths) == 1, key
        widths = {len(row.figures) for row in section.rows} | {len(section.columns)}
        assert len(widths) == 1, key
        ours = [f for row in section.rows if not row.published for f in row.figures]
        assert any(figure.values for figure in ours), key
        assert not any("not done yet" in why for why in section.reasons), key
        if key in SEEDLESS:
            assert section.pictures, key
    assert not shop.missing(Order(toys.plan()).needed())


def test_figures_are_those_of_the_codes(sections):
    items = labelled(toys.VECTORS)
    parts = paper_split(items, seed=0)
    train, base, asked = (items[r] for r in (parts.train, parts.database, parts.queries))
    hashing = LSH(64, random_state=0).fit(train.vectors)
    xb, xq = hashing.transform(base.vectors), hashing.transform(asked.vectors)
    ap = mean_average_precision(xb, xq, base.labels, asked.labels)
    found = figures(sections["edsh-1"], toys.VECTORS, "LSH")
    assert [len(values) for values in found] == [0, 1, 0, 0]
    assert found[1][0] == pytest.approx(ap.value)
    net = DMIH(
        64,
        n=len(base),
        backbone="features",
        training=Training(epochs=1, seed=0, log=None, progress=False),
    )
    net.fit(train.vectors, train.labels)
    nats = float(np.mean(bucket_entropy(net.encode(base.vectors), net.cuts).per_table))
    assert figures(sections["dmih-2"], toys.VECTORS, "DMIH", "natural")[0][0] == pytest.approx(nats)


def test_rearranged_tables_are_those_of_the_learnt_order(shop, sections):
    """Table 4: entropy and candidates of the codes with their bits in that order."""
    codes = shop.folder(Codes(toys.plan().model("DeepHash", toys.VECTORS, 64, 0)))
    with np.load(codes / "codes.npz") as file:
        xb, xq = file["xb"], file["xq"]
    cuts = json.loads((codes / "codes.json").read_text())["cuts"]
    learnt = learn_partition(xb, len(xb), "data-driven", cuts=cuts)
    found = {
        "MIH": (xb, xq, cuts),
        "data-driven MIH (two-stage)": (learnt.permute(xb), learnt.permute(xq), learnt.cuts),
    }
    for search, (base, asked, lengths) in found.items():
        shown = figures(sections["dmih-4"], toys.VECTORS, "64", "DeepHash", search)
        nats = float(np.mean(bucket_entropy(base, lengths).per_table))
        entries = expected_candidates(base, asked, lengths, k=1).entries.mean()
        assert shown[3:] == [(pytest.approx(nats),), (pytest.approx(float(entries)),)]


def test_what_a_single_length_cannot_show_is_said(shop, sections):
    few = [line for line in sections["dmih-f4"].differences if "several lengths" in line]
    assert len(few) == 1
    (more,) = Order(toys.plan(bits=(64, 96)), ("dmih-f4",)).written(shop)
    assert not any("several lengths" in line for line in more.differences)


def test_the_published_figures_are_beside_ours(sections):
    row = next(r for r in sections["dmih-1"].rows if r.labels[0] == "SVHN, published")
    assert row.published
    assert row.figures[0].text == "96.39x"
    shown = sections["dmih-1"].rows
    reasons = [f.why for r in shown if r.labels[0] == "svhn" for f in r.figures]
    assert reasons == ["SVHN: the schedule quick leaves it out (--data svhn)"] * 7


def test_an_ensembles_shorter_codes_are_those_of_its_first_sub_models(known, tmp_path):
    plan = toys.plan(bits=(32, 64))
    shop = Workshop(tmp_path, Sets())
    order = Order(plan, ("edsh-bits",))
    shop.run(order.needed(), lambda work, share: None)
    (section,) = order.written(shop)
    assert figures(section, toys.VECTORS, "64")[4] == (1.0,)
    fits = [w for w in order.needed() if isinstance(w, Fit) and w.model.method == "ensemble"]
    assert len(fits) == 1
    codes = np.load(shop.folder(Codes(fits[0].model)) / "codes.npz")
    items = labelled(toys.VECTORS)
    encoder = load_encoder(shop.folder(fits[0]) / "encoder")
    parts = paper_split(items, seed=0)
    x = items[parts.queries]
    ap = mean_average_precision(
        codes["xb"][:, :4], encoder.encode(x.vectors)[:, :4], codes["yb"], x.labels
    )
    assert figures(section, toys.VECTORS, "32")[0][0] == pytest.approx(ap.value)


def test_an_ensemble_grows_to_a_single_length_too(sections):
    rows = sections["edsh-bits"].rows
    assert [row.labels[1] for row in rows] == ["16", "32", "64"]
    assert [row.figures[4].values for row in rows] == [(), (1.0,), (1.0,)]
    assert all(len(row.figures[0].values) == 1 for row in rows)


def test_changes_reach_the_objective(known, tmp_path):
    plan = toys.plan()
    shop = Workshop(tmp_path, Sets())
    for method, changes, expected in (
        ("DMIH", {}, (None, 0.1, 0.2)),
        ("DMIH, feature level", {}, (None, 0.1, 0.0)),
        ("DMIH, instance level", {"margin": 4.0}, (4.0, 0.0, 0.2)),
        ("DMIH", {"feature_weight": 0.5, "instance_weight": 0.0}, (None, 0.5, 0.0)),
        ("ensemble", {"margin": 2.0}, (2.0, 0.0, 0.0)),
        ("OrthoHash, balanced", {}, (None, 0.1, 0.2)),
    ):
        model = plan.model(method, toys.VECTORS, 64, 0, changes=tuple(changes.items()))
        said = make_encoder(model, 500, None, shop).objective
        assert (said.margin, said.feature_weight, said.instance_weight) == expected


def test_the_full_schedule_asks_for_what_the_papers_have():
    models = {work.model for work in Order(SCHEDULES["full"]).needed()}  # type: ignore[attr-defined]
    of = {(m.method, m.data, m.bits, m.seed, m.freeze): m for m in models}
    assert ("DMIH", "svhn", 256, 2, None) in of
    assert ("LSH", "svhn-fc7", 64, 0, None) in of
    assert ("ensemble", "awa2", 128, 1, "conv3") in of
    assert of["ensemble", "awa2", 128, 1, "conv3"].grown == (32, 64, 96)
    stages = {m.freeze for m in models if m.data == "imagenet-100" and m.bits == 96}
    assert stages >= {None, "conv1", "conv5", "fc7"}


def test_schedules_share_the_trainings_on_vectors():
    """Which backbone and which frozen layers images have is nothing to them."""
    for method in ("DMIH", "ensemble"):
        quick, full = (
            SCHEDULES[name].model(method, "cifar10-features", 64, 0) for name in ("quick", "full")
        )
        assert quick == full
    of_images = SCHEDULES["full"].model("ensemble", "cifar10", 64, 0)
    assert (of_images.backbone, of_images.freeze, of_images.pretrained) == (
        *("alexnet", "conv3"),
        True,
    )


def test_settings_of_images_and_vectors_are_named():
    said = settings.of_data(SCHEDULES["full"], "svhn", "cifar10-features")
    assert any(line.startswith("Images: AlexNet with ImageNet's weights") for line in said)
    assert "Methods that are no nets take AlexNet's activations after fc7." in said
    said = settings.of_data(SCHEDULES["full"], "svhn-fc7", "cifar10-features")
    assert not any(line.startswith(("Images", "Methods")) for line in said)


def test_sweeps_know_no_queries(known):
    sheet = Sheet(toys.plan(), nobody)
    TABLES["beyond-2"](sheet)
    sets = Sets()
    queries = paper_split(labelled(toys.VECTORS), seed=0).queries
    for work in sheet.asked:
        model = work.model  # type: ignore[attr-defined]
        parts = sets.split(model)
        assert len(parts.train) == 80
        for rows in (parts.queries, parts.database, parts.train):
            assert not np.isin(rows, queries).any()


def test_means_and_deviations_of_seeds(known, tmp_path):
    plan = toys.plan(seeds=2)
    shop = Workshop(tmp_path, Sets())
    order = Order(plan, ("dmih-2",))
    shop.run(order.needed(), lambda work, share: None)
    (section,) = order.written(shop)
    (values, *_) = figures(section, toys.VECTORS, "DMIH", "natural")
    assert len(set(values)) == 2
    row = next(r for r in section.rows if r.labels[:2] == (toys.VECTORS, "DMIH"))
    assert row.figures[0].text == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def test_sets_that_are_not_here_are_named(known, tmp_path, monkeypatch):
    monkeypatch.setenv("FAISS_DMIH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shop = Workshop(tmp_path / "work", Sets())
    order = Order(toys.plan(data=("awa2",)), ("edsh-1",))
    shop.run(order.needed(), lambda work, share: None)
    (section,) = order.written(shop)
    assert any(why.startswith("awa2: unpack https://") for why in section.reasons)
    assert not any(row.figures[1].values for row in section.rows if not row.published)


def test_the_report(shop, sections, tmp_path):
    target = tmp_path / "report"
    write_report(target, list(sections.values()), PAPERS, toys.plan(), describe(), left=3)
    text = (target / MARK).read_text()
    page = (target / "tables.html").read_text()
    said = json.loads((target / "tables.json").read_text())
    assert "**Not complete**: 3 pieces of work are not done yet." in text
    for section in sections.values():
        assert f"### {section.title}" in text
        assert f'id="{section.key}"' in page
        for picture in section.pictures:
            assert (target / f"{picture.name}.png").stat().st_size > 1000
            assert f"({picture.name}.png)" in text
    assert page.count("data:image/png") == sum(len(s.pictures) for s in sections.values())
    by_key = {table["key"]: table for table in said["tables"]}
    (row,) = [r for r in by_key["edsh-1"]["rows"] if r["labels"] == [toys.VECTORS, "LSH"]]
    assert row["figures"][1]["values"] == list(figures(sections["edsh-1"], toys.VECTORS, "LSH")[1])
    assert "not_run" in row["figures"][0]
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") > 2 for line in tables)
    assert "| *SVHN, published* | *64* | *DMIH* | *MIH over linear scan* | *96.39x*" in text


def test_times_of_a_busy_machine_say_so(shop, monkeypatch):
    usual = sheet_module.read

    def busy(path: Path) -> dict[str, Any]:
        return {**usual(path), "bystanders": 1.25} if path.name == "times.json" else usual(path)

    monkeypatch.setattr(sheet_module, "read", busy)
    first, second = Order(toys.plan(), ("dmih-1", "dmih-2")).written(shop)
    assert any(line.startswith("Others kept up to 1.2 cores busy") for line in first.differences)
    assert not any("cores busy" in line for line in second.differences)


def test_names_of_tables():
    assert chosen([], []) == tuple(TABLES)
    assert chosen(["edsh"], ["dmih-1"])[0] == "dmih-1"
    with pytest.raises(ValueError, match=r"got .dmih-9., expected one of dmih-1, "):
        chosen([], ["dmih-9"])


def test_a_cache_may_move(shop, tmp_path):
    """Nothing in it knows where it is."""
    root = shop.root.rename(tmp_path / "elsewhere")
    try:
        moved = Workshop(root, Sets())
        assert not [w for w in moved.missing(Order(toys.plan()).needed()) if "rearr" not in w.title]
    finally:
        Path(root).rename(shop.root)


def test_codes_and_activations_are_made_on_the_device(known, tmp_path, monkeypatch):
    """Of a trained net, and of a pre-trained one; to the bit those of the processor."""
    name = "derived-features"
    monkeypatch.setitem(DERIVED, name, Derived(toys.PHOTOS, "small", "conv3", 32))
    monkeypatch.setattr(Sets, "pretrained", lambda sets, backbone: False)
    model = toys.plan().model("DMIH", toys.PHOTOS, 32, 0, freeze="conv1")
    here, there = (Workshop(tmp_path / place, Sets()) for place in ("here", "there"))
    wanted = [Codes(model), Activations(name)]
    here.run(wanted[:1], lambda work, share: None)
    there.run([Fit(model)], lambda work, share: None)
    monkeypatch.setattr(devices, "device_of", lambda accelerator: THERE)
    monkeypatch.setattr(encoder_module, "device_of", lambda accelerator: THERE)
    with Elsewhere() as device:
        there.run(wanted[:1], lambda work, share: None)
        assert device.there
        assert not device.here
        device.there.clear()
        there.run(wanted[1:], lambda work, share: None)
        assert device.there
        assert not device.here
    assert not there.failures
    made = [np.load(shop.folder(wanted[0]) / "codes.npz") for shop in (here, there)]
    for array in ("xb", "xq"):
        np.testing.assert_array_equal(made[0][array], made[1][array])
    assert np.load(there.folder(wanted[1]) / "vectors.npy").shape == (120, 128)


def test_activations_are_made_once_and_trained_on(known, tmp_path, monkeypatch):
    name = "derived-features"
    monkeypatch.setitem(DERIVED, name, Derived(toys.PHOTOS, "small", "conv3", 32))
    monkeypatch.setattr(Sets, "pretrained", lambda sets, backbone: False)
    order = Order(toys.plan(data=(name,)), ("dmih-2",))
    shop = Workshop(tmp_path, Sets())
    assert [work.kind for work in shop.missing(order.needed())].count("activations") == 1
    shop.run(order.needed(), lambda work, share: None)
    assert not shop.failures
    assert np.load(shop.folder(Activations(name)) / "vectors.npy").shape == (120, 128)
    (section,) = order.written(shop)
    assert figures(section, name, "DMIH", "natural")[0][0] > 0
    assert not Workshop(tmp_path, Sets()).missing(order.needed())
