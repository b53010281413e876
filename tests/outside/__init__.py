"""Tests of editors that stand outside: programs, and methods of a toolbox."""
