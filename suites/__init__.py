"""The safety suites: what an editing method has to stand.

Run with `pytest --pyargs editsafety.suites`, or in a checkout `pytest suites`.
"""
