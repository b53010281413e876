"""Watching and changing a model's inner values: the short address that editors' files import (see `model.trace`)."""

from editsafety.model.trace import Seen, watch

__all__ = ["Seen", "watch"]
