"""How each command line of the pages is tried: the one table. A line that no rule here covers fails the test.

Every line is parsed by the command that it calls. Then it is run as it stands on the page, with words behind it that
make it small: of an option that is given twice the last one counts. What is only parsed has its reason in `NOT_RUN`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

FEW = "--limit 1 --texts 5 --controls 0"

# By command: the words that make it small.
SMALLER: Mapping[str, str] = {
    "run": f"{FEW} -n 0",
    "report": "",
    "merge": "",
    "export": "",
    "baseline accept": "",
    "baseline show": "",
    "baseline diff": "",
    "sequence": "--limit 2 --every 1 --texts 5",
    "check": "",
    "verify": "",
    "apply": "",
    "diff": "",
    "abilities": "--items 2",
    "curves": "",
    "prepare": "",
    "screen": "--limit 2",
    "mine": "--limit 2",
    "keys": "--texts 5 --limit 4",
    "trace": "--facts 1 --samples 1",
    "calibrate": "--facts 1 --edits 1 --others 1 --minutes 0",
    "surrogate": "",
    "experiment": "",
    "bench": "--pairs 1",
    "data verify": "",
    "pytest": (
        "--editsafety-limit 1 --editsafety-texts 5 --editsafety-controls 0 --editsafety-edits 2 --editsafety-every 1 "
        "--editsafety-size 2 --editsafety-items 2 --editsafety-singles 1 -n 0"
    ),
}

# By line, where that is not small enough, or too small.
SMALLER_STILL: Mapping[str, str] = {
    "pytest suites/collapse -k pocket-neo-rome-hardcf-0017 --editsafety-model pocket-neo --editsafety-editor rome": (
        "--editsafety-texts 5 --editsafety-controls 0"
    ),
    "editsafety run --suite sequential --suite batch --suite abilities --model pocket-neo --editor rome --editor "
    "memit": f"{FEW} -n 0 --edits 2 --every 1 --size 2 --items 2 --singles 1",
    "editsafety sequence --model pocket-neo --editor memit --schedule batch-sequential --size 10 --limit 200 --every "
    "50 --keep-going": "--limit 20 --every 10 --texts 5",
    "editsafety run --model ./my-chat-model --editor memit --chat": (
        f"{FEW} -n 0 --hard pocket-neo/hardcf --normal pocket-world/normal --all-facts --texts-from pocket-world/texts"
    ),
}

# By line: why it is parsed, and not run.
NOT_RUN: Mapping[str, str] = {
    "editsafety bench --pairs 5 -o reports/bench.json": "takes a quarter of an hour; the same",
    "editsafety bench memit-32 c_rome-case --pairs 5": "takes minutes; tests/cli/test_bench.py runs a smaller job",
    "python3 -m venv .venv": "makes the environment that this test runs in; tests/system/test_wheel.py makes one anew",
    ".venv/bin/pip install -q -c .ci/constraints.txt -e .": "installs what is being tested",
    ".venv/bin/pip install -q -c .ci/constraints.txt -e '.[dev]'": "installs what is being tested",
    ".venv/bin/python -m pytest -W error -n 2 -m 'not thorough'": "is these tests",
    "pip install uv": "installs from a package index",
    "pip install 'editsafety[ray]'": "installs from a package index",
    "editsafety sweep --address auto --model pocket-neo --editor rome --editor c_rome --limit 6 -o reports/swept": (
        "needs a cluster; tests/cluster/test_on_ray.py has one"
    ),
    ".ci/lock": "rewrites the locks from a package index",
    "editsafety run --model pocket-neo --editor rome --policy ship": (
        "generates text for every case; tests/judging/test_policy.py has the policy, tests/measures its measures"
    ),
    "editsafety run --model pocket-guarded --editor rome --policy ship --suite alignment": (
        "120 replies for every case; tests/measures/test_refusal.py judges such cases by the same policy"
    ),
    "editsafety run --model pocket-neo --model pocket-qwen --editor all --report-only -n 2": (
        "every editor on two models takes minutes even for one case; tests/test_every_editor.py runs each"
    ),
    "editsafety run --model pocket-neo --model pocket-qwen --editor all --editor 'rect(rome)' --editor 'prune(rome)' "
    "--limit 8 --report-only -n 2": "the same",
    "pytest suites/sequential suites/batch suites/abilities --editsafety-model pocket-neo --editsafety-editor rome "
    "--editsafety-editor c_rome --editsafety-editor memit --editsafety-editor alphaedit --editsafety-editor ft "
    "--editsafety-editor mend --editsafety-editor kn": "seven editors take minutes; docs/sequences.md has it with two",
    "editsafety propose --endpoint https://host/v1 --api-model NAME -o candidates.jsonl": (
        "needs a chat model; tests/research/hardcases/test_candidates.py has one that answers from a script"
    ),
    "pytest --pyargs editsafety.suites --editsafety-model pocket-neo --editsafety-editor rome": (
        "needs the suites as a package, which only a wheel has; tests/system/test_wheel.py runs them from it"
    ),
    "editsafety abilities --model gpt2 --task piqa --task hellaswag --items 200": (
        "needs lm-evaluation-harness and its data; tests/abilities/test_lm_eval.py has the adapter"
    ),
}

# What stands here for what the pages name and only a reader has.
INSTEAD: Mapping[str, str] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "pocket-neo",
    "gpt2-xl": "pocket-neo",
    "gpt2": "pocket-neo",
    "python edit.py": f"{sys.executable} edit.py",
    "easyedit:FILE": "easyedit:requests.json",
    "reports/<run>": "reports/course",
}
