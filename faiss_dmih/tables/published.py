"""What the two papers print, as printed. None where a paper prints nothing.

`SLIPS` names what cannot be right in it.
"""

from __future__ import annotations

from collections.abc import Mapping

Numbers = tuple[float, ...]

KS = (1, 2, 5, 10, 20, 50, 100)
"""Of DMIH's Table 1."""
DMIH_BITS = (64, 96, 128, 256)
EDSH_BITS = (32, 64, 96, 128)

DMIH_SPEEDUPS: Mapping[str, Mapping[int, Mapping[str, Numbers]]] = {
    "NUS-WIDE": {
        64: {
            "DMIH": (119.23, 100.37, 87.62, 77.59, 66.75, 50.01, 34.68),
            "DeepHash": (56.17, 55.28, 49.34, 43.79, 36.82, 30.70, 22.71),
        },
        96: {
            "DMIH": (74.59, 60.51, 52.78, 44.02, 41.93, 30.96, 26.08),
            "DeepHash": (40.83, 34.25, 33.08, 20.06, 21.18, 16.61, 12.08),
        },
        128: {
            "DMIH": (60.90, 47.66, 38.79, 35.56, 19.49, 18.85, 17.36),
            "DeepHash": (30.95, 24.00, 21.30, 19.97, 11.82, 10.11, 9.37),
        },
        256: {
            "DMIH": (30.31, 23.91, 22.28, 20.62, 20.72, 16.21, 14.69),
            "DeepHash": (15.24, 12.75, 12.45, 13.42, 12.45, 9.51, 8.62),
        },
    },
    "SVHN": {
        64: {
            "DMIH": (96.39, 63.86, 65.74, 65.76, 64.15, 43.83, 31.95),
            "DeepHash": (10.06, 10.33, 10.29, 10.25, 10.03, 10.93, 9.79),
        },
        96: {
            "DMIH": (92.46, 64.02, 58.08, 54.09, 45.82, 25.48, 20.44),
            "DeepHash": (9.96, 10.01, 9.79, 10.24, 9.71, 9.06, 10.06),
        },
        128: {
            "DMIH": (56.82, 49.35, 22.17, 18.33, 16.33, 17.94, 17.59),
            "DeepHash": (9.12, 9.34, 7.56, 6.21, 6.16, 6.97, 6.39),
        },
        256: {
            "DMIH": (30.27, 23.94, 21.14, 19.46, 17.91, 14.87, 13.19),
            "DeepHash": (7.53, 7.60, 7.02, 7.44, 7.62, 7.20, 7.34),
        },
    },
}
"""Table 1: times as fast as a linear scan, by data set, bits and method, for each k of KS."""

DMIH_ENTROPY: Mapping[str, Mapping[str, Numbers]] = {
    "NUS-WIDE": {"DMIH": (9.72, 9.84, 9.51, 9.39), "DeepHash": (9.23, 9.59, 8.99, 8.97)},
    "SVHN": {"DMIH": (10.40, 10.94, 9.10, 8.17), "DeepHash": (4.06, 4.32, 4.14, 4.11)},
}
"""Table 2: for each of DMIH_BITS."""

ABLATION_KS = (1, 10, 100)
DMIH_ABLATION: Mapping[str, Mapping[str, Numbers]] = {
    "NUS-WIDE": {
        "DMIH": (74.59, 44.02, 26.08),
        "DMIH, feature level": (68.00, 37.64, 22.29),
        "DMIH, instance level": (45.48, 30.22, 17.82),
    },
    "SVHN": {
        "DMIH": (92.46, 54.09, 20.44),
        "DMIH, feature level": (11.73, 10.43, 9.99),
        "DMIH, instance level": (89.73, 50.23, 19.94),
    },
}
"""Table 3, which does not say of how many bits; they are those of 96 bits in Table 1."""

DMIH_TWO_STAGE: Mapping[str, Mapping[str, Numbers]] = {
    "NUS-WIDE": {
        "DMIH": (74.58, 44.02, 26.08),
        "DeepHash": (40.83, 20.06, 12.08),
        "two-stage": (60.55, 29.97, 17.95),
    },
    "SVHN": {
        "DMIH": (92.46, 54.09, 20.44),
        "DeepHash": (9.96, 10.24, 10.06),
        "two-stage": (11.50, 10.40, 10.33),
    },
}
"""Table 4, of 96 bits like Table 3."""

EDSH_MAP: Mapping[str, Mapping[str, Numbers]] = {
    "ImageNet-100": {
        "LSH": (0.2350, 0.3596, 0.4172, 0.4584),
        "KSH": (0.2976, 0.3943, 0.4472, 0.4851),
        "SDH": (0.2804, 0.3897, 0.4592, 0.5016),
        "LFH": (0.2349, 0.3417, 0.4105, 0.4484),
        "CNNH": (0.4498, 0.5038, 0.5294, 0.5380),
        "DeSH": (0.4651, 0.5132, 0.5287, 0.5472),
        "DNNH": (0.4931, 0.5343, 0.5431, 0.5576),
        "DRSCH": (0.4752, 0.5277, 0.5301, 0.5399),
        "ensemble": (0.4946, 0.5631, 0.5831, 0.6156),
    },
    "CIFAR-10": {
        "LSH": (0.2553, 0.2940, 0.3224, 0.3380),
        "KSH": (0.5080, 0.5572, 0.5666, 0.5798),
        "SDH": (0.5140, 0.5520, 0.5644, 0.5879),
        "LFH": (0.2665, 0.3519, 0.4128, 0.4493),
        "CNNH": (0.4720, 0.4990, 0.5133, 0.5370),
        "DeSH": (0.6390, 0.6441, 0.6473, 0.6520),
        "DNNH": (0.6199, 0.6317, 0.6489, 0.6531),
        "DRSCH": (0.6287, 0.6326, 0.6338, 0.6390),
        "ensemble": (0.6421, 0.6622, 0.6989, 0.7051),
    },
    "AwA": {
        "LSH": (0.1870, 0.2249, 0.2617, 0.2889),
        "KSH": (0.3279, 0.3751, 0.4089, 0.4262),
        "SDH": (0.3279, 0.3751, 0.4089, 0.4262),
        "LFH": (0.2420, 0.2977, 0.3472, 0.3689),
        "CNNH": (0.4498, 0.4831, 0.4942, 0.5099),
        "DeSH": (0.5174, 0.5300, 0.5347, 0.5380),
        "DNNH": (0.5285, 0.5484, 0.5577, 0.5607),
        "DRSCH": (0.5010, 0.5075, 0.5159, 0.5190),
        "ensemble": (0.5494, 0.5804, 0.5960, 0.6078),
    },
}
"""Table 1: mAP by data set and method, for each of EDSH_BITS."""

EDSH_SHARED: Mapping[str, Numbers] = {
    "none": (0.5871, 0.6022),
    "conv1": (0.5852, 0.5991),
    "conv2": (0.5793, 0.5942),
    "conv3": (0.5717, 0.5831),
    "conv4": (0.5434, 0.5668),
    "conv5": (0.5173, 0.5412),
    "fc6": (0.4647, 0.5082),
    "fc7": (0.4190, 0.4378),
}
"""Table 2: mAP on ImageNet-100 of six sub-models of 16 bits, pair-wise loss and triplets, by the
last layer that is shared."""

EDSH_MAC_OF_ONE: Mapping[str, Mapping[int, float]] = {"DNNH": {32: 0.52}}
"""Figure 1, as the text has it; on which data it does not say."""

EDSH_MAC: Mapping[str, Mapping[int, float]] = {
    "DNNH": {16: 0.20, 32: 0.38, 128: 0.73},
    "ensemble": {128: 0.25},
}
"""Figure 4, as the text has it, on AwA; of the others the picture alone tells."""

DMIH_SLIPS = (
    "DMIH on NUS-WIDE is 74.59 times as fast in Tables 1 and 3, 74.58 times in Table 4.",
    "The base of the logarithm in Table 2 is not said.",
    "Tables 3 and 4 do not say of how many bits; their DMIH rows are those of 96 bits in Table 1.",
)
EDSH_SLIPS = (
    "On AwA the rows of KSH and SDH in Table 1 are the same, digit by digit.",
    "LFH is printed as LSH in the list of the methods.",
    "The mAC of 32 bits of the triplet loss is 0.52 by the text on Figure 1, and 0.38 by Figure 4.",
)
SLIPS: Mapping[str, tuple[str, ...]] = {"dmih": DMIH_SLIPS, "edsh": EDSH_SLIPS, "beyond": ()}

STAND_INS: Mapping[str, str] = {
    "SVHN": "svhn",
    "NUS-WIDE": "nus-wide",
    "CIFAR-10": "cifar10",
    "AwA": "awa2",
    "ImageNet-100": "imagenet-100",
}
"""Which of our named sets is the paper's, or the nearest to it that is still published."""
