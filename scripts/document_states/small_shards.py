"""The command that encodes documents, with smaller files, so that a small store has many of them.

python -m scripts.document_states.small_shards BYTES --model M --collection C --output S ...
"""

import sys

from jaxrank.command_line import run
from jaxrank.encode_documents import main
from jaxrank.ranking.document_states.disk import shards

if __name__ == "__main__":
    shards.SHARD_BYTES = int(sys.argv.pop(1))
    run(main)
