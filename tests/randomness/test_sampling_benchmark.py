import json

import pytest

from fedjax_poisson.benchmarks import sampling

# The same integers on every device and in every form: also what the benchmark prints on a GPU.
GOLDEN = {8.0: 2046747925, 100.0: 2611161658, 2000.0: 2774095687, 40_000.0: 3770942536}


@pytest.mark.parametrize("dark_count", sampling.DARK_COUNTS)
def test_the_checksum_of_a_fixed_problem_never_changes(dark_count):
    assert sampling.push_pull_checksum(dark_count) == GOLDEN[dark_count]


def test_the_grid_of_the_benchmark_reaches_both_ends_and_stays_inside():
    grid = sampling._grid((2 << 20) + 1)
    assert grid.min() == -(1 << 20) and grid.max() == 1 << 20 and len(set(grid.tolist())) == grid.size


@pytest.mark.long
@pytest.mark.slow
def test_the_benchmark_prints_complete_records(capsys):
    sampling.main(["--quick"])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    named = {r["sampler"]: r for r in records}
    assert set(named) >= {"push_pull", "poisson", "skellam", "chacha20_words", "jax_random_poisson_difference"}
    for record in records:
        keys = {
            "sampler",
            "dark_count",
            "draws",
            "median_s",
            "p10_s",
            "p90_s",
            "draws_per_s",
            "exact",
            "device",
            "date",
        }
        assert keys <= set(record)
        assert record["draws_per_s"] == pytest.approx(record["draws"] / record["median_s"])
        assert record["exact"] is not record["sampler"].startswith("jax_random")
    assert named["push_pull"]["checksum"] == GOLDEN[8.0] and named["push_pull"]["distance"] <= 2.0**-60


@pytest.mark.slow
def test_forms_are_timed_and_one_that_does_not_exist_is_refused_before_any(capsys):
    sampling.main(["--quick", "--forms", "passes"])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["form"] for r in records] == ["passes"] * 3
    with pytest.raises(ValueError, match="unheard-of"):
        sampling.main(["--quick", "--forms", "passes", "unheard-of"])
    assert not capsys.readouterr().out
