"""CKKS-style encryption of integer sums on the device that trains, interchangeable with SEAL and TenSEAL.

What is protected. Ciphertexts hide a sender's counts from everyone without the decryption key under the ring-LWE assumption (IND-CPA), at 128 bits
of classical security by the 2024 guideline; an honest-but-curious server that adds ciphertexts learns nothing about individual senders. What is opened is the
*exact* integer sum: approximate CKKS decryptions leak key-dependent noise to whoever sees them (IND-CPA-D; Li and Micciancio, Eurocrypt 2021), and
rounding to exact integers with failure probability 2^-128 closes that leak (eprint 2024/853).

What is not protected. Constant time is not claimed, neither here nor by XLA or NumPy; a machine shared with an attacker may leak secrets through timing.
Who holds which key, and what a round does with it, is defined one layer up (`fedjax_poisson.aggregation`).

How it was checked. Arithmetic and transforms against big integers; keys and ciphertexts exchanged with TenSEAL in both directions; sums of up to 10,000
simulated senders exact at the ends of the stated ranges; samplers against their laws, with wrong laws rejected; foreign bytes fuzzed. No independent
audit has taken place.

    params = choose_parameters(count_bound=sum_bound(8, senders=1000), senders=1000)
    secret, public = generate_keys(params, stream())
    total = add(params, encrypt(params, public, a, fold_in(stream, 0)), encrypt(params, public, b, fold_in(stream, 1)))
    counts = decrypt(params, secret, total, size)                                      # exactly a + b
"""

from fedjax_poisson.ckks import interop, slots
from fedjax_poisson.ckks.encryption import (
    Ciphertext,
    PublicKey,
    SecretKey,
    add,
    decrypt,
    decrypt_with_margin,
    encrypt,
    expand,
    generate_keys,
)
from fedjax_poisson.ckks.errors import RoundRefused, WireError
from fedjax_poisson.ckks.parameters import MARGIN, CkksParameters, choose_parameters, sum_bound
from fedjax_poisson.ckks.slots import decrypt_slots, encrypt_slots

__all__ = [
    "MARGIN",
    "Ciphertext",
    "CkksParameters",
    "PublicKey",
    "RoundRefused",
    "SecretKey",
    "WireError",
    "add",
    "choose_parameters",
    "decrypt",
    "decrypt_slots",
    "decrypt_with_margin",
    "encrypt",
    "encrypt_slots",
    "expand",
    "generate_keys",
    "interop",
    "slots",
    "sum_bound",
]
