"""Big archives, through Ray Data: tar shards, Parquet and folders, local or remote (fsspec)."""

from jernih.bulk.archives import Entry, Shard, find_shards
from jernih.bulk.run import BulkResult, purify_archive, survey_archive

__all__ = ["BulkResult", "Entry", "Shard", "find_shards", "purify_archive", "survey_archive"]
