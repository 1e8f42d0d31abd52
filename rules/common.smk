"""What the rules of all stages share: settings, environment, requests. No rules, no heavy imports.

Paths, flags and what is compared are typed Python: workflow_scripts/run/.
"""

import os
import shutil
import sys
from pathlib import Path

# Where this workflow lies; `workflow.basedir` is another's where that imports it by `module:`.
HOME = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(HOME))

from workflow_scripts.common.cli import UserError
from workflow_scripts.run import comparisons, report_plan, store_keys
from workflow_scripts.run.config_files import check_file
from workflow_scripts.run.flags import Flags, as_json, flags, in_order
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import PURPOSES, Paths, files_of
from workflow_scripts.run.rule_parts import figure, folder_of, folder_of_input, for_comparison
from workflow_scripts.run.rule_parts import for_fit, named_inputs, paper_of, shard_number, sized
from workflow_scripts.run.rule_parts import one_of, step, untracked
from workflow_scripts.run.show_progress import show_progress

try:
    for file in workflow.overwrite_configfiles:
        check_file(Path(file))
    SETTINGS = load(config)
except UserError as error:
    raise SystemExit(f"error: {error}") from None

PATHS = Paths(SETTINGS)
FLAGS = Flags(PATHS)
RESULTS = PATHS.results
COMPARED = comparisons.compared_fits(SETTINGS)
ANNOTATED = PATHS.annotated
TRUE_CATEGORIES = comparisons.has_true_categories(SETTINGS)
# Compared pairs of models that the workflow trains itself, so that the truth is known.
PLANTED_PAIRS = comparisons.planted_pairs(SETTINGS)
TAXONOMY = SETTINGS.taxonomy or os.path.relpath(HOME / "config" / "taxonomy.yaml")
# The file `reproduce_paper` says why it may stand among the config files.
ASKED_FOR_PAPER = any(path.name == "reproduce_paper" for path in workflow.overwrite_configfiles)
# The steps that others wait for go first, so that the rest fills idle cores at the end.
CHAIN = 1
# GPUs that a job requests where models run on one.
DEVICE = SETTINGS.activations.device
GPU = int(DEVICE == "cuda" or (DEVICE == "auto" and shutil.which("nvidia-smi") is not None))


wildcard_constraints:
    key="[0-9a-f]+",
    model=one_of(SETTINGS.models),
    group=one_of(SETTINGS.layers),
    layer="[0-9]+",
    fit=one_of(SETTINGS.fits),
    comparison=one_of(SETTINGS.comparisons),
    seed="[0-9]+",
    purpose="explain|classify|score",
    shard="shard[0-9]+",
    table="explanations|labels|scores",


# Steps run with this interpreter, from any working directory.
os.environ |= {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    "PYTHONPATH": os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")])),
}

# Steps free and take large buffers all the time: letting glibc keep up to 1 GiB saves a fifth of
# the time. Other C libraries do not know these names.
for name, value in (("MMAP_MAX", 0), ("TRIM_THRESHOLD", 1 << 30), ("TOP_PAD", 1 << 26)):
    os.environ.setdefault(f"MALLOC_{name}_", str(value))

# Threads that wait for each other spin only briefly: on a busy machine a step may else take six
# times as long. Sleeping at once makes small steps slower on an idle one.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


# `logged FILE COMMAND…` sends a step's messages to its log, and the last ones of a failed step
# to the terminal too.
shell.prefix(
    'logged() {{ local log="$1"; shift; '
    '"$@" 2> "$log" || {{ local code=$?; tail -n 5 "$log" >&2; exit $code; }}; }}; '
)


# Resources of a job whose work decides what it needs, and of one that may run on a GPU too.
SIZED = sized(SETTINGS)
ON_GPU = {**SIZED, "gpu": GPU}


def speed(*names: str):
    """Return flags that affect speed, not results; changing them triggers no rerun."""
    return untracked(SETTINGS.activations, *names)


def fit_name(wildcards) -> str:
    """Return the name of the fit of a job's direct comparison."""
    return comparisons.fit_of(SETTINGS, wildcards.comparison)


def refuse_at_start() -> None:
    """Stop before any job when the run could not end well."""
    from workflow_scripts.run.preflight import refuse_early

    jobs = list(workflow.dag.needrun_jobs())
    if all(job.rule.name in ("plan", "store_report", "clean_store") for job in jobs):
        return
    dumps = {Path(f) for job in jobs if job.rule.name == "dump_activations" for f in job.output}
    try:
        refuse_early(
            SETTINGS, dumps, calls=any(job.rule.name.startswith("call_llm") for job in jobs)
        )
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def print_answer() -> None:
    """Print the run's sentence and its report, unless make does so itself."""
    if Path(RESULTS, "comparison", "answer.json").exists() and "MAKELEVEL" not in os.environ:
        shell(f"python -m workflow_scripts.tools.print_answer {RESULTS}")
    if ASKED_FOR_PAPER:
        print(f"published and measured: {RESULTS}/paper/published.md")
