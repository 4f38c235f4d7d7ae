"""Reads pinned requirements on standard input; exits 1 and names those that this Python does not have."""

import sys
from importlib.metadata import PackageNotFoundError, version

from pip._vendor.packaging.requirements import Requirement


def complaint(line):
    requirement = Requirement(line)
    if requirement.marker and not requirement.marker.evaluate():
        return None
    try:
        have = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement}: not installed"
    if requirement.specifier.contains(have, prereleases=True):
        return None
    return f"{requirement}: {have} is installed"


lines = (line.split("#")[0].strip() for line in sys.stdin)
complaints = [found for line in lines if line and (found := complaint(line))]
print("\n".join(complaints))
sys.exit(1 if complaints else 0)
