"""Figures of docs/reliability.md, each measured by a command that can be interrupted and given again.

    python -m tests.reliability restore
    python -m tests.reliability kills --times 50

Every trial is one line of a file; the trials that are there already are not made again.
"""
