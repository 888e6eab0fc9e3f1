"""Find the embedding that is most like the first one: a pgvector column as matrices, without a copy.

python examples/embeddings_torch.py grpc://127.0.0.1:8815 embeddings id embedding

By torch where it is installed, else by NumPy. For matrices that are in GPU memory from the start see docs/gpu.md.
"""

import sys
from importlib import import_module, util

import pgflight

arrays = import_module("torch" if util.find_spec("torch") else "numpy")


def main(uri: str, table: str, key: str, column: str) -> None:
    """Read batch by batch: vector(n) is a fixed-size list, whose values are one matrix of float32."""
    query, best = None, (None, float("-inf"))
    with pgflight.connect(uri) as client:
        where = f"{column} is not null"
        for batch in client.table(table, columns=[key, column], where=where, ordered=True):
            keys, vectors = batch.columns
            matrix = arrays.from_dlpack(vectors.flatten()).reshape(len(vectors), -1)
            if query is None:
                query, keys, matrix = matrix[0], keys[1:], matrix[1:]
            if len(keys):
                likeness = matrix @ query
                place = int(likeness.argmax())
                best = max(best, (keys[place].as_py(), float(likeness[place])), key=lambda found: found[1])
    print(*best)


if __name__ == "__main__":
    main(*sys.argv[1:])
