"""Reports in a browser, in three widths and both colour schemes: nothing overlaps, sticks out or can't be read."""
import json
import re

import pytest

from browser import document, screenshot
from test_report import add_ranges, add_transforms, figures, make_run

Image = pytest.importorskip("PIL.Image")

WIDTHS = (390, 820, 1300)

# What the page's script has drawn, as JSON in an element of its own.
PROBE = """<script>
const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
window.addEventListener("load", () => setTimeout(() => {
  const drawn = [...document.querySelectorAll(".js-plotly-plot")];
  const pairs = drawn.map((plot) => [plot.querySelector(".legend"), plot.querySelector(".modebar")]);
  const out = {
    figures: drawn.length,
    meetings: pairs.filter(([l, m]) => l && m && meet(box(l), box(m))).length,
    legends: pairs.filter(([l]) => l).length,
    shown_toolbars: drawn.filter((plot) => getComputedStyle(plot.querySelector(".modebar")).opacity !== "0").length,
    width: document.documentElement.scrollWidth, inner: innerWidth,
    background: getComputedStyle(document.body).backgroundColor,
    ink: [...new Set(drawn.map((plot) => getComputedStyle(plot.querySelector(".xtick text")).fill))],
    ticks: drawn.map((plot) => [plot.closest("figure").querySelector("figcaption").textContent,
                                [...plot.querySelectorAll(".ytick text")].map((t) => t.textContent)]),
  };
  parent.document.body.append(Object.assign(document.createElement("pre"), { id: "probe", textContent: JSON.stringify(out) }));
}, 300));
</script></body>"""


@pytest.fixture
def report(refract, tmp_path):
    """Three guided runs with ranges, one of them for longer."""
    for number, lr in enumerate((1e-3, 1e-2, 0.1)):
        run = make_run(tmp_path / "runs" / f"lr-{lr}", loss=1.5 + number, lr=lr, points=40 + 10 * number)
        add_transforms(run)
        add_ranges(run)
        guided(run)
    refract("report", "runs")
    return tmp_path / "runs" / "report.html"


def guided(run):
    start = {"time": 1.0, "version": "0.1.0", "command": "refract train recipe.toml", "device": "CPU", "precision": "fp32",
             "from_step": 0, "steps": 400, "guided_steps": 200, "parameters": 1000, "trainable_parameters": 1000, "training_flops": 1e12}
    (run / "starts.jsonl").write_text(json.dumps(start) + "\n")


def probed(page, folder, width, dark):
    """The probe's findings on a screen of that width: in a frame, since a window is never narrower than 500."""
    text = page.read_text().replace("</body>", PROBE)
    frame = "<body><iframe style='border:0;width:%dpx;height:2400px'></iframe><script>document.querySelector('iframe').srcdoc = %s;</script>"
    (folder / "framed.html").write_text(frame % (width, json.dumps(text).replace("</", "<\\/")))
    dom = document(folder / "framed.html", folder, dark=dark)
    return json.loads(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S).group(1).replace("&amp;", "&"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_fits_its_screen(report, tmp_path, width, dark):
    found = probed(report, tmp_path, width, dark)
    assert found["figures"] >= 8 and found["legends"] >= 2
    assert found["meetings"] == 0, "a legend meets the toolbar"
    assert found["shown_toolbars"] == 0, "the toolbar is there without the mouse"
    assert found["width"] <= found["inner"] == width, "the page is wider than the screen"
    background = [int(n) for n in re.findall(r"\d+", found["background"])[:3]]
    (ink,) = {tuple(map(int, re.findall(r"\d+", fill)[:3])) for fill in found["ink"]}
    assert (max(background) < 60 and min(ink) > 180) if dark else (min(background) > 200 and max(ink) < 100)
    # The picture, for whoever wants to look at it.
    image = tmp_path / f"report-{width}-{'dark' if dark else 'light'}.png"
    screenshot(report, tmp_path, image, width=width, height=3600, dark=dark)
    pixels = Image.open(image).convert("RGB")
    assert pixels.size[1] == 3600 and sum(abs(a - b) for a, b in zip(pixels.getpixel((2, 2)), background)) <= 6
    assert len(pixels.crop((0, 0, width, 3600)).resize((width // 4, 900)).getcolors(1 << 24)) > 200, "next to nothing is drawn"


def test_logarithmic_axes_have_readable_ticks(report, tmp_path):
    found = probed(report, tmp_path, 1300, False)
    ticks = dict(found["ticks"])["Gradient norm before clipping"]
    numbers = [float(text) for text in ticks]
    assert 3 <= len(numbers) <= 9 and numbers == sorted(numbers) and len(set(ticks)) == len(ticks)


def test_the_guided_phase_is_shaded(report):
    losses = [f for f in figures(report) if f.get("smoothing")]
    assert losses and all(f["shades"] == [{"from": 0, "to": 200, "label": "guided"}] for f in losses)


def test_the_horizontal_axis_can_be_tokens_or_time(report, tmp_path):
    page = report.read_text()
    assert re.findall(r'<option value="([^"]*)">', page) == ["", "training tokens", "training time (minutes)"]
    script = ("<script>const chooser = document.getElementById('x-axis'); chooser.value = '%s';"
              "chooser.dispatchEvent(new Event('change'));</script></body>")
    titles = {}
    for choice in ("", "training tokens", "training time (minutes)"):
        (tmp_path / "chosen.html").write_text(page.replace("</body>", script % choice))
        dom = document(tmp_path / "chosen.html", tmp_path)
        titles[choice] = re.findall(r'class="xtitle"[^>]*>(.*?)</text>', dom)
        paths = re.findall(r'<path class="js-line"[^>]* d="([^"]*)"', dom)
        assert len([path for path in paths if path.count(",") > 2]) >= 9  # the curves are there on every axis
    assert "optimizer step" in titles[""] and "optimizer step" not in titles["training tokens"]
    assert "training time (minutes)" in titles["training time (minutes)"]
