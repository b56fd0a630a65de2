"""The two errors raised by the encryption layer."""

from __future__ import annotations


class WireError(ValueError):
    """Bytes from outside that are not what they must be: truncated, altered, oversized, or of another format.

    Only the message is lost; whoever receives it can go on with the messages that are sound.
    """


class RoundRefused(RuntimeError):
    """A sum that is not opened, or whose opened values are withheld, because a condition of the round is not met.

    Nothing of the decrypted values is in the message.
    """
