"""Where the lab of a run is watched over: it works in a process of its own, which may hang, crash or be killed.

`SupervisedLab` is what pytest's items ask; `process` is that process as seen from outside, `child` what runs in it;
`limits` says how long it may take for what, `deaths` what an end that was not planned means. No torch but in the child.
"""

from editsafety.supervision.supervised_lab import SupervisedLab

__all__ = ["SupervisedLab"]
