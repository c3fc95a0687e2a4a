"""Lets a real Prometheus scrape a launch and prints what it has of it (Debian: apt-get install prometheus).

    scrape_by_prometheus.py HOST:PORT [QUERY] [--prometheus PROGRAM]

Waits until Prometheus has the target, then prints one series a line. Ends with 1 where the target cannot be scraped.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

CONFIG = """\
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: spinectl
    static_configs: [{{targets: ["{target}"]}}]
"""
# Longer than Prometheus takes to start and to scrape twice.
PATIENCE_S = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask(port, query):
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)["data"]["result"]


def first_scrape(port):
    """Whether the target's first scrape went well; none while there has been none."""
    try:
        up = ask(port, 'up{job="spinectl"}')
    except OSError:
        return None
    return up[0]["value"][1] == "1" if up else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="as `spinectl launch --metrics-port` prints it")
    parser.add_argument("query", nargs="?", default='{job="spinectl"}')
    parser.add_argument("--prometheus", default="prometheus", help="the program")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "prometheus.yml")
        config.write_text(CONFIG.format(target=arguments.target))
        port = free_port()
        words = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        with open(Path(folder, "log"), "w") as log:
            server = subprocess.Popen([arguments.prometheus, *words], stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while (well := first_scrape(port)) is None:
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit(Path(folder, "log").read_text())
                time.sleep(0.2)
            if not well:
                sys.exit(f"Prometheus cannot scrape {arguments.target}")
            for series in ask(port, arguments.query):
                labels = dict(series["metric"])
                print(labels.pop("__name__", ""), json.dumps(labels, sort_keys=True), series["value"][1])
        finally:
            server.terminate()
            server.wait()


main()
