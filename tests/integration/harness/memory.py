"""What is in a process's memory: for tests that look for secrets there. Needs ptrace's rights."""

PAGE = 4096
PRESENT, SWAPPED = 1 << 63, 1 << 62
# Sanitizers' shadows are terabytes, of which nothing is data.
MAPPING_MAX = 16 << 30


def occurrences(pid: int, secrets: dict) -> list:
    """Which of secrets, name to bytes, are somewhere in memory."""
    longest = max(len(secret) for secret in secrets.values())
    found = set()
    for run in _resident(pid, longest):
        found.update(name for name, secret in secrets.items() if secret in run)
    return sorted(found)


def _resident(pid: int, overlap: int):
    with open(f"/proc/{pid}/mem", "rb", 0) as memory, open(f"/proc/{pid}/pagemap", "rb", 0) as pages:
        for start, end in _mappings(pid):
            run = b""
            for page in _present(pages, start, end):
                try:
                    memory.seek(page)
                    data = memory.read(PAGE)
                except (OSError, ValueError, OverflowError):
                    continue  # guard pages and devices
                run = run[-overlap:] + data
                yield run


def _mappings(pid: int):
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            span, permissions = line.split()[:2]
            start, end = (int(address, 16) for address in span.split("-"))
            if permissions.startswith("rw") and end - start <= MAPPING_MAX:
                yield start, end


def _present(pages, start: int, end: int):
    pages.seek(start // PAGE * 8)
    entries = pages.read((end - start) // PAGE * 8)
    for i in range(0, len(entries), 8):
        if int.from_bytes(entries[i : i + 8], "little") & (PRESENT | SWAPPED):
            yield start + i // 8 * PAGE
