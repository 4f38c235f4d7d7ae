"""The package in python/, and the fixtures of tests/cli that run the program."""
import importlib.util
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

_specification = importlib.util.spec_from_file_location("refract_cli_fixtures", ROOT / "tests" / "cli" / "conftest.py")
_fixtures = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_fixtures)
program, refract = _fixtures.program, _fixtures.refract
