"""refract kinds, and that docs/transforms.md names every kind and parameter as it is."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "transforms.md").read_text()


def row(parameter):
    takes = f"{parameter['type']} {parameter['limits']}".strip().replace("|", "\\|")
    return f"| `{parameter['name']}` | {takes} | `{parameter['default']}` | {parameter['help']} |"


def section(kind):
    found = re.search(rf"^### `{kind}`\n(.*?)(?=^##)", PAGE, re.S | re.M)
    return found[1] if found else ""


def test_the_page_describes_every_kind(refract_json):
    kinds = refract_json("kinds")["kinds"]
    assert sorted(re.findall(r"^### `(\w+)`$", PAGE, re.M)) == sorted(kind["kind"] for kind in kinds)
    for kind in kinds:
        text = section(kind["kind"])
        assert kind["summary"] in text and kind["stands_for"] in text, kind
        rows = [line for line in text.splitlines() if line.startswith("| `")]
        assert rows == [row(parameter) for parameter in kind["parameters"]], kind["kind"]


def test_the_kinds_are_the_files_of_their_folder_by_name(refract_json):
    names = sorted(path.stem for path in (ROOT / "src" / "transforms" / "kinds").iterdir())
    assert [kind["kind"] for kind in refract_json("kinds")["kinds"]] == [*names, "none"]


def test_one_kind_alone(refract, refract_json):
    (kind,) = refract_json("kinds", "lora")["kinds"]
    assert [parameter["name"] for parameter in kind["parameters"]] == ["r", "alpha", "dropout", "adapter", "over"]
    text = refract("kinds", "lora").stdout
    assert "alpha" in text and "stands for linear layers" in text
    for entry in refract_json("kinds")["kinds"]:
        assert entry["kind"] in refract("kinds").stdout


def test_an_unknown_kind_names_the_nearest(refract):
    error = refract("kinds", "lorra", code=2).stderr
    assert 'there is no kind "lorra"; did you mean "lora"?' in error
