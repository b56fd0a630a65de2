from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_poisson.ckks import modular, noise_bound, ntt, packing, parameters
from fedjax_poisson.ckks.parameters import MARGIN, CkksParameters, choose_parameters, sum_bound
from tests.ckks.core import tiny

EIGHT_BITS = {"count_bound": sum_bound(8, 1000), "senders": 1000}


def test_bytes_of_the_announced_setting():
    public = choose_parameters(**EIGHT_BITS)
    seeded = choose_parameters(**EIGHT_BITS, mode="seeded")
    assert public.bytes_per_value <= 5.0 and public.failure == 2.0**-128
    assert seeded.bytes_per_value <= 2.5
    assert (public.degree, public.values_per_coefficient, public.field_bits) == (8192, 10, 18)
    for params in (public, seeded):
        assert math.log2(params.modulus) <= 214 and params.security_bits == 128
        per_row = sum(params.residue_bits) * params.degree / 8 * (2 if params is public else 1)
        assert params.bytes_per_value == pytest.approx(
            per_row / params.values_per_row, rel=1e-3
        )  # the last row is not full


@settings(max_examples=60)
@given(
    bits=st.integers(1, 14),
    senders=st.integers(1, 20_000),
    mode=st.sampled_from(["public_key", "seeded"]),
    values=st.one_of(st.none(), st.integers(1, 3_000_000)),
    guideline=st.sampled_from(["2024", "seal"]),
)
def test_every_choice_is_within_the_guideline_and_exact_by_its_own_bound(bits, senders, mode, values, guideline):
    try:
        params = choose_parameters(
            count_bound=sum_bound(bits, senders),
            senders=senders,
            mode=mode,
            values=values,
            guideline=guideline,
        )
    except ValueError as error:
        assert "would help" in str(error)
        return
    assert math.log2(params.modulus) <= parameters.LIMITS[guideline][params.degree]
    assert params.count_bound < 1 << (params.field_bits - 1)
    assert all(q < 1 << 30 for q in params.moduli)
    bound = noise_bound.noise_bound(
        degree=params.degree,
        senders=senders,
        mode=mode,
        coefficients=params.rows(params.values) * params.degree,
        failure=params.failure,
    )
    assert bound + senders / 2 <= MARGIN * params.step
    assert params.noise_limit < params.step / 2
    assert isinstance(hash(params), int) and params == dataclasses.replace(params)
    if values is not None:
        assert params.values == values


def test_the_choice_is_the_cheapest_of_all_rings():
    """Against a search that knows nothing of the chooser: fields and bits by brute force from the noise bound alone."""
    for mode, polynomials in (("public_key", 2), ("seeded", 1)):
        chosen = choose_parameters(**EIGHT_BITS, mode=mode)
        best = math.inf
        for degree, limit in parameters.LIMITS["2024"].items():
            for fields in range(1, 13):
                rows = -(-parameters.DEFAULT_VALUES // (degree * fields))
                bound = noise_bound.noise_bound(
                    degree=degree, senders=1000, mode=mode, coefficients=rows * degree, failure=2.0**-128
                )
                needed = math.ceil(fields * 18 + math.log2((bound + 500) / MARGIN))
                if needed <= limit:
                    best = min(best, polynomials * needed / 8 / fields)
        assert best <= chosen.bytes_per_value <= best * (1 + 2 / 190)  # primes are not powers of two: two bits at most


def test_short_vectors_get_small_rings():
    small = choose_parameters(**EIGHT_BITS, values=600)
    assert small.degree < 8192
    assert small.bytes_per_value * 600 < 2 * 8192 * 199 / 8


def test_explanation_and_refusals_speak():
    params = choose_parameters(**EIGHT_BITS, guideline="seal")
    assert "SEAL" in params.explanation and "2^-128" in params.explanation and "1000 senders" in params.explanation
    assert "2024 guideline" in choose_parameters(**EIGHT_BITS).explanation
    with pytest.raises(ValueError, match="fewer senders"):
        choose_parameters(count_bound=2**31 - 1, senders=10**60)
    for wrong, message in [
        ({"count_bound": 0}, "count_bound"),
        ({"count_bound": 2**31}, "int32"),
        ({"senders": 0}, "senders"),
        ({"failure": 0.0}, "failure"),
        ({"failure": 1.0}, "failure"),
        ({"mode": "plain"}, "mode"),
        ({"guideline": "1999"}, "guideline"),
        ({"values": 0}, "values"),
        ({"values": 2**31}, "values"),
    ]:
        with pytest.raises(ValueError, match=message):
            choose_parameters(**{**EIGHT_BITS, **wrong})


def test_contradictory_records_are_refused():
    good = tiny()
    for wrong, message in [
        ({"degree": 48}, "power of two"),
        ({"moduli": ()}, "empty"),
        ({"moduli": (good.moduli[0],) * 2}, "distinct"),
        ({"moduli": (good.moduli[0] + 2,)}, "prime"),
        ({"moduli": ntt.primes_below(1 << 32, 64, 1)}, "prime"),
        ({"count_bound": 1 << 20}, "field"),
        ({"values_per_coefficient": 40}, "exceed"),
        ({"special_modulus": good.moduli[0]}, "distinct"),
    ]:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(good, **wrong)
    with pytest.raises(ValueError, match="choose_parameters"):
        choose_parameters(**EIGHT_BITS, values=100).rows(101)
    with pytest.raises(ValueError, match="interchange"):
        CkksParameters(degree=64, moduli=good.moduli).rows(5)


def test_sum_bound_is_the_extreme_sum():
    assert sum_bound(8, 1000) == 128_000
    with pytest.raises(ValueError, match="at least 1"):
        sum_bound(0, 3)


def test_decoding_fails_only_beyond_half_a_step():
    """Noise of every size put in by hand: exact below half a step, wrong above, and the distance is what was put in."""
    params = tiny(degree=64, fields=3, width=18)
    counts = jnp.asarray(np.random.default_rng(3).integers(-(2**17) + 1, 2**17, size=64 * 3), jnp.int32)
    residues = packing.encode(params, counts)
    q = np.asarray(params.moduli, dtype=object)[:, None]
    for part in (-0.49, -0.25, 0.0, 0.25, 0.4375, 0.49, 0.51, -0.51):
        offset = int(part * params.step)
        shift = jnp.asarray((np.full((params.limbs, 64), offset, dtype=object) % q).astype(np.uint32))
        noisy = modular.add(residues, shift[None], modular.constants(params.moduli).q)
        decoded, distance = packing.decode(params, noisy, counts.size)
        assert bool((decoded == counts).all()) == (abs(part) < 0.5)
        assert float(distance) == pytest.approx(min(abs(part), 1 - abs(part)), abs=1e-5)
