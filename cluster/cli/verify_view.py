"""What ``headrace verify`` prints."""

from __future__ import annotations

import json

from headrace.cluster.observability import terminal
from headrace.pipelines.output.verify import Verification
from headrace.pipelines.storage.locations import shown


def show_verification(found: Verification, *, as_json: bool) -> None:
    """Print what was found wrong, each with the command that mends it, and what was read."""
    if as_json:
        print(json.dumps(found.to_data(), ensure_ascii=False, indent=1))
        return
    for finding in found.findings:
        print(f"{finding.path}: {finding.problem}. {finding.remedy}.")
        if finding.command:
            print(f"    {finding.command}")
    state = "complete" if found.complete else "not complete"
    problems = terminal.counted(len(found.findings), "problem") if found.findings else "nothing wrong"
    print(
        f"{shown(found.uri)}: {problems} in {terminal.counted(found.files, 'file')} "
        f"({found.size / 1e6:,.1f} MB), plan {found.plan}, {state}."
    )
