"""Federated algorithms as pure functions: many clients in one program, sites with record- or patient-level privacy, private sums."""

from fedjax_poisson.federated import controllers, liar_bound, robust_rules, vote_plan
from fedjax_poisson.federated.algorithm import Algorithm, Info, dimension_of, fedsgd
from fedjax_poisson.federated.banded import BandedState
from fedjax_poisson.federated.banding import Banding, banding
from fedjax_poisson.federated.budget import Budgeted, calibrate
from fedjax_poisson.federated.chunks import Chunking
from fedjax_poisson.federated.client import (
    Client,
    Examples,
    Schedule,
    Shared,
    local_optimizer,
    local_sgd,
    mean_loss,
    scaffold,
)
from fedjax_poisson.federated.client_recipe import ClientRecipe, client_recipe
from fedjax_poisson.federated.cohort_plan import CohortPlan, open_budget, parameter_weights, plan_cohorts
from fedjax_poisson.federated.device_records import population_of, records_of
from fedjax_poisson.federated.evaluator import evaluator
from fedjax_poisson.federated.fedavg import RoundInfo, fedavg
from fedjax_poisson.federated.federation import FedState
from fedjax_poisson.federated.fit import Fitted, Round, fit
from fedjax_poisson.federated.insiders import Attack, Insiders, Sight
from fedjax_poisson.federated.noise_schedule import tail_average_portions
from fedjax_poisson.federated.population import (
    Cohort,
    Population,
    cohort_blocks,
    make_cohort,
    make_population,
    sampled_cohorts,
)
from fedjax_poisson.federated.private_sum import SumInfo, private_sum
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.saved_model import Predictions, SavedModel, load_model, predict, save_model
from fedjax_poisson.federated.server import Paced, Server, State
from fedjax_poisson.federated.spread import RoundLost, client_mesh, first_process_gate, shared_stream
from fedjax_poisson.federated.standardize import Scaler, bounds_scaler, private_scaler
from fedjax_poisson.federated.turns import FixedCohorts, fixed_cohorts
from fedjax_poisson.federated.validation_vote import with_vote
from fedjax_poisson.federated.vote_plan import VotePlan

__all__ = [
    "Algorithm",
    "Attack",
    "BandedState",
    "Banding",
    "Budgeted",
    "Chunking",
    "Client",
    "ClientRecipe",
    "Cohort",
    "CohortPlan",
    "Examples",
    "FedState",
    "Fitted",
    "FixedCohorts",
    "Info",
    "Insiders",
    "Paced",
    "Population",
    "Predictions",
    "Records",
    "Round",
    "RoundInfo",
    "RoundLost",
    "SavedModel",
    "Scaler",
    "Schedule",
    "Server",
    "Shared",
    "Sight",
    "State",
    "SumInfo",
    "VotePlan",
    "banding",
    "bounds_scaler",
    "calibrate",
    "client_mesh",
    "client_recipe",
    "cohort_blocks",
    "controllers",
    "dimension_of",
    "evaluator",
    "fedavg",
    "fedsgd",
    "first_process_gate",
    "fit",
    "fixed_cohorts",
    "liar_bound",
    "load_model",
    "local_optimizer",
    "local_sgd",
    "make_cohort",
    "make_population",
    "mean_loss",
    "open_budget",
    "parameter_weights",
    "plan_cohorts",
    "population_of",
    "predict",
    "private_scaler",
    "private_sum",
    "records_of",
    "robust_rules",
    "sampled_cohorts",
    "save_model",
    "scaffold",
    "shared_stream",
    "tail_average_portions",
    "vote_plan",
    "with_vote",
]
