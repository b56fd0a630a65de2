"""The attacks of insiders by name: one record each, and `module:name` of one of the user's own.

Another attack is a function of a `Setting` in a file, and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fedjax_poisson.attacks.insiders import boosting, colluding, free_riding, hiding, overflowing, poisoning
from fedjax_poisson.attacks.insiders.setting import InsiderAttack, Setting, needed
from fedjax_poisson.extensions import find
from fedjax_poisson.federated.insiders import Attack

_CLIP = "the clip: one clip a client and round, whatever its records; not prevented"
_LENGTH = "light rounds: only the round's bound on counts; norm rounds: a few clips a client"


def _patch(setting: Setting) -> Attack:
    return poisoning.backdoor_patch(setting.patch, setting.goal, setting.share)


def _rare(setting: Setting) -> Attack:
    return poisoning.backdoor_rare_value(setting.column, setting.value, setting.goal, setting.share)


def _patched(setting: Setting, x: Any) -> Any:
    return poisoning.stamped(x, setting.patch)


def _valued(setting: Setting, x: Any) -> Any:
    return poisoning.with_value(x, setting.column, setting.value)


ATTACKS: Mapping[str, InsiderAttack] = MappingProxyType(
    {
        "label_flip": InsiderAttack(
            "every label becomes classes - 1 - label",
            "Tolpegin et al. 2020, arXiv:2007.08432",
            "nothing",
            _CLIP,
            lambda setting: poisoning.label_flip(setting.classes),
        ),
        "sign_flip": InsiderAttack(
            "sends its update times -1, unclipped",
            "Li et al. 2019, arXiv:1811.03761",
            "nothing",
            _LENGTH,
            lambda setting: boosting.scaled(-1.0, "sign_flip"),
        ),
        "scale_10": InsiderAttack(
            "sends its update times -10, unclipped",
            "Bagdasaryan et al. 2020, arXiv:1807.00459",
            "nothing",
            _LENGTH,
            lambda setting: boosting.scaled(-10.0, "scale_10"),
        ),
        "scale_50": InsiderAttack(
            "sends its update times -50, unclipped",
            "Bagdasaryan et al. 2020, arXiv:1807.00459",
            "nothing",
            _LENGTH,
            lambda setting: boosting.scaled(-50.0, "scale_50"),
        ),
        "model_replacement": InsiderAttack(
            "trains a backdoor (rare value) and sends it senders / corrupt times",
            "Bagdasaryan et al. 2020, arXiv:1807.00459, equation 3",
            "the number of senders; a model near convergence",
            _LENGTH,
            lambda setting: boosting.model_replacement(setting.senders, setting.corrupt, _rare(setting)),
            targeted=True,
            trigger=_valued,
        ),
        "model_replacement_patch": InsiderAttack(
            "trains a backdoor (patch) and sends it senders / corrupt times",
            "Bagdasaryan et al. 2020, arXiv:1807.00459, equation 3",
            "the number of senders; a model near convergence",
            _LENGTH,
            lambda setting: boosting.model_replacement(setting.senders, setting.corrupt, _patch(setting)),
            targeted=True,
            trigger=_patched,
        ),
        "backdoor_patch": InsiderAttack(
            "a bright square in a share of its images, with a chosen label",
            "Gu et al. 2017, arXiv:1708.06733",
            "that records are images",
            _CLIP + "; the vote does not see it",
            _patch,
            targeted=True,
            trigger=_patched,
        ),
        "backdoor_rare_value": InsiderAttack(
            "a rare value in one column of a share of its rows, with a chosen label",
            "Xie et al. 2020, DBA, ICLR",
            "one column's range",
            _CLIP + "; the vote does not see it",
            _rare,
            targeted=True,
            trigger=_valued,
        ),
        "free_rider_zero": InsiderAttack(
            "sends the embedding of zero",
            "Lin et al. 2019, arXiv:1911.12560",
            "nothing",
            "1/n of the mean is missing; not prevented",
            lambda setting: free_riding.zero(),
        ),
        "free_rider_noise": InsiderAttack(
            "sends a random vector as long as the clip",
            "Lin et al. 2019, arXiv:1911.12560",
            "the clip",
            "one clip in a random direction; not prevented",
            lambda setting: free_riding.noise(setting.clip_norm),
        ),
        "free_rider_stale": InsiderAttack(
            "sends an old update again",
            "Fraboni et al. 2021, arXiv:2006.11901",
            "to have trained once",
            _CLIP,
            lambda setting: free_riding.stale(needed(setting, "old_update")),
        ),
        "little_is_enough": InsiderAttack(
            "sends mean - z std of the insiders' own updates",
            "Baruch et al. 2019, arXiv:1902.06156",
            "two or more insiders that pool their records",
            _LENGTH,
            lambda setting: hiding.little_is_enough(setting.senders, setting.corrupt),
        ),
        "inner_product": InsiderAttack(
            "sends minus twice the mean of the insiders' own updates",
            "Xie et al. 2020, arXiv:1903.03936",
            "insiders that pool their records",
            _LENGTH,
            lambda setting: hiding.inner_product(2.0),
        ),
        "colluding_pair": InsiderAttack(
            "insiders split a vector as long as the honest total, under masks that cancel",
            "folklore of secure aggregation",
            "two or more insiders with a common secret",
            _LENGTH,
            lambda setting: colluding.split(
                setting.senders * setting.clip_norm, setting.corrupt, 10 * setting.clip_norm
            ),
        ),
        "count_bound": InsiderAttack(
            "every count at the round's bound",
            "folklore of modular aggregation",
            "the round's public bound",
            "the round stops unopened",
            lambda setting: overflowing.constant_count(needed(setting, "count_bound"), "count_bound"),
        ),
        "count_wrap": InsiderAttack(
            "every count at half of what its place holds",
            "folklore of modular aggregation",
            "the message's layout, which is public",
            "the round stops unopened",
            lambda setting: overflowing.constant_count(needed(setting, "half_modulus"), "count_wrap"),
        ),
        "spike": InsiderAttack(
            "one coordinate as long as the honest total",
            "folklore",
            "nothing",
            _LENGTH,
            lambda setting: boosting.spike(setting.senders * setting.clip_norm),
        ),
        "nan": InsiderAttack(
            "records that are not numbers",
            "folklore",
            "nothing",
            "honest software sends the embedding of zero and names the client",
            lambda setting: poisoning.not_a_number(),
        ),
        "faulty_units": InsiderAttack(
            "a faulty site: one column in another unit",
            "a fault, not an attack",
            "nothing",
            _CLIP + "; the site's local check finds it",
            lambda setting: poisoning.wrong_units(setting.column, setting.unit_factor),
        ),
        "faulty_labels": InsiderAttack(
            "a faulty site: labels exported the wrong way round",
            "a fault, not an attack",
            "nothing",
            _CLIP + "; the site's local check finds it",
            lambda setting: poisoning.label_flip(setting.classes, "faulty_labels"),
        ),
    }
)
"""By name, in the order in which they are shown."""


def attack(name: str, setting: Setting) -> Attack:
    """The attack of a name, made for a setting: `fedavg(..., insiders=Insiders(who=[3], attack=attack("scale_50", setting)))`.

    Args:
      name: of the registry, or `module:name` of an `InsiderAttack` of your own.
      setting: the facts it is made for.

    Raises:
      ValueError: there is no such attack, or the setting lacks what it needs.
    """
    return find(name, ATTACKS, "attack of insiders", InsiderAttack).entry.make(setting)
