"""What an attack is made for: the public facts of a run, and what the attacker wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from fedjax_poisson.federated.insiders import Attack


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """The facts from which a registered attack is made; an attack takes what it needs and refuses where that is missing.

    Attributes:
      senders: clients of a round.
      corrupt: insiders among them.
      clip_norm: the mechanism's L2 bound, in the update's unit.
      classes: of the label; 2 for one 0/1 label.
      goal: the label that a backdoor shall lead to.
      column: of a table, where a rare value is planted or a unit is wrong.
      value: the rare value, as the model sees it (after standardisation).
      unit_factor: by what a wrong unit multiplies the column, such as 18.0 for glucose in mg/dl where mmol/l is meant.
      patch: side of the backdoor's square in an image, pixels.
      share: of an insider's records that get the backdoor, 0 to 1.
      old_update: float32 `[D]` that was sent once already, for the stale free rider.
      count_bound: the round's bound on counts, for messages at its edge.
      half_modulus: half of what one count's place in a message can hold, for messages that wrap.
    """

    senders: int
    corrupt: int
    clip_norm: float = 1.0
    classes: int = 2
    goal: int = 0
    column: int = 0
    value: float = 4.0
    unit_factor: float = 18.0
    patch: int = 3
    share: float = 0.5
    old_update: Array | None = None
    count_bound: int | None = None
    half_modulus: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.corrupt < self.senders:
            raise ValueError(
                f"corrupt={self.corrupt} of senders={self.senders}: at least one insider, and one honest client."
            )
        if not (self.clip_norm > 0 and 0 < self.share <= 1 and self.patch >= 1):
            raise ValueError(
                f"clip_norm={self.clip_norm}, share={self.share}, patch={self.patch}: the norm is positive, the share in (0, 1], the patch at least 1 pixel."
            )
        if self.classes < 2 or not 0 <= self.goal < self.classes:
            raise ValueError(
                f"classes={self.classes}, goal={self.goal}: at least two classes, the goal among 0..classes - 1."
            )


class InsiderAttack(NamedTuple):
    """A registered attack.

    Attributes:
      words: what it does, one line.
      source: where it was published, or "folklore".
      needs: what the insider must know or have.
      bounded: what in this system bounds it, and what does not.
      make: `(Setting) -> Attack`; raises ValueError where the setting lacks something.
      targeted: whether its success is measured on triggered records rather than by lost accuracy.
      trigger: `(Setting, features) -> features` with the trigger, of a targeted attack.
    """

    words: str
    source: str
    needs: str
    bounded: str
    make: Callable[[Setting], Attack]
    targeted: bool = False
    trigger: Callable[[Setting, Any], Any] | None = None


def needed(setting: Setting, name: str) -> Any:
    """A fact that an attack cannot do without.

    Raises:
      ValueError: it was left out.
    """
    value = getattr(setting, name)
    if value is None:
        raise ValueError(f"this attack needs {name}: give Setting(..., {name}=...).")
    return value
