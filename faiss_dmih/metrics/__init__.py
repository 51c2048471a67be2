"""What codes are worth: how well they rank, how they fill hash tables, how much bits repeat.

The figures of the two papers, computed exactly. Ties in distance are the rule with binary codes:
nothing here depends on the order among them. Needs numpy alone; formulas are in docs/methods.md.
"""

from faiss_dmih.metrics.bits import (
    Correlation,
    correlation_matrix,
    distinct_codes,
    mean_absolute_correlation,
)
from faiss_dmih.metrics.ranking import (
    AveragePrecision,
    Curve,
    Ranking,
    WithinRadius,
    mean_average_precision,
    precision_at,
    precision_recall,
    precision_recall_by_radius,
    precision_within_radius,
)
from faiss_dmih.metrics.tables import (
    BucketEntropy,
    BucketHistogram,
    Candidates,
    Probing,
    bucket_entropy,
    bucket_histogram,
    bucket_sizes,
    expected_candidates,
)

__all__ = [
    "AveragePrecision",
    "BucketEntropy",
    "BucketHistogram",
    "Candidates",
    "Correlation",
    "Curve",
    "Probing",
    "Ranking",
    "WithinRadius",
    "bucket_entropy",
    "bucket_histogram",
    "bucket_sizes",
    "correlation_matrix",
    "distinct_codes",
    "expected_candidates",
    "mean_absolute_correlation",
    "mean_average_precision",
    "precision_at",
    "precision_recall",
    "precision_recall_by_radius",
    "precision_within_radius",
]
