"""ChaCha20 streams and exact integer samplers: the only randomness that privacy and encryption draw from."""

from fedjax_poisson.randomness.chacha import (
    ReproducibleStreamWarning,
    Stream,
    bits,
    block_words,
    fold_each,
    fold_in,
    is_reproducible,
    stream,
)
from fedjax_poisson.randomness.chacha_block import chacha20_block
from fedjax_poisson.randomness.samplers import (
    GRID_BITS,
    SamplingTables,
    poisson,
    poisson_tables,
    push_pull,
    push_pull_tables,
    single_channel,
    single_channel_tables,
    skellam,
    skellam_tables,
)
from fedjax_poisson.randomness.tables import MAX_DISTANCE, check_push_pull

__all__ = [
    "GRID_BITS",
    "MAX_DISTANCE",
    "ReproducibleStreamWarning",
    "SamplingTables",
    "Stream",
    "bits",
    "block_words",
    "chacha20_block",
    "check_push_pull",
    "fold_each",
    "fold_in",
    "is_reproducible",
    "poisson",
    "poisson_tables",
    "push_pull",
    "push_pull_tables",
    "single_channel",
    "single_channel_tables",
    "skellam",
    "skellam_tables",
    "stream",
]
