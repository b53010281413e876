"""Calibration: numbers of an editor for a model that nobody has published any for, each with its evidence.

Where to edit comes from causal tracing (`where`), how much from a small search (`search`): number by number, each tried
at half and at double (or a quarter and four times) what it is, on known facts that single edits write (`trials`). What
is found is then compared with what the search began with, on other facts, and the better of the two is written as a
YAML that `--hparams` reads (`writing`).
"""
