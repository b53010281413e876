"""The two doors, `editsafety run` and `pytest suites/...`: whatever an editor does, both say the same."""
