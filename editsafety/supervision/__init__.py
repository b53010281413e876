"""Where the lab of a run is watched over: it works in a process of its own, which may hang, crash or be killed.

`Labs` are whom a run asks; `SupervisedLab` is one. `process` is that process as seen from outside, `child` what
runs in it; `limits` says how long it may take for what, `deaths` what an end that was not planned means. No torch but
in the child.
"""

from editsafety.supervision.labs import Labs
from editsafety.supervision.supervised_lab import SupervisedLab

__all__ = ["Labs", "SupervisedLab"]
