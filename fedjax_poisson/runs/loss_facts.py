"""What the automatic recipe (`training_recipe`) takes from a loss: how long gradients are at the start, and how curved it is.

Losses other than that of two classes change four numbers of the rule, by what they are at w = 0 (derived; the steps checked by a simulation on folds
of training records):

* *Several labels* (K logistic losses added). Gradients have the norm sqrt(K) / 2 of the features', so C grows by sqrt(K); the curvature of a label stays 1/4,
  so its noise relative to its gradient grows by sqrt(K) as well: s is divided by sqrt(K), as if the labels shared the budget.
* *K classes* (softmax). Gradients have the norm sqrt(1 - 1/K), so C = 0.6 of that; the curvature is 1/K in every contrast. The noise of the difference of two
  logits, in units of what the gradient moves it by, grows by sqrt(K (K - 1) / 2) over that of two classes: s is divided by it, as if the pairs shared the
  budget. K = 2 gives back the rule above, in the other parametrisation (tau halves). For more classes longer steps win (mean AUC of a class against the rest
  +.003 to +.02): errors that are common to all records cancel in that comparison. tau = K min(200, 2.2 s).
* *A number* (squared error of a label with mean 0 and variance 1, from its public range and the private moments; `federated.standardize`). A gradient is as
  long as the residual, which no range bounds usefully, so its clip bounds it, and a release is private for any label: C = sqrt(F + 1) takes a residual of one
  deviation whole and larger ones as the Huber loss does. A skewed label loses R2 to that, so C grows with the signal, up to twice as much. The curvature is 1:
  tau = min(15, 0.4 s), since a fourth of the way takes a logistic loss as far.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fedjax_poisson.data.sites import Task

_WIDE = 40.0  # signal above which a clip is widened, where the loss gains by it


class LossFacts(NamedTuple):
    """What the rule takes from a loss at w = 0; derived in the module's docstring.

    Attributes:
      clip: C over the length of a standardised record, sqrt(F + 1).
      widest_clip: the same where the signal is large.
      sharing: what divides the signal n mu / ((F + 1) h).
      tau_of_signal: tau over the signal.
      most_tau: the longest tau.
      plain_tau: tau of a training without noise, whose gradients are not clipped: shorter where longer steps would diverge.
      clamp: bound on a site's sum in one coordinate over the bound on its units.
    """

    clip: float
    widest_clip: float
    sharing: float
    tau_of_signal: float
    most_tau: float
    plain_tau: float
    clamp: float


def loss_facts(task: Task, outputs: int) -> LossFacts:
    """The facts of the loss of a task.

    Args:
      task: what is learnt.
      outputs: classes or labels; 1 for one of two classes or a number.
    """
    count = float(outputs)
    match task:
        case "binary":
            return LossFacts(0.3, 0.3, 1.0, 2.67, 300.0, 300.0, 0.6)
        case "multilabel":
            clip = 0.3 * math.sqrt(count)
            return LossFacts(clip, clip, math.sqrt(count), 2.67, 300.0, 300.0, 0.6)
        case "multiclass":
            gradient, pairs = math.sqrt(1 - 1 / count), math.sqrt(count * (count - 1) / 2)
            return LossFacts(
                0.6 * gradient, 0.6 * gradient, pairs, 2.2 * count, 200.0 * count, 75.0 * count, 1.2 * gradient**2
            )
        case "regression":
            return LossFacts(1.0, 2.0, 1.0, 0.4, 15.0, 15.0, 1.2)


def clip_over_length(facts: LossFacts, signal: float | None) -> float:
    """C over sqrt(F + 1): the widest that the signal affords; the narrowest where the number of units is not public.

    Args:
      facts: of the loss.
      signal: s, or None.
    """
    return facts.clip if signal is None else min(max(facts.clip * signal / _WIDE, facts.clip), facts.widest_clip)
