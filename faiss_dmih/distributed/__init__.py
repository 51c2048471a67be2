"""Search past one machine: shards as actors of Ray. `pip install 'faiss-dmih[ray]'`.

`ShardedIndexDMIH.build` writes shards of codes to a folder, `ShardedIndexDMIH.open` starts actors
that search them. `encode` makes codes of images by many processes. What goes wrong between machines
has names: `LostChanges`, `ShardsMissing`, `CommitConflict`. docs/scale.md has the whole story.
"""

from faiss_dmih.distributed.encoding import encode
from faiss_dmih.distributed.errors import CommitConflict, LostChanges, ShardsMissing
from faiss_dmih.distributed.index import ShardedIndexDMIH

__all__ = ["CommitConflict", "LostChanges", "ShardedIndexDMIH", "ShardsMissing", "encode"]
