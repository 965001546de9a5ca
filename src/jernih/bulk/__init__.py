"""Big archives, through Ray Data: tar shards, Parquet and folders, local or remote (fsspec)."""

from jernih.bulk.archives import Entry
from jernih.bulk.run import BulkResult, purify_archive, survey_archive
from jernih.bulk.shards import Shard, find_shards

__all__ = ["BulkResult", "Entry", "Shard", "find_shards", "purify_archive", "survey_archive"]
