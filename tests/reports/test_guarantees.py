"""What a report claims of a run: the reasons against calling it private, the verdict, and whose noise it is."""

from __future__ import annotations

from fedjax_poisson.reports.guarantees import conditions, noise_senders, protection, reasons_against, verdict
from fedjax_poisson.runs.run_folder import read_run
from tests.helpers.example_run import write_example_run


def test_a_private_run_has_no_reason_against_it(tmp_path):
    write_example_run(tmp_path)
    assert reasons_against(read_run(tmp_path)) == []


def test_the_verdict_is_of_the_folder_and_not_what_the_run_wrote_at_its_end(tmp_path):
    write_example_run(tmp_path, public_data=False)
    assert verdict(read_run(tmp_path)) == "private"
    (tmp_path / "leakage.json").write_text("{}")
    assert verdict(read_run(tmp_path)) == "conditional" and protection(read_run(tmp_path)).startswith("conditionally")
    ((_, remedy),) = conditions(read_run(tmp_path))
    for name in ("leakage.json", "leakage_inversion.npz", "figures/leakage_*.png", "fedjax-poisson report RUN"):
        assert name in remedy
    assert verdict(read_run(_written(tmp_path / "seeded", seed=3, public_data=False))) == "not private"


def test_noise_senders_are_counted_where_sites_send_none(tmp_path):
    assert noise_senders(read_run(_written(tmp_path / "own"))) is None
    assert noise_senders(read_run(_written(tmp_path / "norm", noise_senders={"senders": 5, "honest": 3}))) == 5


def _written(folder, **changes):
    write_example_run(folder, **changes)
    return folder
