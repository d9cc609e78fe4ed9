"""Text files that people give: UTF-8 with or without a byte order mark, whose lines end as editors end them.

Python's `str.splitlines` also cuts at characters such as U+2028, which JSON allows within a line.
"""

from __future__ import annotations

import errno
import re
import stat
from pathlib import Path

from ospo_core.errors import ConfigError

LARGEST = 100 * 2**20
"""Bytes of a list of prompts; as much as a million long ones."""
_LINE_END = re.compile(r"\r\n|\r|\n")


def local_path(name: str, field: str) -> Path:
    """Return the path that a person has given, with `~` replaced.

    Raises:
        ConfigError: no path can have this name, or it begins with the home of somebody who does not exist.
    """
    problem = ""
    try:
        path = Path(name).expanduser()
        path.lstat()
    except RuntimeError:
        problem = "names the home folder of nobody"
    except ValueError:
        problem = "holds a character that no path may have"
    except OSError as error:
        problem = f"is not a path: {error.strerror}" if error.errno == errno.ENAMETOOLONG else ""
    if problem:
        raise ConfigError(problem, field=field, value=name, remedy="Correct the path")
    return path


def read_text(path: Path, field: str, remedy: str, largest: int = LARGEST) -> str:
    """Return the text in the file `path`, without a byte order mark.

    Args:
        path: the file.
        field: the option, for messages.
        remedy: what to give instead of a file that cannot be used.
        largest: bytes that it may have.

    Raises:
        ConfigError: it cannot be read, is no regular file, too large, or not UTF-8.
    """
    problem = ""
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size <= largest:
            return path.read_bytes().decode("utf-8-sig")
        large = f"is larger than {largest} bytes"
        problem = large if stat.S_ISREG(found.st_mode) else "is not a file"
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
    except ValueError:
        problem = "holds a character that no path may have"
    raise ConfigError(problem, field=field, value=str(path), remedy=remedy)


def lines_of(text: str) -> list[str]:
    """Return the lines of a file's text."""
    return _LINE_END.split(text)
