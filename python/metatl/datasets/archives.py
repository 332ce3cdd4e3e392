"""Taking one named member out of a zip archive that nobody vouches for."""

from __future__ import annotations

import errno
import lzma
import re
import shutil
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from metatl.common.column_errors import quoted
from metatl.common.files import replace_file
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK_BYTES = 1 << 20
_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, NotImplementedError, OverflowError, RuntimeError, ValueError),
)


def extract_member(archive: Path, member: str, target: Path, *, max_bytes: int) -> None:
    """Unpack one member of a zip archive to a file of a given name.

    Names in the archive decide nothing about where something is written; an archive with a name that would
    leave its folder is refused all the same, for it is not what its publisher made.

    Parameters
    ----------
    archive
        The archive.
    member
        Name of the member.
    target
        File to write or to replace, in one step.
    max_bytes
        The largest size of the unpacked member.

    Raises
    ------
    DataError
        If the archive is damaged, encrypted or hostile, or if it does not hold the member exactly once as
        a file of an allowed size.
    OSError
        If the file cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            info = _find(file.infolist(), member, max_bytes)
            # No more comes out than the archive declares; a member that holds more fails its checksum.
            with file.open(info) as unpacked, replace_file(target) as temporary, temporary.open("wb") as copy:
                shutil.copyfileobj(unpacked, copy, _CHUNK_BYTES)
    except DataError as error:
        raise error.in_file(archive) from None
    except _DAMAGES as error:
        raise DataError(f"found a damaged zip archive ({error})", file=str(archive)) from None
    except OSError as error:
        # A damaged table of contents asks for bytes before the start, damaged bzip2 has no number at all.
        if error.errno not in (errno.EINVAL, None):
            raise
        raise DataError(f"found a damaged zip archive ({error})", file=str(archive)) from None


def _find(infos: list[zipfile.ZipInfo], member: str, max_bytes: int) -> zipfile.ZipInfo:
    """Find the member, and refuse what no publisher packs."""
    for info in infos:
        parts = re.split(r"[/\\]", info.filename)
        if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", info.filename):
            raise DataError(
                f"found a member with the name {quoted([info.filename])}, which leaves the archive"
            )
    found = [info for info in infos if info.filename == member]
    if len(found) != 1:
        names = quoted([info.filename for info in infos])
        raise DataError(f"found {len(found)} members with the name {member!r} among {names}, expected one")
    kind = stat.S_IFMT(found[0].external_attr >> 16)
    if found[0].is_dir() or kind not in (0, stat.S_IFREG):
        raise DataError(f"found {member!r} as a folder, a link or a device, expected a file")
    if found[0].file_size > max_bytes:
        raise DataError(f"found {member!r} with {found[0].file_size:,} bytes, expected at most {max_bytes:,}")
    return found[0]
