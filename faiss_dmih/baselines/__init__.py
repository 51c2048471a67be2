"""Hashing methods that others are compared with, as scikit-learn estimators on feature vectors.

`fit` learns, `transform` gives packed codes for FAISS's binary indexes. Without labels: `LSH`,
`ITQ`, `SH`; with labels: `ITQCCA`, `KSH`, `SDH`, `LFH`. The deep ones (CNNH, DeSH, DNNH, DRSCH) are
encoders: `faiss_dmih.encoders`. Needs FAISS and scikit-learn:
`pip install 'faiss-dmih[cpu,bench]'`.

>>> import numpy as np
>>> from faiss_dmih.metrics import mean_average_precision
>>> y = np.arange(300) % 3
>>> x = np.random.default_rng(0).normal(size=(300, 8)) + 2 * np.eye(3, 8)[y]
>>> found = {}
>>> for hashing in (LSH(16, random_state=0), ITQCCA(16, random_state=0)):
...     codes = hashing.fit(x[:200], y[:200]).transform(x)
...     ap = mean_average_precision(codes[:200], codes[200:], y[:200], y[200:])
...     found[type(hashing).__name__] = ap.value
>>> found["LSH"] < found["ITQCCA"]
True
"""

from faiss_dmih.baselines.base import HashingEstimator
from faiss_dmih.baselines.itq import ITQ
from faiss_dmih.baselines.itq_cca import ITQCCA
from faiss_dmih.baselines.ksh import KSH
from faiss_dmih.baselines.lfh import LFH
from faiss_dmih.baselines.lsh import LSH
from faiss_dmih.baselines.sdh import SDH
from faiss_dmih.baselines.sh import SH

__all__ = ["ITQ", "ITQCCA", "KSH", "LFH", "LSH", "SDH", "SH", "HashingEstimator"]
