"""Applies docs/adding-an-entity.md: writes what its blocks say into a working copy.

    python3 .ci/guide.py FOLDER

A block of Rust or Protocol Buffers is a new file; a diff changes one that is there. Which one, the text before the block says: the
first path in backticks at the beginning of a line. In a diff, a line that stays or goes is the next one in the file that reads so, and
a line that is added stands right behind the one before it. What does not fit is an error: the guide is out of date.
"""

import pathlib
import re
import sys

GUIDE = "docs/adding-an-entity.md"
# What is there because it holds what a person wrote.
PERSONAL = {"crates/domain/src/account/service.rs", "crates/domain/src/export.rs", "crates/api/src/routes/v1/export.rs"}
PATH = re.compile(r"^`((?:crates|migration)/[^`]+)`")


def fail(line, what):
    sys.exit(f"{GUIDE}:{line}: {what}")


def blocks(text):
    """Language, path, line and lines of each block."""
    path, language, begun, body = None, None, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        if language is None and line.startswith("```"):
            language, begun, body = line[3:], number, []
        elif language is None:
            named = PATH.match(line)
            path = path or (named and named[1])
        elif line == "```":
            yield language, path, begun, body
            path, language = None, None
        else:
            body.append(line)


def patched(lines, diff, begun, path):
    """`lines` with a diff applied."""
    at, before = 0, []
    for number, line in enumerate(diff, begun + 1):
        sign, rest = line[:1], line[1:]
        if sign == "+":
            before.append(rest)
            continue
        if sign not in ("-", " "):
            fail(number, f"neither added, nor taken away, nor there: {line}")
        begun_at = at
        try:
            found = lines.index(rest, at)
        except ValueError:
            fail(number, f"{path} has no such line, or not behind the one before: {rest}")
        # Behind the line before, or, where there is none, before this one.
        place = begun_at if begun_at else found
        lines[place:place] = before
        found += len(before)
        before = []
        if sign == "-":
            del lines[found]
            at = found
        else:
            at = found + 1
    if before and not at:
        fail(begun, f"nothing says where in {path} this is added")
    lines[at:at] = before
    return lines


def main():
    folder = pathlib.Path(sys.argv[1])
    text = (pathlib.Path(__file__).parent.parent / GUIDE).read_text()
    written = set()
    for language, path, begun, body in blocks(text):
        if language not in ("rust", "proto", "diff"):
            continue
        if path is None:
            fail(begun, "the text before the block names no file at the beginning of a line")
        file = folder / path
        if language == "diff":
            if not file.exists():
                fail(begun, f"{path} does not exist")
            body = patched(file.read_text().splitlines(), body, begun, path)
        elif file.exists():
            fail(begun, f"{path} exists")
        file.write_text("\n".join(body) + "\n")
        written.add(path)
    migrations = sorted(file.name for file in (folder / "migration/src").glob("m[0-9]*.rs"))
    numbers = [int(name[1:5]) for name in migrations]
    if numbers != list(range(1, len(numbers) + 1)):
        sys.exit(f"{GUIDE}: the migration's number is not the next one: {migrations}")
    # What it says that an entity costs.
    listed = re.findall(r"`((?:crates|migration)/[^`]+)`\]\(#", text[: text.index("## 1.")])
    production = {path for path in written if "/tests/" not in path and not path.endswith("/testing.rs")}
    if len(listed) != len(set(listed)) or set(listed) != production:
        sys.exit(f"{GUIDE}: its list of files and its blocks differ in {set(listed) ^ production}")
    grpc = {path for path in production if path.startswith("crates/grpc/")}
    says = (len(production - grpc - PERSONAL), len(production & PERSONAL), len(grpc))
    if says != (8, 3, 6):
        sys.exit(f"{GUIDE} and README.md say eight files, three for what a person wrote and six for gRPC; there are {says}")
    print(f"{GUIDE}: {len(written)} files written")


main()
