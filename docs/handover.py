#!/usr/bin/env python3
"""Draws docs/handover.svg from a real run: three candidates, the leader killed, then the next one stopped.

    docs/handover.py [ELECT [OUTPUT]]

What is drawn is what happened: the times are those of elect's own log. Standard library alone.
"""

import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

NAMES = ["web-1", "web-2", "web-3"]
# How long each leads before something happens to it, in seconds.
LEADS = [0.30, 0.30, 0.25]
LIMIT = 30


class Candidate:
    def __init__(self, elect, place, name):
        self.name = name
        self.log = os.path.join(place, name + ".log")
        words = [elect, "run", "--store", "file:" + os.path.join(place, "locks"), "--boundary", "web"]
        words += ["--name", name, "--log-format", "json", "--", "sleep", "600"]
        bare = {key: value for key, value in os.environ.items() if not key.startswith("ELECT_")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=log, env=bare)

    def events(self):
        """Time and message of each line that is complete."""
        with open(self.log, encoding="utf-8") as log:
            lines = [json.loads(line) for line in log if line.endswith("\n")]
        return [(seconds(line["timestamp"]), message(line)) for line in lines]

    def says(self, start):
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            for at, said in self.events():
                if said.startswith(start):
                    return at
            time.sleep(0.002)
        sys.exit(f"{self.name} never said {start!r}: {self.events()}")


def message(line):
    return line.get("message") or line["fields"]["message"]


def seconds(stamp):
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def run(elect, place):
    """Spans per candidate as (from, to, what), and what was done to whom as (at, whom, what)."""
    candidates, strikes, leads = [], [], {}
    for name in NAMES:
        candidates.append(Candidate(elect, place, name))
        candidates[-1].says("elected" if name == NAMES[0] else "waiting")
    waiting = list(candidates)
    leader = waiting.pop(0)
    begun = leader.says("leader command started")
    for lasts, blow in zip(LEADS, [signal.SIGKILL, signal.SIGTERM, signal.SIGTERM]):
        time.sleep(lasts)
        at = time.time()
        leader.process.send_signal(blow)
        leader.process.wait()
        leads[leader.name] = (begun, at)
        strikes.append((at, leader.name, "kill -9" if blow == signal.SIGKILL else "stopped"))
        if not waiting:
            break
        # Whichever the kernel woke.
        leader, begun = next_leader(waiting)
        waiting.remove(leader)
    first = min(candidate.events()[0][0] for candidate in candidates)
    return {c.name: (c.events()[0][0] - first, *(t - first for t in leads[c.name])) for c in candidates}, [
        (at - first, whom, what) for at, whom, what in strikes
    ]


def next_leader(waiting):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        for candidate in waiting:
            for at, said in candidate.events():
                if said.startswith("leader command started"):
                    return candidate, at
        time.sleep(0.002)
    sys.exit("nobody took over")


def draw(spans, strikes):
    left, top, row, width = 90, 46, 46, 700
    length = max(strikes)[0]
    scale = (width - left - 90) / length
    at = lambda seconds: left + seconds * scale
    height = top + row * len(NAMES) + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="22" fill="#333">elect run -b web -- ./serve, three times on one host; blue: it leads, and its command runs</text>',
    ]
    for number, name in enumerate(NAMES):
        waits, begins, ends = spans[name]
        middle = top + number * row + row / 2
        out.append(f'<text x="12" y="{middle + 4:.1f}" fill="#333">{name}</text>')
        out.append(f'<line x1="{at(waits):.1f}" x2="{at(begins):.1f}" y1="{middle}" y2="{middle}" stroke="#bbb" stroke-width="2"/>')
        out.append(f'<rect x="{at(begins):.1f}" y="{middle - 10}" width="{(ends - begins) * scale:.1f}" height="20" fill="#3b78b5"/>')
    for number, (when, whom, what) in enumerate(strikes):
        middle = top + NAMES.index(whom) * row + row / 2
        out.append(f'<text x="{at(when) + 6:.1f}" y="{middle + 4:.1f}" fill="#a22">{what}</text>')
        later = [begins for _, begins, _ in spans.values() if begins > when]
        if later:
            gap = (min(later) - when) * 1000
            bottom = height - 14
            out.append(f'<line x1="{at(when):.1f}" x2="{at(when):.1f}" y1="{top}" y2="{bottom - 12}" stroke="#a22" stroke-dasharray="2 3"/>')
            out.append(f'<text x="{at(when):.1f}" y="{bottom}" text-anchor="middle" fill="#333">next after {gap:.0f} ms</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    elect = sys.argv[1] if len(sys.argv) > 1 else "elect"
    output = sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "handover.svg")
    with tempfile.TemporaryDirectory() as place:
        spans, strikes = run(elect, place)
    with open(output, "w", encoding="utf-8") as file:
        file.write(draw(spans, strikes))


main()
