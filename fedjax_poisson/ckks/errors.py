"""The two errors raised by the encryption layer."""

from __future__ import annotations


class WireError(ValueError):
    """Invalid bytes from outside: truncated, altered, oversized, or in another format.

    Only the message is lost; the receiver can continue with the messages that are valid.
    """


class RoundRefused(RuntimeError):
    """A sum that is not opened, or whose opened values are withheld, because a condition of the round is not met.

    Nothing of the decrypted values is in the message.
    """
