"""Restore an archive of tar shards, Parquet files or images with Ray, on a laptop or a cluster.

    python examples/cluster/purify_archive.py s3://photos/shards s3://photos/restored --workers 8

Without a cluster Ray starts on this machine; with one (`ray start --head`, `ray start --address=…`)
set RAY_ADDRESS. Interrupted, the same command goes on with the shards that are lacking.
"""

from __future__ import annotations

import argparse

from jernih.bulk import purify_archive


def main() -> None:
    """Read the command line and restore."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="shards or images, local or remote")
    parser.add_argument("out", help="folder of results, local or remote")
    parser.add_argument("--weights", help="a purifier's weights; left out: the default")
    parser.add_argument("--workers", type=int, default=1, help="shards worked on at once")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs, or a share of one, a worker")
    arguments = parser.parse_args()
    done = purify_archive(
        arguments.source,
        arguments.out,
        arguments.weights,
        workers=arguments.workers,
        gpus=arguments.gpus,
        progress=lambda shards, whole: print(f"{shards} of {whole} shards", flush=True),
    )
    print(f"{done.images} images restored, {len(done.unreadable)} left out")
    for name, reason in done.unreadable.items():
        print(f"  {name}: {reason}")


if __name__ == "__main__":
    main()
