"""The built program, and a run that nothing disturbs."""
import pytest
from workplace import BUILD, Workplace, final_state


@pytest.fixture(scope="session")
def built():
    for path in (BUILD / "refract", BUILD.parent / "lib" / "libfault_shim.so"):
        if not path.exists():
            pytest.skip(f"{path} is not built; run make test")


@pytest.fixture(scope="module")
def expected(built, tmp_path_factory):
    """(final state, number of calls) of a run that nothing disturbs."""
    place = Workplace(tmp_path_factory.mktemp("expected") / "work")
    calls = place.count("train", "recipe.toml", log=place.folder.parent / "calls")
    return final_state(place.folder / "run"), calls
