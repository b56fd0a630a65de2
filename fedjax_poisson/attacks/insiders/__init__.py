"""Malicious insiders: what corrupt clients and faulty sites do to a model from within, each with its source, its needs and its bound."""

from fedjax_poisson.attacks.insiders.registry import ATTACKS, attack
from fedjax_poisson.attacks.insiders.setting import InsiderAttack, Setting

__all__ = ["ATTACKS", "InsiderAttack", "Setting", "attack"]
