"""The papers' figures: what their texts say of the tables holds for what was transcribed."""

from __future__ import annotations

import pytest

from faiss_dmih.tables import published as paper


def test_tables_are_whole():
    for table in paper.DMIH_SPEEDUPS.values():
        assert tuple(table) == paper.DMIH_BITS
        for methods in table.values():
            assert {len(values) for values in methods.values()} == {len(paper.KS)}
    for rows in paper.EDSH_MAP.values():
        assert len(rows) == 9
        assert {len(values) for values in rows.values()} == {len(paper.EDSH_BITS)}


@pytest.mark.parametrize("name", ["SVHN", "NUS-WIDE"])
def test_tables_3_and_4_are_those_of_96_bits(name):
    of_96 = paper.DMIH_SPEEDUPS[name][96]
    places = [paper.KS.index(k) for k in paper.ABLATION_KS]
    for method, values in of_96.items():
        expected = tuple(values[place] for place in places)
        assert paper.DMIH_TWO_STAGE[name][method] == pytest.approx(expected, abs=0.011)  # the slip
        if method == "DMIH":
            assert paper.DMIH_ABLATION[name][method] == expected


@pytest.mark.parametrize(
    ("method", "gain"),
    [("DeSH", 0.0386), ("DNNH", 0.0433), ("DRSCH", 0.0310), ("ensemble", 0.0807)],
)
def test_mean_gain_from_32_to_128_bits(method, gain):
    gains = [rows[method][3] - rows[method][0] for rows in paper.EDSH_MAP.values()]
    assert sum(gains) / 3 == pytest.approx(gain, abs=0.00015)


@pytest.mark.parametrize(("place", "gap"), [(1, 0.0263), (2, 0.0428), (3, 0.0524)])
def test_mean_lead_of_the_ensemble_over_the_best_other(place, gap):
    gaps = []
    for rows in paper.EDSH_MAP.values():
        best = max(values[place] for method, values in rows.items() if method != "ensemble")
        gaps.append(rows["ensemble"][place] - best)
    assert sum(gaps) / 3 == pytest.approx(gap, abs=0.00015)


def test_96_bits_on_imagenet_are_in_both_tables():
    assert paper.EDSH_SHARED["conv3"][1] == paper.EDSH_MAP["ImageNet-100"]["ensemble"][2]
