"""Data sets for the benchmarks: named images and features, their codes, and synthetic codes."""

from __future__ import annotations

from faiss_dmih.data.binarize import METHODS, Binarizer, binarizer
from faiss_dmih.data.codesets import (
    CodeSet,
    check_bits,
    dataset_codes,
    file_codes,
    synthetic_codes,
)
from faiss_dmih.data.datasets import DATASETS, Dataset, load_dataset, located
from faiss_dmih.data.errors import DataUnavailable, InputError
from faiss_dmih.data.files import cache_dir, search_dirs
from faiss_dmih.data.synthetic import GENERATORS, HELD_OUT, NEAR_DUPLICATE, PLANTED

__all__ = [
    "DATASETS",
    "GENERATORS",
    "HELD_OUT",
    "METHODS",
    "NEAR_DUPLICATE",
    "PLANTED",
    "Binarizer",
    "CodeSet",
    "DataUnavailable",
    "Dataset",
    "InputError",
    "binarizer",
    "cache_dir",
    "check_bits",
    "dataset_codes",
    "file_codes",
    "load_dataset",
    "located",
    "search_dirs",
    "synthetic_codes",
]
