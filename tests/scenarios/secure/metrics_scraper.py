"""A scraper of metrics that does what Prometheus does with its `scrape_config`: `metrics_scraper.py NODE FOLDER`.

`FOLDER` has the files `authority.pem` (`ca_file`) and `token` (`credentials_file`). It prints the metrics.
"""

from __future__ import annotations

import ssl
import sys
import urllib.request
from pathlib import Path


def main() -> None:
    node, folder = sys.argv[1], Path(sys.argv[2])
    context = ssl.create_default_context(cafile=str(folder / "authority.pem"))
    headers = {"Authorization": f"Bearer {(folder / 'token').read_text().strip()}"}
    request = urllib.request.Request(f"https://{node}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=20.0, context=context) as answer:
        sys.stdout.write(answer.read().decode())


if __name__ == "__main__":
    main()
