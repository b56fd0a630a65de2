"""SYNTHETIC chest radiographs of several sites: a physical phantom that makes imaging work where no data can be shipped.

Labels: 0 normal, 1 focal consolidation, 2 bilateral peripheral ground-glass. Every patient is a random geometry
(`anatomy`) with at most one disease (`lesions`), photographed by the machine of their site
(`acquisition`). No picture shows a person, nothing was learned from real pictures, and no score on them is a
diagnostic claim. Sites differ in machine and in how common the diseases are; inside a site neither the machine nor the
anatomy depends on the label, so that only the lungs can tell. The photon noise in the pixels is physics and NOT a
privacy mechanism (see `acquisition`).

Cost of a pixel, counted by the compiler: 605 operations and 16 roots and exponentials for tissue and fluence, 60 and 4
for blur and display; and one Poisson draw, 30 ns on one core, which is the largest part. At 64 x 64 on two cores that
is a floor of about 0.12 ms a picture (`experiments/phantom_gallery.py --check` measures the speed).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.data.images.arrays import from_image_arrays
from fedjax_poisson.data.phantom.acquisition import SCANNERS, Scanner, count_photons, develop, fluence, jitter
from fedjax_poisson.data.phantom.anatomy import chest, depths, grid
from fedjax_poisson.data.phantom.lesions import CLASSES, draw_lesion, filled
from fedjax_poisson.data.phantom.patient import draw_anatomy, draw_pose
from fedjax_poisson.data.sites import Sites

SIZES = (32, 128)
# Pictures of one compiled call: large enough to keep two cores busy, small enough for the cache.
_CHUNK = 64
# Normal, focal, bilateral; the first six sites.
_PREVALENCE = (
    (0.55, 0.25, 0.20),
    (0.70, 0.18, 0.12),
    (0.30, 0.30, 0.40),
    (0.45, 0.40, 0.15),
    (0.62, 0.23, 0.15),
    (0.38, 0.20, 0.42),
)
_MOST_SITES = 26
_WARNING = (
    "SYNTHETIC pictures of a geometric phantom: a score on them says how a method learns, nothing about radiographs of "
    "people; no diagnostic claim follows"
)


def load_xray(
    *,
    patients: int = 240,
    sites: int = 6,
    size: int = 64,
    binary: bool = False,
    second_image: float = 0.25,
    test_fraction: float = 0.25,
    seed: int = 0,
) -> Sites:
    """Make the synthetic chest radiographs of several sites.

    Args:
        patients: Patients at each site.
        sites: Number of sites, 1 to 26. The first six have a machine and a prevalence of their own making, further ones
            draw theirs between these.
        size: Side in pixels, 32 to 128.
        binary: Whether label 1 means either disease, and 0 none; else the three classes.
        second_image: Share of patients with a second picture: another stance, another exposure, the same disease weaker
            or stronger.
        test_fraction: Fraction of each site's patients held out.
        seed: Decides everything. The same seed gives the same pictures on the same version of NumPy and JAX.

    Returns:
        Images float32 `[n, size, size, 1]` in 0..1, dense tissue bright; the patient is the privacy unit and never on
        both sides of the split.

    Raises:
        ValueError: An argument is out of range.

    >>> tiny = load_xray(patients=2, sites=2, size=32, second_image=0.0, test_fraction=0.5)
    >>> tiny.features.shape, tiny.unit, tiny.site_names
    ((4, 32, 32, 1), 'patient', ('A digital', 'B film'))
    """
    if patients < 1 or not 1 <= sites <= _MOST_SITES:
        raise ValueError(
            f"patients is {patients} and sites {sites}; expected at least 1 patient and 1 to {_MOST_SITES} sites"
        )
    if not 0 <= second_image <= 1:
        raise ValueError(f"second_image is {second_image}; expected a share of the patients, 0 to 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; expected 0 to 2^32 - 1")
    generator = np.random.default_rng([seed, 0])
    scanners, prevalence = _sites(sites, generator)
    of_site, disease = np.repeat(np.arange(sites), patients), np.empty(sites * patients, np.int32)
    for s in range(sites):
        disease[s * patients : (s + 1) * patients] = generator.choice(len(CLASSES), patients, p=prevalence[s])
    twice = generator.random(sites * patients) < second_image
    person = np.repeat(np.arange(sites * patients), 1 + twice)
    pixels = render(disease[person], person, of_site[person], list(scanners.values()), size=size, seed=seed)
    names = np.array(list(scanners))[of_site[person]]
    labels = disease[person]
    made = from_image_arrays(
        pixels,
        np.minimum(labels, 1) if binary else labels,
        classes=("no pneumonia", "pneumonia") if binary else CLASSES,
        name="xray",
        source="SYNTHETIC: made by fedjax_poisson.data.phantom.phantom, no real picture and no diagnostic claim",
        site=names,
        patient=[f"{p:07d}" for p in person],
        min_site_records=1,
        test_fraction=test_fraction,
        split_seed=seed,
        notes=(
            f"SYNTHETIC phantom, seed {seed}: {patients} patients at each of {sites} sites, "
            f"{int(twice.sum())} of them with two pictures",
            "sites differ in machine (photons, hardness, scatter, blur, display, field) and in prevalence "
            f"({'; '.join(_shares(name, prevalence[s]) for s, name in enumerate(scanners))})",
            "photon noise in the pixels is physics, not a privacy mechanism",
        ),
        warnings=(_WARNING,),
    )
    licence = "Apache-2.0, as the program that makes it"
    return dataclasses.replace(made, provenance=dataclasses.replace(made.provenance, licence=licence))


def render(
    labels: np.ndarray,
    patient: np.ndarray,
    site: np.ndarray,
    scanners: Sequence[Scanner],
    *,
    size: int = 64,
    seed: int = 0,
) -> np.ndarray:
    """Pictures of given patients at given sites.

    Args:
        labels: int32 `[n]`: 0 normal, 1 focal, 2 bilateral.
        patient: Integers `[n]`; the same number is the same anatomy and the same lesion in every picture.
        site: Integers `[n]`, which scanner.
        scanners: The sites' machines.
        size: Side in pixels, 32 to 128.
        seed: Decides everything else, 0 to 2^32 - 1.

    Returns:
        float32 `[n, size, size]` in 0..1.

    Raises:
        ValueError: The size, the seed or a label is out of range.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; expected 0 to 2^32 - 1")
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size is {size}; expected {SIZES[0]} to {SIZES[1]} pixels")
    labels, patient, site = (np.asarray(a, np.int32) for a in (labels, patient, site))
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(CLASSES):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; expected 0..{len(CLASSES) - 1}: {CLASSES}")
    table = np.array(scanners, np.float32)
    pictures = np.empty((len(labels), size, size), np.float32)

    def one_chunk(start: int) -> None:
        # Every chunk has the same shape, so that there is one compiled program: the last one repeats its last row.
        rows = np.minimum(np.arange(start, start + _CHUNK), len(labels) - 1)
        settings, trunk, expected = _expose(
            np.uint32(seed),
            patient[rows],
            np.arange(start, start + _CHUNK, dtype=np.int32),
            labels[rows],
            table[site[rows]],
            size,
        )
        counts = count_photons(np.asarray(expected), np.random.default_rng([seed, 1, start]))
        pictures[start : start + _CHUNK] = np.asarray(_develop(settings, counts, trunk))[: len(labels) - start]

    # Both NumPy's sampler and the compiled programs run outside Python's lock.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(one_chunk, range(0, len(labels), _CHUNK)))
    return pictures


@functools.partial(jax.jit, static_argnames="size")
def _expose(
    seed: jax.Array, patient: jax.Array, picture: jax.Array, label: jax.Array, machine: jax.Array, size: int
) -> tuple[Scanner, jax.Array, jax.Array]:
    """Settings, trunk depth and expected photons of a chunk of pictures."""
    root = jax.random.key(seed)

    def one(
        person: jax.Array, number: jax.Array, kind: jax.Array, settings: jax.Array
    ) -> tuple[Scanner, jax.Array, jax.Array]:
        body, disease = jax.random.split(jax.random.fold_in(jax.random.fold_in(root, 0), person))
        stance, exposure, day = jax.random.split(jax.random.fold_in(jax.random.fold_in(root, 1), number), 3)
        anatomy, pose = draw_anatomy(body), draw_pose(stance)
        x, y = grid(pose, size)
        view = chest(anatomy, pose, x, y, 2 / size)
        strength = jax.random.uniform(day, (), jnp.float32, minval=0.8, maxval=1.2)
        water, bone = depths(view, filled(draw_lesion(disease), kind, strength, view, x, y))
        used = jitter(Scanner(*settings), exposure)
        return used, anatomy.body_depth, fluence(used, water, bone, anatomy.body_depth)

    return jax.vmap(one)(patient, picture, label, machine)


_develop = jax.jit(jax.vmap(develop))


def _sites(count: int, generator: np.random.Generator) -> tuple[dict[str, Scanner], np.ndarray]:
    """Machines by name, and prevalences float64 `[count, 3]`."""
    known = np.array(list(SCANNERS.values()))
    scanners = dict(list(SCANNERS.items())[:count])
    prevalence = list(_PREVALENCE[:count])
    for s in range(len(scanners), count):
        drawn = generator.uniform(known.min(axis=0), known.max(axis=0))
        drawn[0] = np.exp(generator.uniform(*np.log([known[:, 0].min(), known[:, 0].max()])))
        scanners[f"{chr(ord('A') + s)} drawn"] = Scanner(*drawn.tolist())
        prevalence.append(tuple(generator.dirichlet((5.0, 2.5, 2.5))))
    return scanners, np.array(prevalence)


def _shares(name: str, shares: np.ndarray) -> str:
    return f"{name} {' / '.join(f'{share:.0%}' for share in shares)}"
