"""Starts the program that came with this package: the command `refract` of an installed wheel."""
import os
import pathlib
import sys

PROGRAM = pathlib.Path(__file__).resolve().parent / "_program" / "bin" / "refract"


def torch_libraries():
    """The folder of torch's shared libraries, without importing torch, which takes seconds."""
    for folder in sys.path:
        libraries = pathlib.Path(folder or ".") / "torch" / "lib"
        if (libraries / "libtorch_cpu.so").exists():
            return libraries
    sys.exit("refract: torch is not installed beside this package; run: pip install torch==2.11.0")


def main():
    """Becomes the program, with the same arguments."""
    if not PROGRAM.exists():
        sys.exit(f"refract: {PROGRAM} is missing; install the wheel again: pip install --force-reinstall refract")
    environment = dict(os.environ)
    known = environment.get("LD_LIBRARY_PATH")
    environment["LD_LIBRARY_PATH"] = str(torch_libraries()) + (f":{known}" if known else "")
    os.execve(PROGRAM, [sys.argv[0], *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
