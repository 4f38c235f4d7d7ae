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


def run(page, folder, *options):
    # --no-sandbox: a container has no user namespaces, and the page is our own.
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'browser'}",
               "--window-size=1300,2400", "--virtual-time-budget=20000", *options,
               pathlib.Path(page).resolve().as_uri()]
    environment = dict(os.environ, HOME=str(folder))
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def document(page, folder):
    """The page's document after its scripts ran, without a network."""
    return run(page, folder, "--dump-dom").stdout


def screenshot(page, folder, image):
    run(page, folder, "--hide-scrollbars", f"--screenshot={image}")
