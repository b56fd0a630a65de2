"""What carries requests and replies between the coordinator and the sites' workers.

Nothing here is trusted: whoever carries may lose, delay, double, alter and invent. Contents are signed and checked by those who read them. These modules
import the standard library only, so that a thin relay can use them without loading jax.
"""
