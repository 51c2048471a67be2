"""Data sets: for the benchmarks, codes of named sets and synthetic codes; for training encoders,
labelled images and features, and how they are split."""

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
from faiss_dmih.data.folder import image_folder
from faiss_dmih.data.items import Features, Images, Items, listed
from faiss_dmih.data.named import LABELLED, labelled
from faiss_dmih.data.splits import PROTOCOLS, Split, paper_split, share_of_classes, split
from faiss_dmih.data.synthetic import GENERATORS, HELD_OUT, NEAR_DUPLICATE, PLANTED

__all__ = [
    "DATASETS",
    "GENERATORS",
    "HELD_OUT",
    "LABELLED",
    "METHODS",
    "NEAR_DUPLICATE",
    "PLANTED",
    "PROTOCOLS",
    "Binarizer",
    "CodeSet",
    "DataUnavailable",
    "Dataset",
    "Features",
    "Images",
    "InputError",
    "Items",
    "Split",
    "binarizer",
    "cache_dir",
    "check_bits",
    "dataset_codes",
    "file_codes",
    "image_folder",
    "labelled",
    "listed",
    "load_dataset",
    "located",
    "paper_split",
    "search_dirs",
    "share_of_classes",
    "split",
    "synthetic_codes",
]
