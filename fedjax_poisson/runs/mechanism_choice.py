"""Whether the chosen mechanism fits the encryption, the privacy unit, the law of the ledger and the schedule; what does not is refused with a way out."""

from __future__ import annotations

from fedjax_poisson.aggregation.parameters import default_malicious, least_threshold
from fedjax_poisson.mechanisms.registry import Law, MechanismEntry
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.training_recipe import TrainingRecipe


def check_mechanism(config: Config, kind: MechanismEntry, level: str) -> None:
    """Refuse a mechanism that the encryption, or the privacy unit, does not fit."""
    if not kind.integer and config.aggregator != "plain":
        raise ValueError(
            f"mechanism={config.mechanism!r} sends real numbers, and only integers have an exact encrypted sum: choose an integer mechanism "
            "(poisson_embedding, skellam), or --aggregator plain, which encrypts nothing and is not private."
        )
    rate = config.sampling_rate
    if kind.noise_by == "committee" and rate is not None and rate < 1:
        raise ValueError(
            f"sampling_rate={rate:g} with mechanism={config.mechanism!r}: norm rounds leave clients out by what they send, and the amplified price "
            "needs a set of senders that does not depend on the secret sample; leave sampling_rate out."
        )
    if not kind.sums and level == "record":
        raise ValueError(
            f"mechanism={config.mechanism!r} bounds one contribution of a sender, and here a site sums those of many records: choose poisson_embedding or "
            "skellam, or --algorithm fedavg, whose clients send one update each."
        )


def noise_senders_of(config: Config) -> tuple[int, int]:
    """l and h of a mechanism whose noise the committee sends: all m members, of whom m - t + 1 are counted on, since t - 1 may pool what they hold."""
    members = config.members
    return members, members - least_threshold(members, default_malicious(members)) + 1


def only_law(config: Config, recipe: TrainingRecipe, kind: MechanismEntry, law: Law | None) -> Law | None:
    """The law that the releases must be charged by; None where there is a choice."""
    if recipe.sampling_rate < 1:
        if law == "tight":
            raise ValueError(
                f"sampling_rate={recipe.sampling_rate:g} needs a ledger of Renyi curves, and the shared ledger accounts by remaining variance: set "
                "sampling_rate=1, or use another ledger."
            )
        law = "renyi"
    if law is not None and law not in kind.laws:
        why = (
            "the shared ledger accounts by remaining variance: use another ledger"
            if law == "tight"
            else "Renyi curves are what is charged here (a shared ledger of them, or sampling_rate below 1)"
        )
        raise ValueError(
            f"mechanism={config.mechanism!r} states no cost by the law {law!r} (it has: {', '.join(kind.laws)}), and {why}, or choose poisson_embedding."
        )
    return law or (kind.laws[0] if len(kind.laws) == 1 else None)


def noise_portions(
    config: Config, recipe: TrainingRecipe, kind: MechanismEntry, steered: bool
) -> tuple[int, ...] | None:
    """The most portions of the noise that each round may use, as the recipe's controller announces them; None where all of it comes in one piece."""
    if not steered:
        if config.controller not in (None, "constant"):
            raise ValueError(
                f"controller={config.controller!r} steers fedsgd, and algorithm={config.algorithm!r} takes no controller; leave it out."
            )
        return None
    if kind.portions or recipe.portions is None:
        return recipe.portions
    if config.controller is not None:
        raise ValueError(
            f"controller={config.controller!r} changes the noise from round to round, and mechanism={config.mechanism!r} comes with all of its noise in one "
            "piece: take --controller constant or settle, or --mechanism poisson_embedding."
        )
    return None
