"""Work in a process of its own: what a fresh interpreter needs, and how much memory at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from napari_attention_unet.errors import AttentionUNetError

#: Marks the line of a child's output that holds its result.
MARK = "attention-unet-bench:"
_LINES = 4
#: Module of the jobs that need no window.
CHILD = "napari_attention_unet.bench.child"


class BenchError(AttentionUNetError):
    """A measurement that did not come about; the message says why."""


def run_child(module: str, job: dict[str, Any], wrapper: Sequence[str] = ()) -> dict[str, Any]:
    """Run a module in a fresh interpreter and read the result that it prints.

    Parameters
    ----------
    module : str
        Run with ``-m``; it gets the job as its only argument, in JSON.
    job : dict
        Plain JSON types; ``"job"`` names what to do, ``"threads"`` are those of torch.
    wrapper : sequence of str
        A command to run it under, such as ``xvfb-run``.

    Raises
    ------
    BenchError
        If it fails; the message is its own, or has its last lines.
    """
    command = [*wrapper, sys.executable, "-m", module, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK) and done.returncode == 0:
            result: dict[str, Any] = json.loads(line.removeprefix(MARK))
            if "error" in result:
                raise BenchError(result["error"])
            return result
    last = [line for line in done.stderr.splitlines() if line.strip()][-_LINES:]
    raise BenchError(
        f"The process for '{job.get('job', module)}' ended with status {done.returncode}"
        + (": " + " / ".join(last) if last else " and said nothing.")
    )


def serve(jobs: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Do the job that the command line names and print its result for `run_child`.

    Parameters
    ----------
    jobs : mapping of str to callable
        Each takes the job and gives its result, in plain JSON types.
    """
    job = json.loads(sys.argv[1])
    # of threads that torch is used on later as well; it reads this once, when it is imported
    os.environ["OMP_NUM_THREADS"] = str(job["threads"])
    try:
        result = jobs[job["job"]](job)
    except AttentionUNetError as error:
        result = {"error": str(error)}
    sys.stdout.write(f"\n{MARK}{json.dumps(result)}\n")
    sys.stdout.flush()
