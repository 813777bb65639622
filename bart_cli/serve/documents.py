"""Extract the text of an uploaded file in memory, in a separate process with resource limits.

In: the file on standard input, and its name as argument. Out: JSON on standard output with `text`
or `error`. A file that exceeds the limits of memory or time ends this process, not the server.
"""

import asyncio
import json
import resource
import sys
from pathlib import PurePath

from bart_cli.errors import BartError, UsageError

MEMORY = 2 * 2**30  # bytes of address space
SECONDS = 30  # CPU time
AT_ONCE = asyncio.Semaphore(2)  # files processed at the same time
SUFFIXES = (".txt", ".md", ".html", ".htm", ".docx", ".pdf")
MOST = 4 * 2**20  # characters of text to return


async def text_of_upload(name: str, content: bytes) -> str:
    """Extract the text of a file in a separate process."""
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    async with AT_ONCE:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, name),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # keeps Ctrl-C from this process
        )
        try:
            async with asyncio.timeout(2 * SECONDS):
                answer, _ = await process.communicate(content)
            found = json.loads(answer)
        except (TimeoutError, ValueError):
            raise UsageError("the file needs too much memory or time, or is damaged") from None
        finally:
            if process.returncode is None:
                process.kill()
    if "error" in found:
        raise UsageError(found["error"])
    return str(found["text"])


def _main() -> None:
    """Extract the text as `bart summarize` does, up to MOST characters."""
    from bart_cli.summarize.documents import text_of

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    name = sys.argv[1]
    try:
        if PurePath(name).suffix.lower() not in SUFFIXES:
            raise UsageError(f"{name}: expected a .txt, .md, .html, .docx or .pdf file")
        found = {"text": text_of(name, sys.stdin.buffer.read())[:MOST]}
    except BartError as error:
        found = {"error": error.message}
    except Exception:
        # The libraries can raise any exception for a damaged file.
        found = {"error": f"{name} cannot be read: it is damaged, or its suffix is wrong"}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    _main()
