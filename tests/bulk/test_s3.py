"""Archives in an object store that speaks S3, played by moto on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jernih.bulk import find_shards, purify_archive
from jernih.bulk.archives import Writer, put, read_shard
from jernih.purifiers import restore_purifier
from jernih.purify_files import restore_any_size
from tests.bulk.test_archives import PICTURES, PNGS, write_tar

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the clients, about their own libraries


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A bucket of its own; the processes of Ray find it through the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("jernih")
        yield "s3://jernih"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(scope="module")
def archive(store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three shards, of which the second has a broken image."""
    folder = tmp_path_factory.mktemp("archive")
    for shard in range(3):
        members = {f"{number}.png": png for number, png in enumerate(PNGS)}
        if shard == 1:
            members["2.png"] = PNGS[2][:50]
        write_tar(folder / f"s{shard}.tar", members)
        put(f"{store}/in/s{shard}.tar", (folder / f"s{shard}.tar").read_bytes())
    return f"{store}/in"


def test_shards_are_found_read_and_written(store: str, archive: str) -> None:
    shards = find_shards(archive)
    assert [shard.name for shard in shards] == ["s0.tar", "s1.tar", "s2.tar"]
    assert [shard.name for shard in find_shards(f"{archive}/s[02].tar")] == ["s0.tar", "s2.tar"]
    entries = list(read_shard(shards[0]))
    assert [entry.content for entry in entries] == PNGS
    writer = Writer(shards[0], f"{store}/copy")
    for entry in entries:
        writer.add(entry, entry.content)
    writer.close()
    (copy,) = find_shards(f"{store}/copy")
    assert [(entry.name, entry.content) for entry in read_shard(copy)] == [
        (entry.name, entry.content) for entry in entries
    ]
    # Nothing is left of the file that was written first under another name.
    assert s3fs.S3FileSystem().find("jernih/copy") == ["jernih/copy/s0.tar"]


def test_loose_images(store: str) -> None:
    for number, png in enumerate(PNGS):
        put(f"{store}/photos/{'even' if number % 2 == 0 else 'odd'}/{number}.png", png)
    (shard,) = find_shards(f"{store}/photos")
    entries = {entry.name: entry for entry in read_shard(shard)}
    assert sorted(entries) == sorted(
        f"{'even' if number % 2 == 0 else 'odd'}/{number}" for number in range(len(PNGS))
    )
    assert entries["odd/1"].label == "odd"
    assert entries["odd/1"].content == PNGS[1]


@pytest.mark.slow
def test_an_archive_is_restored_from_store_to_store(
    store: str, archive: str, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
    try:
        done = purify_archive(archive, f"{store}/out", workers=2)
        assert (done.shards, done.kept, done.images) == (3, 0, 3 * len(PNGS) - 1)
        assert list(done.unreadable) == ["s1.tar: 2"]
        again = purify_archive(archive, f"{store}/out")
        assert (again.kept, again.images) == (3, done.images)
        purify_archive(archive, str(tmp_path / "local"))
    finally:
        ray.shutdown()
    system = s3fs.S3FileSystem()
    for number in range(3):
        name = f"s{number}.tar"
        assert system.cat_file(f"jernih/out/{name}") == (tmp_path / "local" / name).read_bytes()
    purifier = restore_purifier("jernih-s-imagenet")
    shard = find_shards(f"{store}/out/s0.tar")[0]
    first = next(iter(read_shard(shard))).image()
    expected = restore_any_size(purifier, (PICTURES[0] * 255).round() / 255)
    assert (first - expected).abs().max() <= 1.01 / 510
