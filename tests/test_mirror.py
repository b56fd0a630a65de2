"""Where a module's tests are: in a file of its name, tests/ROOM/test_MODULE.py, or in the file that `TESTED_IN` names."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedjax_poisson as fp

PACKAGE, TESTS = Path(fp.__file__).parent, Path(__file__).parent
MODULES = sorted(
    str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")
)

TESTED_IN = {
    # records, errors, parts of one whole, and rooms whose contract suites take all modules at once
    "accounting/chain.py": "accounting/test_ledger_readings.py",
    "accounting/checks.py": "accounting/test_refusals.py",
    "accounting/fixed_plan.py": "accounting/test_remaining_variance.py",
    "accounting/gaussian.py": "accounting/test_tight_values.py",
    "accounting/opening.py": "accounting/test_ledger.py",
    "accounting/price.py": "accounting/test_ledger_readings.py",
    "accounting/variance_cost.py": "accounting/test_variance_drift.py",
    "aggregation/backend.py": "aggregation/test_aggregator.py",
    "aggregation/bare.py": "aggregation/test_round_exact.py",
    "aggregation/bodies.py": "aggregation/test_attacks_members.py",
    "aggregation/committee.py": "aggregation/test_local.py",
    "aggregation/contribution.py": "aggregation/test_client.py",
    "aggregation/deciding.py": "aggregation/test_norm_attacks.py",
    "aggregation/host_shares.py": "aggregation/test_sharing.py",
    "aggregation/judging.py": "aggregation/test_norm_attacks.py",
    "aggregation/noise.py": "aggregation/test_norm_attacks.py",
    "aggregation/norm_member.py": "aggregation/test_norm_attacks.py",
    "aggregation/prover.py": "aggregation/test_norm_attacks.py",
    "aggregation/round_keys.py": "aggregation/test_attacks_terms.py",
    "aggregation/signs.py": "aggregation/test_norm_attacks.py",
    "aggregation/member_shares.py": "aggregation/test_attacks_members.py",
    "aggregation/member_state.py": "aggregation/test_round_restarts.py",
    "aggregation/plain_backend.py": "aggregation/test_aggregator.py",
    "aggregation/refusals.py": "aggregation/test_attacks.py",
    "aggregation/roles.py": "aggregation/test_aggregator.py",
    "aggregation/rows.py": "aggregation/test_round_exact.py",
    "aggregation/server_state.py": "aggregation/test_server.py",
    "aggregation/store_mark.py": "aggregation/test_store.py",
    "aggregation/transcript.py": "runs/test_transcripts.py",
    "attacks/training.py": "attacks/test_shadow.py",
    "benchmarks/aggregation.py": "cli/test_calculations.py",
    "benchmarks/sampling.py": "randomness/test_sampling_benchmark.py",
    "benchmarks/simulation.py": "cli/test_calculations.py",
    "ckks/errors.py": "ckks/test_ciphertext_bytes.py",
    "cli/finished_runs.py": "test_cli.py",
    "cli/training.py": "test_cli.py",
    "data/phantom/lesions.py": "data/phantom/test_phantom.py",
    "data/phantom/patient.py": "data/phantom/test_anatomy.py",
    "data/tables/columns.py": "data/tables/test_tabular.py",
    "data/tables/remedies.py": "test_doctests.py",
    "data/tables/schema.py": "data/tables/test_open_table.py",
    "data/tables/spec.py": "data/tables/test_declarations.py",
    "deployment/flowerapp/client_app.py": "deployment/test_flowerapp.py",
    "deployment/flowerapp/server_app.py": "deployment/test_flowerapp.py",
    "deployment/transport/frames.py": "deployment/transport/test_sockets.py",
    "data/one_site.py": "deployment/test_conduct.py",
    "deployment/consortium_file.py": "cli/test_consortium.py",
    "deployment/coordinator.py": "deployment/test_operator.py",
    "deployment/errors.py": "deployment/test_exchange.py",
    "deployment/expected_terms.py": "deployment/test_exchange.py",
    "deployment/party.py": "deployment/test_exchange.py",
    "deployment/opened_rounds.py": "deployment/test_exchange.py",
    "deployment/proposal.py": "deployment/test_site.py",
    "deployment/requests.py": "deployment/test_exchange.py",
    "deployment/round_at_server.py": "deployment/test_exchange.py",
    "deployment/site_run.py": "deployment/test_conduct.py",
    "federated/checkpoints.py": "runs/test_resume.py",
    "runs/network.py": "deployment/test_conduct.py",
    "runs/shared_ledger.py": "runs/test_resume.py",
    "federated/chunks.py": "federated/test_fedavg.py",
    "federated/cohort.py": "federated/test_fedavg.py",
    "federated/cohort_noise.py": "federated/test_banded.py",
    "federated/control.py": "federated/test_controllers.py",
    "federated/controllers/registry.py": "federated/test_controllers.py",
    "federated/controllers/risk.py": "federated/test_controllers.py",
    "federated/controllers/schedule.py": "federated/test_controllers.py",
    "federated/controllers/settle.py": "federated/test_controllers.py",
    "federated/default_rounds.py": "federated/test_fedavg.py",
    "federated/device_records.py": "federated/test_records.py",
    "federated/each_ciphertext.py": "federated/test_fedavg.py",
    "federated/epochs.py": "federated/test_banded.py",
    "federated/evaluator.py": "federated/test_evaluation.py",
    "federated/federation.py": "federated/test_fedavg.py",
    "federated/folder_lock.py": "runs/test_resume.py",
    "federated/fused.py": "federated/test_fedavg.py",
    "federated/histogram.py": "federated/test_private_columns.py",
    "federated/noisy_histogram.py": "federated/test_private_columns.py",
    "federated/population.py": "federated/test_fedavg.py",
    "federated/release.py": "federated/test_fedavg.py",
    "federated/round_programs.py": "federated/test_fedavg.py",
    "federated/sent.py": "federated/test_fedavg.py",
    "federated/turns.py": "federated/test_banding.py",
    "leakage/attack_runs.py": "leakage/test_leakage.py",
    "leakage/finished_run.py": "leakage/test_leakage.py",
    "leakage/measure.py": "leakage/test_leakage.py",
    "leakage/reconstruction.py": "leakage/test_leakage.py",
    "leakage/registry.py": "leakage/test_leakage.py",
    "leakage/words.py": "leakage/test_leakage.py",
    "mechanisms/sum_law.py": "federated/test_fidelity.py",
    "kept_files.py": "test_traced_programs.py",
    "mechanisms/estimates.py": "mechanisms/test_values.py",
    "mechanisms/experimental.py": "mechanisms/test_contract.py",
    "mechanisms/gaussian.py": "mechanisms/test_contract.py",
    "mechanisms/noise_source.py": "mechanisms/test_committee_noise.py",
    "mechanisms/poisson.py": "mechanisms/test_contract.py",
    "mechanisms/single_channel.py": "mechanisms/test_contract.py",
    "mechanisms/skellam.py": "mechanisms/test_contract.py",
    "mechanisms/types.py": "mechanisms/test_contract.py",
    "randomness/chacha_block.py": "randomness/test_chacha.py",
    "randomness/kernels.py": "randomness/test_chacha.py",
    "randomness/layout.py": "randomness/test_tables.py",
    "reports/accuracy.py": "reports/test_page.py",
    "reports/leakage.py": "leakage/test_leakage.py",
    "reports/page_content.py": "reports/test_report_json.py",
    "reports/privacy.py": "reports/test_page.py",
    "reports/protection.py": "reports/test_page.py",
    "reports/sections.py": "reports/test_page.py",
    "runs/border_control.py": "test_cli.py",
    "runs/build.py": "runs/test_run.py",
    "runs/config.py": "test_bad_input.py",
    "runs/config_checks.py": "test_bad_input.py",
    "runs/earlier_runs.py": "runs/test_verdict.py",
    "runs/load_data.py": "test_bad_input.py",
    "runs/planned.py": "runs/test_run.py",
    "runs/published_scores.py": "reports/test_page.py",
    "runs/recipes.py": "test_cli.py",
    "runs/run_folder.py": "reports/test_page.py",
    "runs/run_ledger.py": "runs/test_resume.py",
    "runs/show.py": "test_cli.py",
    "runs/summary.py": "runs/test_run.py",
    "runs/terminal.py": "test_cli.py",
    "extensions.py": "mechanisms/test_registry.py",
    "federated/sharing_programs.py": "federated/test_sweeps.py",
    "mechanisms/noise_levels.py": "mechanisms/test_registry.py",
    "mechanisms/summed_skellam.py": "mechanisms/test_registry.py",
    "runs/algorithm_entry.py": "runs/test_algorithms.py",
    "runs/loss_facts.py": "runs/test_training_recipe.py",
    "runs/algorithm_registry.py": "runs/test_algorithms.py",
    "runs/client_level.py": "runs/test_algorithms.py",
    "runs/headline.py": "runs/test_label_tasks.py",
    "runs/mechanism_choice.py": "runs/test_algorithms.py",
    "runs/named_models.py": "runs/test_label_tasks.py",
    "runs/record_level.py": "runs/test_algorithms.py",
    "runs/scoring.py": "runs/test_label_tasks.py",
    "runs/training.py": "runs/test_run.py",
}


def own_file(module: str) -> Path:
    """The test file of a module's name."""
    path = Path(module)
    return TESTS / path.parent / f"test_{path.name}"


def misplaced(modules: list[str], table: dict[str, str]) -> list[str]:
    """What is wrong with a list of modules and a table, one line each."""
    found = [
        f"{each}: write {own_file(each).relative_to(TESTS.parent)}, or name the file that tests it in TESTED_IN"
        for each in modules
        if each not in table and not own_file(each).is_file()
    ]
    for each, where in table.items():
        if each not in modules:
            found.append(f"{each}: no such module; take it out of TESTED_IN")
        elif own_file(each).is_file():
            found.append(f"{each}: has a test file of its name; take it out of TESTED_IN")
        if not (TESTS / where).is_file():
            found.append(f"{each}: there is no tests/{where}")
    return found


def test_every_module_is_tested_where_a_reader_looks_for_it() -> None:
    assert misplaced(MODULES, TESTED_IN) == []


@pytest.mark.parametrize(
    ("modules", "table", "words"),
    [
        (["trees.py", "ckks/ntt.py", "ckks/nothing.py"], {}, "ckks/nothing.py: write tests/ckks/test_nothing.py"),
        (["trees.py"], {"ckks/gone.py": "test_trees.py"}, "no such module"),
        (["trees.py"], {"trees.py": "test_cli.py"}, "has a test file of its name"),
        (["ckks/other.py"], {"ckks/other.py": "ckks/test_none.py"}, "there is no tests/ckks/test_none.py"),
    ],
)
def test_a_module_without_tests_and_a_stale_entry_are_found(
    modules: list[str], table: dict[str, str], words: str
) -> None:
    (found,) = misplaced(modules, table)
    assert words in found
