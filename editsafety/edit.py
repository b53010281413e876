"""What an edit is made of, under the short address that editors' files import: see `editsafety.edits.edit`."""

from editsafety.edits.edit import Delta, Edit, LowRank, Replace, Sidecar

__all__ = ["Delta", "Edit", "LowRank", "Replace", "Sidecar"]
