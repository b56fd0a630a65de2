"""Leakage measurements: attacks on our runs, and audits of our claims, each with the source of its method.

A failed attack is not a proof of privacy: every result states what the attacker needs (`needs`) and what a stronger one would try (`try_next`).
"""

from fedjax_poisson.attacks import insiders
from fedjax_poisson.attacks.audit import AuditedSystem, MechanismAudit, PrivacyClaim, audit_mechanism
from fedjax_poisson.attacks.canaries import (
    CanaryRecords,
    CanaryRun,
    canary_population,
    canary_updates,
    coins,
    craft_records,
    recording,
    run_with_canary_clients,
    run_with_canary_fedavg,
    run_with_canary_records,
)
from fedjax_poisson.attacks.first_layer import (
    FirstLayer,
    dense_gradients,
    plant_imprint,
    read_imprint,
    read_neurons,
    read_single,
)
from fedjax_poisson.attacks.inversion import Inversion, InversionConfig, invert
from fedjax_poisson.attacks.labels import gradients_of, output_bias, recover_label_counts, recover_labels
from fedjax_poisson.attacks.membership import MembershipResult, lira, lira_scores, loss_threshold
from fedjax_poisson.attacks.one_run import (
    OneRunAudit,
    choose_guesses,
    one_run_audit,
    one_run_epsilon,
    one_run_p_value,
)
from fedjax_poisson.attacks.property import SiteAttribution, attribute_sites, leave_one_out
from fedjax_poisson.attacks.results import Rate, binomial_rate, to_json
from fedjax_poisson.attacks.scores import ImageScores, best_match, random_baseline, score_images
from fedjax_poisson.attacks.shadow import (
    balanced_memberships,
    confidences,
    plain_trainer,
    private_trainer,
    train_shadows,
)
from fedjax_poisson.attacks.training import AttackedTraining
from fedjax_poisson.attacks.views import VIEWS, Views, four_views
from fedjax_poisson.attacks.worst_pair import claimed_delta, worst_pair

__all__ = [
    "VIEWS",
    "AttackedTraining",
    "AuditedSystem",
    "CanaryRecords",
    "CanaryRun",
    "FirstLayer",
    "ImageScores",
    "Inversion",
    "InversionConfig",
    "MechanismAudit",
    "MembershipResult",
    "OneRunAudit",
    "PrivacyClaim",
    "Rate",
    "SiteAttribution",
    "Views",
    "attribute_sites",
    "audit_mechanism",
    "balanced_memberships",
    "best_match",
    "binomial_rate",
    "canary_population",
    "canary_updates",
    "choose_guesses",
    "claimed_delta",
    "coins",
    "confidences",
    "craft_records",
    "dense_gradients",
    "four_views",
    "gradients_of",
    "insiders",
    "invert",
    "leave_one_out",
    "lira",
    "lira_scores",
    "loss_threshold",
    "one_run_audit",
    "one_run_epsilon",
    "one_run_p_value",
    "output_bias",
    "plain_trainer",
    "plant_imprint",
    "private_trainer",
    "random_baseline",
    "read_imprint",
    "read_neurons",
    "read_single",
    "recording",
    "recover_label_counts",
    "recover_labels",
    "run_with_canary_clients",
    "run_with_canary_fedavg",
    "run_with_canary_records",
    "score_images",
    "to_json",
    "train_shadows",
    "worst_pair",
]
