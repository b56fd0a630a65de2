"""Bytes that other CKKS libraries write and read: SEAL objects, and TenSEAL's contexts and vectors in both directions."""

from fedjax_poisson.ckks.interop.tenseal_bytes import from_tenseal_vector, read_tenseal_context, tenseal_vector

__all__ = ["from_tenseal_vector", "read_tenseal_context", "tenseal_vector"]
