"""Opens a page in headless Chromium and returns its document as it stands after its scripts ran."""
import os
import pathlib
import shutil
import subprocess

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def chromium():
    for name in PROGRAMS:
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium here (Debian: apt-get install chromium); reports are not opened")


def run(page, folder, *options, window=(1300, 2400)):
    # --no-sandbox: a container has no user namespaces, and the page is our own.
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'browser'}",
               f"--window-size={window[0]},{window[1]}", "--virtual-time-budget=20000", *options,
               pathlib.Path(page).resolve().as_uri()]
    environment = dict(os.environ, HOME=str(folder))
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def document(page, folder, dark=False, width=1300):
    """The page's document after its scripts ran, without a network."""
    return run(page, folder, "--dump-dom", scheme(dark), window=(width, 2400)).stdout


def scheme(dark):
    return f"--blink-settings=preferredColorScheme={0 if dark else 1}"


def screenshot(page, folder, image, width=1300, height=2400, dark=False):
    """A picture of the page on a screen of that width. A window is never narrower than 500, hence the frame."""
    frame = folder / "frame.html"
    frame.write_text(f'<body style="margin:0"><iframe src="{pathlib.Path(page).resolve().as_uri()}" '
                     f'style="border:0;width:{width}px;height:{height}px"></iframe></body>')
    run(frame, folder, "--hide-scrollbars", scheme(dark), f"--screenshot={image}", window=(max(width, 500), height))
