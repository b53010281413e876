"""Damaged files for every reader: it gives a value that can be used, or says in one of our sentences what is wrong.

In the test suite each target is tried on a few examples, always the same (FUZZ_TIMES=10: ten times as many). For
longer, with others each time:

    python -m tests.fuzz --minutes 30
    python -m tests.fuzz --minutes 5 --target policies
"""
