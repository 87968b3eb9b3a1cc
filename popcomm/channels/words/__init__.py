"""Binary words: what passes the gate, the codes that hold them, and how likely an agent's bits are to say which."""

from popcomm.channels.words.words import Words

__all__ = ["Words"]
