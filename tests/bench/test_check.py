from __future__ import annotations

import faiss
import numpy as np
import pytest

from faiss_dmih.bench import check

D_TRUE = np.array([[0, 2, 2], [1, 1, 3]], dtype=np.int32)
I_TRUE = np.array([[7, 1, 4], [0, 9, 5]], dtype=np.int64)


def test_equal_answers_have_no_difference():
    assert check.difference(D_TRUE.copy(), I_TRUE.copy(), D_TRUE, I_TRUE) == ""


def test_the_first_difference_is_named():
    I = I_TRUE.copy()
    I[1, 0] = 8
    message = check.difference(D_TRUE, I, D_TRUE, I_TRUE)
    assert "1 of 6 places" in message
    assert "query 1, rank 0: got (D, I) = (1, 8), expected (1, 0)" in message


def test_a_wrong_distance_alone_is_a_difference():
    D = D_TRUE.copy()
    D[0, 2] = 3
    assert "query 0, rank 2" in check.difference(D, I_TRUE, D_TRUE, I_TRUE)


@pytest.mark.parametrize(("D", "I"), [(D_TRUE[:, :2], I_TRUE), (D_TRUE, I_TRUE.astype(np.int32))])
def test_shape_and_type_count_too(D, I):
    assert "expected" in check.difference(D, I, D_TRUE, I_TRUE)


def test_recall_counts_ids_and_distance_recall_counts_distances():
    # Query 0: another code at the k-th distance instead of id 4. Query 1: one slot unfilled.
    I = np.array([[7, 1, 6], [0, 9, -1]], dtype=np.int64)
    D = np.array([[0, 2, 2], [1, 1, 2147483647]], dtype=np.int32)
    assert check.recall(I, I_TRUE) == pytest.approx(4 / 6)
    assert check.distance_recall(D, I, D_TRUE, I_TRUE) == pytest.approx(5 / 6)


def test_codes_too_far_do_not_count():
    D = np.array([[0, 2, 3], [9, 9, 9]], dtype=np.int32)
    assert check.distance_recall(D, I_TRUE, D_TRUE, I_TRUE) == pytest.approx(2 / 6)


def test_slots_that_cannot_be_filled_are_left_out():
    # k > ntotal: FAISS pads with -1 and the largest int32.
    xb = np.array([[0], [1]], dtype=np.uint8)
    flat = faiss.IndexBinaryFlat(8)
    flat.add(xb)
    D, I = flat.search(np.array([[0]], dtype=np.uint8), 5)
    assert check.recall(I, I) == 1.0
    assert check.distance_recall(D, I, D, I) == 1.0
    nothing = np.full_like(I, -1)
    assert check.recall(nothing, I) == 0.0
    assert check.distance_recall(D, nothing, D, I) == 0.0
