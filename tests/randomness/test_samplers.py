import dataclasses
import functools
import pathlib
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import fedjax_poisson
from fedjax_poisson import randomness
from fedjax_poisson.randomness import layout, samplers
from fedjax_poisson.randomness.table_plan import Level
from tests.helpers.stat import assert_moments, chi_square_pvalue
from tests.randomness.reference import difference_pmf

ONE = 1 << 20
MANY = 10_000_000
LEAST_P, TWIN_P = 1e-6, 1e-9  # a right law fails once in a million runs; the seeds are fixed, so never by chance twice

slow = pytest.mark.slow
LAWS = [
    *[("push_pull", 8.0, 0.05, g) for g in (-ONE, -12345, 0, 1, 777_777, ONE)],
    ("push_pull", 0.01, 0.5, ONE),
    ("push_pull", 2000.0, 0.05, -333_333),
    ("push_pull", 40_000.0, 0.05, ONE),
    pytest.param("push_pull", 1e6, 0.05, 1, marks=slow),
    ("single_channel", 8.0, 0.5, -ONE),
    pytest.param("single_channel", 2000.0, 0.3, 54_321, marks=slow),
    ("poisson", 3.7, None, None),
    pytest.param("poisson", 1e5, None, None, marks=slow),
    ("skellam", 50.0, None, None),
]


@pytest.fixture(scope="module")
def seeded():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randomness.ReproducibleStreamWarning)
        return randomness.stream(seed=3)


def draw(stream, kind, mean, modulation, grid, count):
    if kind in ("poisson", "skellam"):
        tables = getattr(randomness, f"{kind}_tables")(mean)
        return np.asarray(getattr(randomness, kind)(stream, count, tables))
    tables = getattr(randomness, f"{kind}_tables")(dark_count=mean, modulation=modulation)
    return np.asarray(getattr(randomness, kind)(stream, jnp.full((count,), grid, jnp.int32), tables))


def rates(kind, mean, modulation, grid, factor=1.0):
    if kind in ("poisson", "skellam"):
        return factor * mean, factor * mean * (kind == "skellam")
    signal = modulation * grid / ONE
    return factor * mean * (1 + signal), factor * mean * (1 - signal) * (kind == "push_pull")


def histogram(samples, law):
    """Counts of the outcomes of `law` = (lowest outcome, pmf); everything outside is counted at the ends."""
    low, pmf = law
    return np.bincount(np.clip(samples - low, 0, pmf.size - 1), minlength=pmf.size)


def fit(counts, law, modulo=None):
    """Chi-square p-value of the counts, or of their residues."""
    low, pmf = law
    if modulo:
        residue = (np.arange(pmf.size) + low) % modulo
        counts, pmf = (np.bincount(residue, x, modulo) for x in (counts, pmf))
    return chi_square_pvalue(counts, pmf / pmf.sum())


def moment_scores(counts, law):
    """Standard scores of the first four moments about the true mean, with exact standard errors from the law."""
    low, pmf = law
    outcomes = np.arange(pmf.size) + low
    centred = outcomes - pmf @ outcomes
    mean = [pmf @ centred**p for p in range(9)]
    found = [counts @ centred**p / counts.sum() for p in range(5)]
    return [(found[p] - mean[p]) / np.sqrt((mean[2 * p] - mean[p] ** 2) / counts.sum()) for p in range(1, 5)]


@pytest.mark.statistical
@pytest.mark.parametrize(("kind", "mean", "modulation", "grid"), LAWS)
def test_draws_follow_the_exact_law(seeded, kind, mean, modulation, grid):
    samples = draw(randomness.fold_in(seeded, kind, str(grid)), kind, mean, modulation, grid, MANY)
    assert samples.dtype == np.int32 and samples.shape == (MANY,)
    law = difference_pmf(*rates(kind, mean, modulation, grid))
    counts = histogram(samples, law)
    assert fit(counts, law) > LEAST_P
    assert np.abs(moment_scores(counts, law)).max() < 6
    for modulo in (2, 4, 8, 16):
        assert fit(counts, law, modulo) > LEAST_P

    # The twins: rates two per cent off, and a low bit that is lost in one draw of fifty.
    wrong = difference_pmf(*rates(kind, mean, modulation, grid, factor=1.02))
    counts_wrong = histogram(samples, wrong)
    assert fit(counts_wrong, wrong) < TWIN_P
    assert np.abs(moment_scores(counts_wrong, wrong)).max() > 6
    if mean > 1:
        blunted = np.where(np.arange(MANY) % 50 == 0, samples & ~1, samples)
        assert fit(histogram(blunted, law), law, 2) < TWIN_P


@pytest.mark.statistical
@pytest.mark.slow
@pytest.mark.parametrize("mean", [1e7, 1e8])
def test_huge_rates_keep_mean_variance_and_parity(seeded, mean):
    """Where jax.random.poisson has lost its low bits and a third of its variance."""
    samples = draw(randomness.fold_in(seeded, "huge"), "push_pull", mean, 0.05, 999_999, 1 << 21).astype(np.float64)
    signal = 0.05 * 999_999 / ONE
    assert_moments(samples, 2 * mean * signal, 2 * mean, kurtosis=1 / (2 * mean))
    odd = int((samples % 2).sum())
    assert abs(odd - samples.size / 2) < 5 * np.sqrt(samples.size / 4)
    with pytest.raises(AssertionError):
        assert_moments(samples, 2 * mean * signal, 2 * mean * 1.02, kurtosis=1 / (2 * mean))


@pytest.mark.statistical
def test_neighbouring_draws_are_independent(seeded):
    """Draws that share a group of blocks and its lower halves: their products and their joint cells factorise."""
    tables = randomness.push_pull_tables(dark_count=8.0, modulation=0.05)
    count = 1_200_000
    lanes = samplers._tiling(count)[1]
    samples = np.asarray(randomness.push_pull(seeded, jnp.zeros(count, jnp.int32), tables), np.float64)
    planes = samples[: count // (lanes * 16) * lanes * 16].reshape(-1, 16, lanes)
    flat = np.moveaxis(planes, 1, 0).reshape(16, -1)

    def worst(x):
        z = np.corrcoef(x) * np.sqrt(x.shape[1])
        return np.abs(z[np.triu_indices_from(z, 1)]).max()

    assert worst(flat) < 5 and worst(flat**2) < 5
    leaky = flat.copy()
    leaky[1, ::30] = leaky[0, ::30]
    assert worst(leaky) > 5


def test_a_tie_of_the_upper_bits_is_decided_by_the_lower():
    """At every step around a threshold, of a level whose column shares a word and of one whose column does not; undecided without the lower bits."""
    for tables in (randomness.poisson_tables(8.0), randomness.poisson_tables(1e6)):
        (level,) = tables.levels
        bits, origin = level.column_bits, int(np.asarray(tables.origins)[0].astype(np.int32))
        middle, low, entries = (np.asarray(x) for x in (tables.middle, tables.low, tables.entries))
        first, second = entries[: 1 << bits].astype(np.int64), entries[-(1 << bits) :].astype(np.int64)
        tops, aliases = (first >> bits, first & ((1 << bits) - 1)) if level.packed else (first, second)
        inside = [
            (tops > 0) & (tops < tops.max()),
            *((x[: 1 << bits] - np.uint32(1)) < 2**32 - 2 for x in (middle, low)),
        ]
        column = int(np.flatnonzero(np.all(inside, axis=0) & (aliases != np.arange(1 << bits)))[3])
        top, alias = int(tops[column]), int(aliases[column])
        for steps, own in (
            ((0, 0, -1), True), ((0, 0, 0), False), ((0, 0, 1), False), ((0, -1, 1), True), ((0, 1, -1), False),
            ((-1, 1, 1), True), ((1, -1, -1), False),
        ):  # fmt: skip
            upper, *lower = (int(x) + step for x, step in zip((top, middle[column], low[column]), steps, strict=True))
            words = [upper << bits | column] if level.packed else [upper, column]
            first = jnp.asarray(np.array(words, np.uint32)).reshape(-1, 1, 1)
            halves = tuple(jnp.full((1, 1, 1), np.uint32(half)) for half in lower)
            (got,), (tie,) = samplers._levels(tables, [0], first, halves, None)
            assert int(got[0, 0]) == (column if own else alias) + origin
            assert bool(tie[0, 0]) == (steps[0] == 0)
            (guess,), _ = samplers._levels(tables, [0], first, None, None)
            assert bool(tie[0, 0]) or int(guess[0, 0]) == int(got[0, 0])


def test_lower_bits_are_xors_of_the_layouts_words():
    """Against a loop in Python, for levels whose lower bits lie in one and in two blocks."""
    rng = np.random.default_rng(0)
    for column_bits in ((11, 7, 5), (9,) * 9):
        found = layout.choose_layout(column_bits)
        low = rng.integers(0, 1 << 32, (found.low_blocks, 2, 16, 3), np.uint32)
        by_number = np.moveaxis(low, 2, 1).reshape(-1, 2, 3)
        for further in (0, found.second):
            for level in range(len(column_bits)):
                got = np.asarray(samplers._low_words(found, jnp.asarray(low), level, further))
                for draw in range(16):
                    chosen = [by_number[i + further] for i in range(found.second) if found.low[draw][level] >> i & 1]
                    np.testing.assert_array_equal(got[:, draw], functools.reduce(np.bitwise_xor, chosen))


@pytest.mark.parametrize(("mean", "count"), [(8.0, 13), (8.0, 70_000), (1e6, 5000)])
def test_every_device_form_gives_the_same_integers(seeded, mean, count):
    tables = randomness.push_pull_tables(dark_count=mean, modulation=0.05)
    tiles, lanes = samplers._tiling(count)
    grid = jnp.asarray(np.random.default_rng(0).integers(-ONE, ONE + 1, (tiles, 16, lanes)), jnp.int32)
    forms = [
        samplers._tile_by_tile,
        functools.partial(samplers._tile_by_tile, at_need=True),
        samplers._all_at_once,
        functools.partial(samplers._all_at_once, together=True),
    ]
    first, *others = (jax.jit(f, static_argnums=(0, 1))(tiles, lanes, seeded.key, tables, grid) for f in forms)
    for other in others:
        np.testing.assert_array_equal(first, other)
    whole = randomness.push_pull(seeded, grid.ravel()[:count], tables)
    np.testing.assert_array_equal(np.ravel(first)[:count], whole)


FORMS = {
    "at need": functools.partial(samplers._tile_by_tile, at_need=True),
    "tile by tile": samplers._tile_by_tile,
    "all at once": samplers._all_at_once,
    "levels together": functools.partial(samplers._all_at_once, together=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_ties_are_decided_where_they_are_common(seeded, monkeypatch, form):
    """The upper bits cut to ten of them, so that one draw in hundreds ties: drawn at need, and by the lower bits of the same columns read at once."""
    tables = randomness.poisson_tables(300.0)
    (level,) = tables.levels
    plain = samplers._group_words
    kept = jnp.uint32(((1 << 10) - 1) << 22 | ((1 << level.column_bits) - 1))

    def coarse(key, groups, first, lanes, start, blocks, form=None):
        words = plain(key, groups, first, lanes, start, blocks, form)
        number = jnp.arange(start, start + blocks).reshape(-1, 1, 1)
        return jnp.where(number < tables.layout.blocks, words & kept, words)

    # Thresholds between which the cut words can tie: their upper bits cut likewise.
    cut = dataclasses.replace(tables, entries=tables.entries & kept)
    monkeypatch.setattr(samplers, "_group_words", coarse)
    tiles, lanes = 2, 512
    got = FORMS[form](tiles, lanes, seeded.key, cut, None)
    origin = int(np.asarray(tables.origins)[0].astype(np.int32))
    ties = 0
    for tile in range(tiles):
        words = np.asarray(
            coarse(seeded.key, tiles * lanes, jnp.uint32(tile * lanes), lanes, 0, tables.layout.blocks + 1)
        )
        low = jnp.asarray(words[tables.layout.blocks :])
        middle, lowest = (np.asarray(samplers._low_words(tables.layout, low, 0, f)) for f in (0, tables.layout.second))
        first = words[0]
        column = first & ((1 << level.column_bits) - 1)
        entry = np.asarray(cut.entries)[column]
        alias = entry & ((1 << level.column_bits) - 1)

        def number(*parts):
            return functools.reduce(lambda a, b: a.astype(object) * (1 << 32) + b.astype(object), parts)

        uniform = number(first >> level.column_bits, middle, lowest)
        threshold = number(entry >> level.column_bits, np.asarray(cut.middle)[column], np.asarray(cut.low)[column])
        np.testing.assert_array_equal(got[tile], np.where(uniform < threshold, column, alias).astype(np.int64) + origin)
        ties += int((first >> level.column_bits == entry >> level.column_bits).sum())
    assert ties > 5


def _synthetic(rng: np.random.Generator) -> tuple[samplers.SamplingTables, list[np.ndarray], list[np.ndarray]]:
    """Tables of three levels, one of them not packed, whose entries are random: no law, but every part of a draw is told from every other."""
    column_bits, lanes = (14, 6, 5), 40
    plan = layout.choose_layout(column_bits)
    assert True in plan.packed and False in plan.packed
    levels, entries, thresholds, words = [], [], [], None
    words = rng.integers(0, 1 << 32, (plan.blocks, 16, lanes), dtype=np.uint32)
    for number, (bits, packed) in enumerate(zip(column_bits, plan.packed, strict=True)):
        columns, tie, at = 1 << bits, rng.random((16, lanes)) < 0.5, plan.word[number]
        before = sum(1 << earlier.column_bits for earlier in levels)
        entry_offset = sum(len(each) for each in entries)
        levels.append(
            Level(
                shift=0, bits=0, last=True, mirrored=False, rows=1, column_bits=bits, offset=before,
                entry_offset=entry_offset, packed=packed, slope_shift=0,
            )
        )  # fmt: skip
        upper = rng.integers(0, 1 << (32 - (bits if packed else 0)), columns, dtype=np.uint64).astype(np.uint32)
        alias = rng.integers(0, columns, columns, dtype=np.uint32)
        entries.append(upper << np.uint32(bits) | alias if packed else np.concatenate([upper, alias]))
        lower = [rng.integers(0, 1 << 32, columns, dtype=np.uint32) for _ in range(2)]
        thresholds.append(np.stack([upper, alias, *lower]))
        column = words[at if packed else at + 1] & np.uint32(columns - 1)
        tied = upper[column] << np.uint32(bits) | column if packed else upper[column]
        words[at] = np.where(tie, tied, words[at])
    tables = samplers.SamplingTables(
        entries=jnp.asarray(np.concatenate(entries)),
        middle=jnp.asarray(np.concatenate([each[2] for each in thresholds])),
        low=jnp.asarray(np.concatenate([each[3] for each in thresholds])),
        origins=jnp.asarray(rng.integers(-50, 50, 3).astype(np.int32).view(np.uint32)),
        slopes=jnp.zeros(3, jnp.uint32),
        levels=tuple(levels),
        layout=plan,
        kind="push_pull",
    )
    return tables, thresholds, [words, rng.integers(0, 1 << 32, (plan.low_blocks, 16, lanes), dtype=np.uint32)]


def _by_integers(tables, thresholds, words, *, lower_of=None) -> tuple[np.ndarray, np.ndarray]:
    """The draws int64 [16, lanes] and where a level ties, in Python's integers; `lower_of`: the level whose lower words all levels take (a wrong one)."""
    plan, (first, low) = tables.layout, words
    found, tied = np.zeros(first.shape[1:], np.int64), np.zeros(first.shape[1:], bool)
    for j, i in np.ndindex(found.shape):
        for number, level in enumerate(tables.levels):
            at, columns = plan.word[number], 1 << level.column_bits
            word = int(first[at, j, i])
            column = (word if level.packed else int(first[at + 1, j, i])) & (columns - 1)
            upper = word >> level.column_bits if level.packed else word
            own = plan.low[j][number if lower_of is None else lower_of]
            parts = []
            for further in (0, plan.second):
                part = 0
                for k in range(plan.second):
                    if own >> k & 1:
                        part ^= int(low[(k + further) // 16, (k + further) % 16, i])
                parts.append(part)
            threshold, alias, middle, lowest = (int(each[column]) for each in thresholds[number])
            below = (upper, *parts) < (threshold, middle, lowest)
            found[j, i] += (column if below else alias) + int(np.asarray(tables.origins)[number].view(np.int32))
            tied[j, i] |= upper == threshold
    return found, tied


def test_draws_of_several_levels_are_those_of_integers_wherever_a_level_ties():
    tables, thresholds, words = _synthetic(np.random.default_rng(0))
    wanted, tied = _by_integers(tables, thresholds, words)
    assert 0.5 < tied.mean() < 0.99
    apart, together, marked = jax.jit(
        lambda first, low: (
            samplers._group_draws(tables, first, low, None),
            samplers._group_draws(tables, first, low, None, together=True),
            samplers._group_draws(tables, first, None, None),
        )
    )(*words)
    np.testing.assert_array_equal(np.asarray(apart), wanted)
    np.testing.assert_array_equal(np.asarray(together), wanted)
    np.testing.assert_array_equal(np.asarray(marked) & 1, tied)
    np.testing.assert_array_equal((np.asarray(marked) >> 1)[~tied], wanted[~tied])
    for level in range(3):  # the twins: lower words of one level for all of them
        other, _ = _by_integers(tables, thresholds, words, lower_of=level)
        assert (other != wanted).any()


def test_jit_vmap_scan_and_shard_map_give_the_same_integers(seeded):
    tables = randomness.push_pull_tables(dark_count=8.0, modulation=0.05)
    ids = jnp.arange(8, dtype=jnp.uint32)
    grid = jnp.asarray(np.random.default_rng(0).integers(-ONE, ONE + 1, (8, 3, 11)), jnp.int32)

    def one(i, g):
        return randomness.push_pull(randomness.fold_in(seeded, "client", i), g, tables)

    expected = np.stack([one(i, g) for i, g in zip(ids, grid, strict=True)])
    assert expected.shape == (8, 3, 11)
    np.testing.assert_array_equal(jax.jit(jax.vmap(one))(ids, grid), expected)
    np.testing.assert_array_equal(lax.scan(lambda _, x: (None, one(*x)), None, (ids, grid))[1], expected)
    mesh = Mesh(np.array(jax.devices()), ("clients",))

    def local_sum(i, g):
        drawn = jax.vmap(one)(i, g)
        return drawn, lax.psum(drawn.sum(axis=0), "clients")

    spread = jax.jit(jax.shard_map(local_sum, mesh=mesh, in_specs=P("clients"), out_specs=(P("clients"), P())))
    each, total = spread(ids, grid)
    np.testing.assert_array_equal(each, expected)
    np.testing.assert_array_equal(total, expected.sum(axis=0))


PINNED = {
    "push_pull": [11, 5, 5, 8, 2, 8, 1, 6, -2, 8, 4, 2],
    "single_channel": [7, 12, 12, 10, 14, 10, 15, 11, 8, 9, 12, 14],
    "poisson": [6, 5, 6, 9, 9, 9, 10, 8, 7, 8, 7, 9],
    "skellam": [-1, -2, -5, 2, 2, 1, 3, -5, -2, 1, -2, 1],
}


@pytest.mark.parametrize("kind", PINNED)
def test_a_stream_gives_these_integers(seeded, kind):
    """Pinned: a seed stands for the same counts on every device and with every version, so a change of the mapping is a change that must be seen."""
    assert draw(seeded, kind, 8.0, 0.5, 777_777, 12).tolist() == PINNED[kind]


@pytest.mark.parametrize("draws", [1, 4096, 16_384, 16_385, 70_000])
def test_tiles_hold_all_draws_and_are_no_more_than_needed(draws):
    tiles, lanes = samplers._tiling(draws)
    assert 1 <= lanes <= samplers._LANES and tiles * lanes * 16 >= draws
    assert (tiles - 1) * samplers._LANES * 16 < draws and tiles * (lanes - 1) * 16 < draws


@pytest.mark.parametrize("count", [7, 6000])
def test_fixed_rates_are_vmapped_over_streams(seeded, count):
    tables = randomness.poisson_tables(8.0)
    streams = jax.vmap(lambda i: randomness.fold_in(seeded, i))(jnp.arange(3, dtype=jnp.uint32))
    together = jax.jit(jax.vmap(lambda s: randomness.poisson(s, count, tables)))(streams)
    apart = [randomness.poisson(jax.tree.map(lambda leaf, i=i: leaf[i], streams), count, tables) for i in range(3)]
    np.testing.assert_array_equal(together, np.stack(apart))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5, 0, 2), (7, 3)])
def test_shapes_are_kept(seeded, shape):
    tables = randomness.push_pull_tables(dark_count=8.0, modulation=0.05)
    assert randomness.push_pull(seeded, jnp.zeros(shape, jnp.int32), tables).shape == shape
    assert randomness.skellam(seeded, shape, randomness.skellam_tables(8.0)).shape == shape


def test_values_beyond_the_grid_are_clamped_to_it(seeded):
    tables = randomness.push_pull_tables(dark_count=8.0, modulation=0.05)
    inside = randomness.push_pull(seeded, jnp.array([ONE, -ONE] * 50, jnp.int32), tables)
    outside = randomness.push_pull(seeded, jnp.array([ONE + 5, -(2**31)] * 50, jnp.int32), tables)
    np.testing.assert_array_equal(inside, outside)


def test_wrong_inputs_are_refused(seeded):
    push_pull, fixed = randomness.push_pull_tables(dark_count=8.0, modulation=0.05), randomness.poisson_tables(8.0)
    with pytest.raises(TypeError, match="grid is int32"):
        randomness.push_pull(seeded, jnp.zeros(3), push_pull)
    with pytest.raises(ValueError, match="needs push_pull tables"):
        randomness.push_pull(seeded, jnp.zeros(3, jnp.int32), fixed)
    with pytest.raises(ValueError, match="needs single_channel tables"):
        randomness.single_channel(seeded, jnp.zeros(3, jnp.int32), push_pull)
    with pytest.raises(ValueError, match="needs poisson tables"):
        randomness.poisson(seeded, 3, push_pull)
    with pytest.raises(ValueError, match="needs poisson tables"):
        randomness.poisson(seeded, 3, randomness.skellam_tables(8.0))
    with pytest.raises(ValueError, match="fold in a label per part"):
        jax.eval_shape(lambda s: randomness.poisson(s, 1 << 40, fixed), seeded)


INEXACT = re.compile(r"random\s*\.\s*(poisson|binomial)\b")


def test_no_code_path_calls_an_inexact_sampler():
    root = pathlib.Path(fedjax_poisson.__file__).parent
    listed = {pathlib.Path("benchmarks/sampling.py")}  # the comparison line, marked exact=false
    calls = {
        path.relative_to(root)
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if INEXACT.search(line.split("#")[0]) and "(" in line[INEXACT.search(line).end() :][:1]
    }
    assert calls <= listed, f"exact samplers only: {calls - listed}"
    assert INEXACT.search("jax.random.poisson(key, rate)") and INEXACT.search("random . binomial(k)")


def test_nothing_private_draws_from_jax_random():
    root = pathlib.Path(fedjax_poisson.__file__).parent
    for folder in ("randomness", "mechanisms", "ckks"):
        for path in (root / folder).rglob("*.py"):
            assert not re.search(
                r"^[^#`]*\b(jax\.random\.\w+\(|from jax import .*\brandom\b)", path.read_text(), re.M
            ), path
