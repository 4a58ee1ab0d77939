"""What the house checks share: the sources, and Rust text without comments, strings and tests."""

import pathlib
import re
import sys

ROOT = pathlib.Path.cwd()
GENERATED = ("completions/", "man/elect", "Cargo.lock")


def rust_files(*folders):
    """Rust files below the given folders, as paths relative to the root, sorted."""
    found = []
    for folder in folders:
        found += [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.rs")]
    return sorted(path for path in found if "target" not in path.parts)


def product_files():
    """Rust files of the program: neither tests nor the simulation."""
    def is_test(path):
        parts = set(path.parts)
        return (
            path.name in ("tests.rs", "proptest_support.rs", "conformance.rs")
            or parts & {"tests", "simulation", "conformance", "examples"}
        )

    return [path for path in rust_files("src", "crates") if not is_test(path)]


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\\n])'""", re.S
)


def code(text):
    """The text with comments, strings and characters blanked; lines stay where they are."""
    return TOKEN.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def block_end(text, opening):
    """The index after the brace that closes the one at `opening`."""
    depth = 0
    for index in range(opening, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index + 1
    return len(text)


def without_tests(text):
    """Blanks items under `#[cfg(test)]` in text that `code` has made."""
    for match in reversed(list(re.finditer(r"#\[cfg\(test\)\]", text))):
        rest = re.compile(r"[;{]").search(text, match.end())
        if rest is None:
            continue
        end = rest.end() if rest.group() == ";" else block_end(text, rest.start())
        text = text[: match.start()] + re.sub(r"[^\n]", " ", text[match.start() : end]) + text[end:]
    return text


def finish(problems, name):
    """Prints what is wrong; ends with 1 unless only a report was asked for."""
    for problem in problems:
        print(f"{name}: {problem}")
    if problems and "--report" not in sys.argv:
        sys.exit(1)
