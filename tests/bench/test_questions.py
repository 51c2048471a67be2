from __future__ import annotations

import faiss
import numpy as np
import pytest

import faiss_dmih
from faiss_dmih.bench.questions import Nearest, Within


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 256, (20, 8), dtype=np.uint8)
    xb = centres[rng.integers(0, 20, 3000)]
    xb[:, 0] ^= rng.integers(0, 256, 3000, dtype=np.uint8)
    return xb, xb[:50] ^ np.uint8([0, 0, 0, 1, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def flat(codes):
    index = faiss.IndexBinaryFlat(64)
    index.add(codes[0])
    return index


def assert_equal(answer, other):
    for a, b in zip(answer, other, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("question", [Nearest(7), Within(3), Within(0)])
@pytest.mark.parametrize("batch", [1, 16, 50])
def test_joined_answers_are_those_of_one_call(codes, flat, question, batch):
    ask, xq = question.put_to(flat), codes[1]
    parts = [ask(xq[i : i + batch]) for i in range(0, len(xq), batch)]
    assert_equal(question.join(parts), ask(xq))
    assert question.difference(question.join(parts), ask(xq)) == ""


@pytest.mark.parametrize(("question", "wider"), [(Nearest(3), Nearest(9)), (Within(3), Within(3))])
def test_the_first_answers_are_those_to_the_first_queries(codes, flat, question, wider):
    xq = codes[1]
    assert_equal(question.first(wider.put_to(flat)(xq), 20), question.put_to(flat)(xq[:20]))


@pytest.mark.parametrize("question", [Nearest(5), Within(4)])
def test_the_index_answers_as_flat_does(codes, flat, question):
    index = faiss_dmih.IndexDMIH(64)
    index.add(codes[0])
    answer, truth = (question.put_to(i)(codes[1]) for i in (index, flat))
    assert_equal(answer, truth)
    assert question.difference(answer, truth) == ""
    assert question.recalls(answer, truth) == (1.0, 1.0)


def test_a_missing_answer_within_a_radius_is_found(codes, flat):
    question = Within(3)
    truth = question.put_to(flat)(codes[1])
    counts = np.diff(truth[0])
    q = int(np.flatnonzero(counts > 1)[3])
    last = int(truth[0][q + 1]) - 1
    lims = truth[0].copy()
    lims[q + 1 :] -= np.uint64(1)
    answer = lims, np.delete(truth[1], last), np.delete(truth[2], last)
    message = question.difference(answer, truth)
    assert f"first for query {q}: got {counts[q] - 1}, expected {counts[q]}" in message
    assert question.recalls(answer, truth)[0] == pytest.approx(1 - 1 / len(truth[2]))


def test_a_wrong_answer_within_a_radius_is_found(codes, flat):
    question = Within(3)
    truth = question.put_to(flat)(codes[1])
    q = int(np.flatnonzero(np.diff(truth[0]) > 1)[5])
    place = int(truth[0][q]) + 1
    for array in (1, 2):
        answer = [part.copy() for part in truth]
        answer[array][place] += 1
        message = question.difference(tuple(answer), truth)
        assert f"1 of {len(truth[1])} places, first at query {q}, place 1: got" in message


def test_types_count_within_a_radius_too(codes, flat):
    question = Within(3)
    lims, D, I = question.put_to(flat)(codes[1])
    assert "D is int32" in question.difference((lims, D.astype(np.int32), I), (lims, D, I))
    assert "lims is int64" in question.difference((lims.astype(np.int64), D, I), (lims, D, I))


def test_answers_to_other_queries_are_refused(codes, flat):
    for question in (Nearest(2), Within(2)):
        ask = question.put_to(flat)
        with pytest.raises(ValueError, match="expected"):
            question.recalls(ask(codes[1][:3]), ask(codes[1]))


def test_questions_have_names():
    assert (Nearest(10).text, Within(31).text) == ("k = 10", "radius 31")


def test_another_order_is_equivalent_and_other_codes_are_not(codes, flat):
    for question in (Nearest(7), Within(3)):
        truth = question.put_to(flat)(codes[1])
        *lims, D, I = (array.copy() for array in truth)
        if lims:
            for first, last in zip(lims[0], lims[0][1:], strict=False):
                D[first:last], I[first:last] = D[first:last][::-1], I[first:last][::-1]
        else:
            I[D[:, -1:] == D] = 0  # another choice among ties
        assert question.difference((*lims, D, I), truth)
        assert question.equivalent((*lims, D, I), truth) == ""
        D.flat[5] += 1
        assert "differs from IndexBinaryFlat" in question.equivalent((*lims, D, I), truth)
