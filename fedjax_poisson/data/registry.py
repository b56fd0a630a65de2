"""Data sets by name: what ships inside the package or is made by it, and nothing that is downloaded behind the user's back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fedjax_poisson.data.loaders.heart import load_heart
from fedjax_poisson.data.loaders.thyroid import load_thyroid
from fedjax_poisson.data.phantom.phantom import load_xray

from .sites import Sites

LOADERS: Mapping[str, Callable[..., Sites]] = MappingProxyType(
    {"heart": load_heart, "thyroid": load_thyroid, "xray": load_xray}
)


def load(name: str, **options: Any) -> Sites:
    """Load a data set that ships with the package.

    Args:
        name: "heart", "thyroid", or "xray": SYNTHETIC chest radiographs, made when asked for.
        **options: Passed to that data set's loader (thyroid: label, min_site_records, test_fraction, split_seed; xray:
            patients, sites, size, binary, second_image, test_fraction, seed).

    Returns:
        The records of all sites.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.

    >>> sites = load("heart")
    >>> sites.features.shape, sites.site_names
    ((740, 13), ('Cleveland', 'Hungary', 'Switzerland', 'Long Beach'))
    """
    if name not in LOADERS:
        known = ", ".join(sorted(LOADERS))
        raise ValueError(
            f"no data set called {name!r} ships with the package; there are: {known}. "
            "For your own table use --csv FILE (data.from_csv in Python)"
        )
    return LOADERS[name](**options)
