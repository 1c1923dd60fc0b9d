"""Print where a Chromium is on this machine; nothing if there is none."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")

if __name__ == "__main__":
    print(CHROMIUM)
