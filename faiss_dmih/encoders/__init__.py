"""Encoders: from images or vectors to binary codes that are fast to search. Needs torch.

>>> import numpy as np
>>> from faiss_dmih.encoders import DMIH, Training
>>> rng = np.random.default_rng(0)
>>> labels = np.arange(60) % 3
>>> x = rng.normal(size=(60, 8)) + 3 * np.eye(8)[labels]
>>> encoder = DMIH(16, backbone="features", n=60, training=Training(epochs=1, progress=False))
>>> encoder.fit(x, labels).encode(x).shape
(60, 2)
"""

from faiss_dmih.encoders.backbones import BACKBONES
from faiss_dmih.encoders.cnnh import CNNH
from faiss_dmih.encoders.desh import DeSH
from faiss_dmih.encoders.dmih import DMIH, DeepHash
from faiss_dmih.encoders.dnnh import DNNH
from faiss_dmih.encoders.drsch import DRSCH
from faiss_dmih.encoders.encoder import Encoder, load_encoder
from faiss_dmih.encoders.ensemble import EnsembleDSH
from faiss_dmih.encoders.objective import Objective
from faiss_dmih.encoders.orthohash import OrthoHash
from faiss_dmih.encoders.training import Training

__all__ = [
    "BACKBONES",
    "CNNH",
    "DMIH",
    "DNNH",
    "DRSCH",
    "DeSH",
    "DeepHash",
    "Encoder",
    "EnsembleDSH",
    "Objective",
    "OrthoHash",
    "Training",
    "load_encoder",
]
