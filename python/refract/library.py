"""Finds and loads librefract_ops.so (and, where there is a GPU, librefract_cuda.so beside it)."""
import os
import pathlib

import torch


def library_path():
    """The library's path; an ImportError that says what to do where there is none."""
    given = os.environ.get("REFRACT_OPS_LIBRARY")
    package = pathlib.Path(__file__).resolve().parent
    checkout = package.parents[1]
    places = [pathlib.Path(given)] if given else [package / "_program" / "lib" / "librefract_ops.so",  # of a wheel
                                                  checkout / "build" / "release" / "lib" / "librefract_ops.so",
                                                  checkout / "lib" / "librefract_ops.so"]
    for place in places:
        if place.exists():
            return place
    raise ImportError(f"librefract_ops.so was not found ({', '.join(map(str, places))}); build it (make demo), "
                      "or set REFRACT_OPS_LIBRARY to it")


def _load():
    path = library_path()
    torch.ops.load_library(str(path))
    kernels = path.with_name("librefract_cuda.so")
    if torch.cuda.is_available() and kernels.exists():
        torch.ops.load_library(str(kernels))
    return torch.ops.refract


ops = _load()
