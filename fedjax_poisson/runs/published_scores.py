"""Scores that others published for data sets that ship with the package, quoted for comparison with a run.

Source of everything here: J. Ogier du Terrail et al., FLamby: Datasets and Benchmarks for Cross-Silo Federated Learning
in Realistic Healthcare Settings, NeurIPS 2022, and the result files in its repository (owkin/FLamby at edacf54; means
over 5 seeds).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class PublishedScore(NamedTuple):
    """One published result.

    Attributes:
      method: the authors' name for it.
      mean_client_accuracy: mean over the sites' test sets.
      deviation: standard deviation over seeds, or None.
      pooled_accuracy: on the union of the test sets, or None.
      by_site: accuracy by site, empty where not published.
    """

    method: str
    mean_client_accuracy: float
    deviation: float | None = None
    pooled_accuracy: float | None = None
    by_site: Mapping[str, float] = {}


class Published(NamedTuple):
    """What was published about one data set.

    Attributes:
      by: source of the results, in one word.
      source: full reference.
      caveats: what a reader must know before comparing, one sentence each.
      pooled: the reference without federation.
      federated: the reference with federation.
      others: more results, for the table.
    """

    by: str
    source: str
    caveats: tuple[str, ...]
    pooled: PublishedScore
    federated: PublishedScore
    others: tuple[PublishedScore, ...]


def _hospitals(*accuracies: float) -> dict[str, float]:
    return dict(zip(("Cleveland", "Hungary", "Switzerland", "Long Beach"), accuracies, strict=True))


_HEART = Published(
    by="FLamby",
    source="J. Ogier du Terrail et al., FLamby, NeurIPS 2022, results on Fed-Heart-Disease (repository owkin/FLamby "
    "at edacf54, 5 seeds)",
    caveats=(
        "The patients and the split into training and test records are the same; the training recipe and the "
        "preprocessing are not.",
        "FLamby standardises the features of each hospital with that hospital's own mean and standard deviation. This "
        "run uses one mean and one standard deviation for all hospitals, computed privately. The column without "
        "privacy shows what this recipe achieves by itself: a higher score here than FLamby's is due to the recipe, "
        "not to privacy or encryption.",
        "FLamby's private runs add noise at every hospital separately, so that even one hospital's update, seen in "
        "the clear, is private. Here the hospitals share the noise, and encryption hides individual updates. "
        "Theirs is the stronger guarantee at the same epsilon, and it costs accuracy.",
    ),
    pooled=PublishedScore("pooled training, no privacy", 0.735, 0.003, 0.795, _hospitals(0.783, 0.764, 0.750, 0.644)),
    federated=PublishedScore("FedAvg, no privacy", 0.685, 0.028, 0.748, _hospitals(0.731, 0.719, 0.650, 0.640)),
    others=(
        PublishedScore(
            "FedAdagrad, no privacy (their best federated)", 0.731, 0.013, 0.779, _hospitals(0.760, 0.753, 0.738, 0.676)
        ),
        PublishedScore("FedAvg, record-level privacy, epsilon 0.1, delta 1e-4", 0.606),
        PublishedScore("FedAvg, record-level privacy, epsilon 1, delta 1e-4", 0.685),
        PublishedScore("FedAvg, record-level privacy, epsilon 5, delta 1e-4", 0.704),
    ),
)

_PUBLISHED: Mapping[str, Published] = {"heart": _HEART}


def published(dataset: object) -> Published | None:
    """Published results for a data set, or None if there are none to compare with."""
    return _PUBLISHED.get(dataset) if isinstance(dataset, str) else None
