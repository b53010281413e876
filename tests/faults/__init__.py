"""Faults that are injected for real and belong to no single room. The whole table is in docs/reliability.md."""
