"""Random sequences of commands, run on protected collections through rekeyd and on plain ones
without it.

shapes: what is protected; documents; filters, updates, pipelines, commands: what is run (each adds
to the choices of the one before); pool: what was stored before; pair: the comparison."""

from .explore import PROTECTED, REKEYD, explore
from .pair import Difference
from .shapes import policies

__all__ = ["Difference", "PROTECTED", "REKEYD", "explore", "policies"]
