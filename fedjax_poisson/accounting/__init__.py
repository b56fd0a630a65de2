"""Privacy accounting on the host, in float64: Renyi curves, sampling, calibration, filters and the ledger."""

from fedjax_poisson.accounting import experimental
from fedjax_poisson.accounting.account import (
    Account,
    AccountedRounds,
    RoundRow,
    account_table,
    make_account,
    round_curve,
    round_table,
)
from fedjax_poisson.accounting.calibration import (
    calibrate_dark_count,
    calibrate_noise_multiplier,
    calibrate_rounds,
    calibrate_skellam_variance,
)
from fedjax_poisson.accounting.chain import MEMORY, LedgerCorrupt, LedgerUnwritable, Pin, Release
from fedjax_poisson.accounting.checks import Adjacency
from fedjax_poisson.accounting.filter import (
    FilterState,
    PrivacyFilter,
    default_filter_order,
    event_budget_filter,
    renyi_filter,
)
from fedjax_poisson.accounting.gaussian import calibrate_gaussian_pld, gaussian_delta, gaussian_pld_epsilon
from fedjax_poisson.accounting.law import Charge, Law, RenyiLaw, TightLaw, meter_in_words, scheduled_epsilon
from fedjax_poisson.accounting.ledger import (
    BudgetExhausted,
    Ledger,
    Remaining,
)
from fedjax_poisson.accounting.memory import memory_ledger
from fedjax_poisson.accounting.opening import never_made, open_ledger, read_ledger
from fedjax_poisson.accounting.participation import Participation
from fedjax_poisson.accounting.price import HasPrice, Price
from fedjax_poisson.accounting.remaining_variance import (
    Cost,
    Embedded,
    Normal,
    VarianceBudget,
    affordable_events,
    cost_from_json,
    cost_to_json,
    embedded_cost,
    fixed_plan_epsilon,
    spend_all,
    spend_variance,
    variance_budget,
)
from fedjax_poisson.accounting.renyi import (
    DEFAULT_ORDERS,
    best_order,
    compose,
    embedding_divergence,
    epsilon,
    epsilon_per_order,
    gaussian_rdp,
    integer_orders,
    poisson_embedding_rdp,
    rdp_budget,
    single_channel_rdp,
)
from fedjax_poisson.accounting.reserve import (
    ATTEMPTS,
    DRAW_DISTANCE,
    SCREENING,
    plan_reserve,
    release_distance,
    reserve_for,
)
from fedjax_poisson.accounting.sampling import subsampled_rdp, without_replacement_rdp
from fedjax_poisson.accounting.skellam import Sensitivity, rounded_sensitivity, skellam_exact_rdp, skellam_rdp
from fedjax_poisson.accounting.tight import (
    Domination,
    calibrate_dark_count_tight,
    dominating_gaussian,
    tight_delta,
    tight_epsilon,
)
from fedjax_poisson.accounting.trade_off import (
    detection,
    detection_of_charges,
    detection_of_rdp,
    detection_of_variance,
)
from fedjax_poisson.accounting.variance_cost import scaled_cost

__all__ = [
    "ATTEMPTS",
    "DEFAULT_ORDERS",
    "DRAW_DISTANCE",
    "MEMORY",
    "SCREENING",
    "Account",
    "AccountedRounds",
    "Adjacency",
    "BudgetExhausted",
    "Charge",
    "Cost",
    "Domination",
    "Embedded",
    "FilterState",
    "HasPrice",
    "Law",
    "Ledger",
    "LedgerCorrupt",
    "LedgerUnwritable",
    "Normal",
    "Participation",
    "Pin",
    "Price",
    "PrivacyFilter",
    "Release",
    "Remaining",
    "RenyiLaw",
    "RoundRow",
    "Sensitivity",
    "TightLaw",
    "VarianceBudget",
    "account_table",
    "affordable_events",
    "best_order",
    "calibrate_dark_count",
    "calibrate_dark_count_tight",
    "calibrate_gaussian_pld",
    "calibrate_noise_multiplier",
    "calibrate_rounds",
    "calibrate_skellam_variance",
    "compose",
    "cost_from_json",
    "cost_to_json",
    "default_filter_order",
    "detection",
    "detection_of_charges",
    "detection_of_rdp",
    "detection_of_variance",
    "dominating_gaussian",
    "embedded_cost",
    "embedding_divergence",
    "epsilon",
    "epsilon_per_order",
    "event_budget_filter",
    "experimental",
    "fixed_plan_epsilon",
    "gaussian_delta",
    "gaussian_pld_epsilon",
    "gaussian_rdp",
    "integer_orders",
    "make_account",
    "memory_ledger",
    "meter_in_words",
    "never_made",
    "open_ledger",
    "plan_reserve",
    "poisson_embedding_rdp",
    "rdp_budget",
    "read_ledger",
    "release_distance",
    "renyi_filter",
    "reserve_for",
    "round_curve",
    "round_table",
    "rounded_sensitivity",
    "scaled_cost",
    "scheduled_epsilon",
    "single_channel_rdp",
    "skellam_exact_rdp",
    "skellam_rdp",
    "spend_all",
    "spend_variance",
    "subsampled_rdp",
    "tight_delta",
    "tight_epsilon",
    "variance_budget",
    "without_replacement_rdp",
]
