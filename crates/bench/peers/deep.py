"""deep.py PORT SIZE: walks the questions, newest first, and prints the cursors from 90 % of the way on, one a line."""
import json
import sys
import urllib.parse
import urllib.request

size = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1m": 1_000_000}[sys.argv[2]]
cursor, seen, printed = "", 0, 0
while printed < 100 and seen < size - 200:
    step = 100 if seen < size * 9 // 10 - 100 else max(1, size // 2000)
    url = f"http://127.0.0.1:{sys.argv[1]}/api/v1/qna?limit={min(step, 100)}" + (f"&cursor={cursor}" if cursor else "")
    with urllib.request.urlopen(url) as answer:
        page = json.load(answer)
    seen += len(page["items"])
    cursor = urllib.parse.quote(page["next"], safe="")
    if seen >= size * 9 // 10:
        printed += 1
        print(cursor)
