"""Reads a dashboard with Grafana's own model of one, writes it again, and prints each value that was lost or changed on the way.

    python3 dashboard.py FILE

A field that the model does not know is lost. Prints the expressions, one a line, and exits with 1 if something was lost.
"""

import json
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(given, kept, path):
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in kept:
                yield from differences(value, kept[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, value in enumerate(given):
            yield from differences(value, kept[number], f"{path}[{number}]")
    elif given != kept:
        yield f"{path}: {given!r} became {kept!r}"


def main():
    plugins.register_default_plugins()
    with open(sys.argv[1], encoding="utf-8") as file:
        given = json.load(file)
    kept = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(given)))
    lost = list(differences(given, kept, "dashboard"))
    for difference in lost:
        print(difference, file=sys.stderr)
    for panel in given["panels"]:
        for target in panel["targets"]:
            print(target["expr"])
    sys.exit(1 if lost else 0)


main()
