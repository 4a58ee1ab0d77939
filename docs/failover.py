#!/usr/bin/env python3
"""Records docs/failover.svg: a fail-over in three terminals, with two candidates and `kill -9` of the one that leads.

    docs/failover.py [ELECT [OUTPUT]]

Three shells get the lines that a person would type, and each line of the picture is a line that a terminal has shown, at its time. The
directory of the store is a temporary one; the picture names the default of root, /run/elect, in its place. Standard library alone.
"""

import html
import os
import pty
import re
import select
import shutil
import sys
import tempfile
import time

COLUMNS = 88
LIMIT = 30
TITLES = ["terminal 1", "terminal 2", "terminal 3"]
RUN = "elect run --boundary demo --name {} -- sleep 600"


class Terminal:
    def __init__(self, environment):
        self.text, self.stamps, self.begun = "", [], time.monotonic()
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)

    def read(self):
        """Takes what has been shown since, with the time of each character."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                chunk = os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                return
            if not chunk:
                return
            self.text += chunk
            self.stamps += [time.monotonic()] * len(chunk)

    def types(self, line):
        os.write(self.master, (line + "\n").encode())

    def lines(self, directory):
        """Time and text of each line, with the default in place of this directory, folded at the width of the terminal."""
        found, start = [], 0
        for match in re.finditer(r"[^\n]*\n|[^\n]+$", self.text):
            shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x07|\r", "", match.group()).rstrip("\n")
            shown = shown.replace(directory, "/run/elect")
            stamp = self.stamps[start]
            start = match.end()
            if start < len(self.stamps):
                # A prompt is shown early; a line counts from its last character.
                stamp = self.stamps[start - 1]
            for at in range(0, max(len(shown), 1), COLUMNS):
                found.append((stamp, shown[at : at + COLUMNS]))
        return [line for line in found if line[1].strip() not in ("", "$")]


class Session:
    def __init__(self, elect, place):
        self.place = place
        for name in ["bin", "locks", "control"]:
            os.mkdir(os.path.join(place, name), mode=0o700)
        os.symlink(elect, os.path.join(place, "bin/elect"))
        bare = {key: value for key, value in os.environ.items() if not key.startswith("ELECT_")}
        path = os.path.join(place, "bin") + ":" + bare.get("PATH", "/usr/bin:/bin")
        own = {"ELECT_STORE": f"file:{place}/locks", "ELECT_RUNTIME_DIR": f"{place}/control"}
        own.update(PS1="$ ", PS2="", TERM="dumb", PATH=path, HOME=place, BASH_SILENCE_DEPRECATION_WARNING="1")
        self.terminals = [Terminal({**bare, **own}) for _ in TITLES]

    def until(self, terminal, text, times=1):
        end = time.monotonic() + LIMIT
        while self.terminals[terminal].text.count(text) < times:
            for each in self.terminals:
                each.read()
            if time.monotonic() > end:
                sys.exit(f"{TITLES[terminal]} never showed {text!r}: {self.terminals[terminal].text}")
            time.sleep(0.002)

    def pause(self, seconds):
        """For those who watch."""
        time.sleep(seconds)
        for each in self.terminals:
            each.read()

    def record(self):
        for terminal in range(3):
            self.until(terminal, "$ ")
        first, second, third = self.terminals
        self.pause(0.5)
        first.types(RUN.format("alpha"))
        self.until(0, "leader command started")
        self.pause(1)
        second.types(RUN.format("beta"))
        self.until(1, "waiting: alpha leads")
        self.pause(1)
        third.types("elect status demo")
        self.until(2, "alpha leads")
        self.pause(1.5)
        third.types(f"kill -9 {child_of(first.pid)}")
        self.until(1, "leader command started")
        self.until(0, "has died")
        self.pause(1)
        third.types("elect status demo")
        self.until(2, "beta leads")
        self.pause(0.5)

    def close(self):
        os.write(self.terminals[1].master, b"\x03")
        end = time.monotonic() + LIMIT
        while "released" not in self.terminals[1].text and time.monotonic() < end:
            self.pause(0.01)
        for each in self.terminals:
            each.types("exit")
            os.close(each.master)
            os.waitpid(each.pid, 0)


def child_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return int(file.read().split()[0])


def draw(terminals, place):
    line_height, char, pad = 17, 7.8, 14
    shown = [terminal.lines(f"{place}/locks") for terminal in terminals]
    begun = min(lines[0][0] for lines in shown) - 0.5
    width = int(COLUMNS * char + 2 * pad)
    out, top = [], 8
    for title, lines in zip(TITLES, shown):
        height = len(lines) * line_height + 34
        out.append(f'<rect x="4" y="{top}" width="{width - 8}" height="{height}" rx="6" fill="#1d2430"/>')
        out.append(f'<text x="{pad}" y="{top + 17}" fill="#8b97a8">{title}</text>')
        for number, (stamp, text) in enumerate(lines):
            color = "#9fd08a" if re.match(r"\$ [a-z]", text) else "#e8ecf2"
            out.append(
                f'<text class="l" x="{pad}" y="{top + 38 + number * line_height}" fill="{color}" xml:space="preserve" '
                f'style="animation-delay:{stamp - begun:.2f}s">{html.escape(text, quote=False)}</text>'
            )
        top += height + 8
    style = (
        ".l{animation:show .01s both}@keyframes show{from{opacity:0}to{opacity:1}}"
        "@media (prefers-reduced-motion){.l{animation:none}}"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" '
        'font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13">'
    )
    return "\n".join([head, f"<style>{style}</style>", *out, "</svg>", ""])


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    elect = os.path.realpath(shutil.which(sys.argv[1] if len(sys.argv) > 1 else "elect") or sys.exit("no elect"))
    output = sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "failover.svg")
    with tempfile.TemporaryDirectory() as place:
        session = Session(elect, place)
        session.record()
        picture = draw(session.terminals, place)
        session.close()
    with open(output, "w", encoding="utf-8") as file:
        file.write(picture)


main()
