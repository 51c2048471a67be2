"""IndexDMIH's bases. Their stub tells type checkers what FAISS's Python layer makes of them."""

from faiss import IndexBinary as IndexBinary
from faiss import SearchParameters as SearchParameters
