"""One site's own records among sites whose records lie elsewhere: what a hospital of a consortium holds.

Every site of a consortium computes with the records of all sites in one rectangle `[S, n, ...]`, in which only its own row is filled. So the code of a run
is the same whether all records lie in one process or each site's in its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np

from fedjax_poisson.data.placement import Placement
from fedjax_poisson.data.sites import Sites


class OneSite(NamedTuple):
    """Whose records a table holds, where no column says so.

    Attributes:
        name: The site.
        among: All S sites, in the order that they have everywhere.
    """

    name: str
    among: tuple[str, ...]

    @property
    def place(self) -> int:
        """Its number, 0..S-1.

        Raises:
            ValueError: It is not one of them.
        """
        if self.name not in self.among:
            raise ValueError(f"{self.name!r} is not one of the sites: {', '.join(self.among)}")
        return self.among.index(self.name)


def among_sites(sites: Sites, one: OneSite) -> Sites:
    """The records of one site as those of one of S.

    Args:
        sites: Records of a single site, whatever it is called.
        one: Its name, and all sites'.

    Raises:
        ValueError: They are of several sites, or the site is not on the list.
    """
    if len(sites.site_names) != 1:
        raise ValueError(
            f"{sites.provenance.name} holds records of {len(sites.site_names)} sites ({', '.join(sites.site_names)}); a site of a consortium brings its "
            "own only"
        )
    return dataclasses.replace(sites, site=_moved(sites.site, one), site_names=one.among, only=one.name)


def placed_among(placement: Placement, one: OneSite) -> Placement:
    """`among_sites` of a placement."""
    return placement._replace(site=_moved(placement.site, one), site_names=one.among)


def joined(parts: list[Sites]) -> Sites:
    """The records of all sites in one container, from what each site holds: what one process must compute with to repeat what they did together.

    Args:
        parts: One for each site, from `among_sites`, with the same columns.

    Raises:
        ValueError: A site is missing or stands twice, or their columns differ.
    """
    first = parts[0]
    if tuple(sorted(str(part.only) for part in parts)) != tuple(sorted(first.site_names)):
        raise ValueError(
            f"parts of {', '.join(str(part.only) for part in parts)} are not one of each site: {', '.join(first.site_names)}"
        )
    for part in parts:
        same = part.feature_names == first.feature_names and part.class_names == first.class_names
        if not same or not np.array_equal(part.feature_bounds, first.feature_bounds):
            raise ValueError(f"{part.only} has other columns or ranges than {first.only}")
    numbered, start = [], 0
    for part in parts:
        numbers = np.unique(part.group, return_inverse=True)[1].astype(np.int64)
        numbered.append(numbers + start)
        start += int(numbers.max()) + 1
    return dataclasses.replace(
        first,
        only=None,
        features=np.concatenate([part.features for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        site=np.concatenate([part.site for part in parts]),
        train=np.concatenate([part.train for part in parts]),
        group=np.concatenate(numbered),
    )


def columns_hash(sites: Sites) -> str:
    """Hexadecimal SHA-256 of what the columns of a table became (names, ranges, kinds, classes): sites can add their sums where it is the same."""
    said = repr(
        (
            sites.feature_names,
            sites.class_names,
            sites.label_bounds,
            sites.unit,
            sites.sites_per_unit,
            sites.features.shape[1:],
        )
    )
    numbers = np.ascontiguousarray(sites.feature_bounds, "<f4").tobytes() + np.packbits(sites.binary).tobytes()
    return hashlib.sha256(said.encode() + numbers).hexdigest()


def _moved(site: np.ndarray, one: OneSite) -> np.ndarray:
    return np.full(len(site), one.place, np.int32)
