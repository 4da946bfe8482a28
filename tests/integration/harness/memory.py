"""What is in a process's memory: for tests that look for secrets there. Needs ptrace's rights."""

PAGE = 4096
PRESENT, SWAPPED = 1 << 63, 1 << 62
# Sanitizers' shadows are terabytes, of which nothing is data.
MAPPING_MAX = 16 << 30


def occurrences(pid: int, secrets: dict, dumped=False) -> list:
    """Which of secrets, name to bytes, are somewhere in memory. dumped: in what the kernel, or a
    debugger, would put into a core dump, which is all but what MADV_DONTDUMP was said of."""
    longest = max(len(secret) for secret in secrets.values())
    found = set()
    for run in _resident(pid, longest, dumped):
        found.update(name for name, secret in secrets.items() if secret in run)
    return sorted(found)


def _resident(pid: int, overlap: int, dumped: bool):
    with open(f"/proc/{pid}/mem", "rb", 0) as memory, open(f"/proc/{pid}/pagemap", "rb", 0) as pages:
        for start, end in _mappings(pid, dumped):
            run = b""
            for page in _present(pages, start, end):
                try:
                    memory.seek(page)
                    data = memory.read(PAGE)
                except (OSError, ValueError, OverflowError):
                    continue  # guard pages and devices
                run = run[-overlap:] + data
                yield run


def _mappings(pid: int, dumped: bool):
    start = end = 0
    with open(f"/proc/{pid}/smaps") as maps:
        for line in maps:
            words = line.split()
            if not words[0].endswith(":"):
                start, end = (int(address, 16) for address in words[0].split("-"))
                writable = words[1].startswith("rw")
            elif words[0] == "VmFlags:" and writable and end - start <= MAPPING_MAX:
                if not (dumped and "dd" in words):
                    yield start, end


def _present(pages, start: int, end: int):
    pages.seek(start // PAGE * 8)
    entries = pages.read((end - start) // PAGE * 8)
    for i in range(0, len(entries), 8):
        if int.from_bytes(entries[i : i + 8], "little") & (PRESENT | SWAPPED):
            yield start + i // 8 * PAGE
