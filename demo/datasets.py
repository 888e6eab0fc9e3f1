"""The data sets by name: what benchmarks and tests fill their tables from."""

from collections.abc import Mapping

from demo.dataset import Dataset
from demo.embeddings import EMBEDDINGS, EMBEDDINGS_768
from demo.lineitem import LINEITEM
from demo.lineorder import LINEORDER
from demo.nested import ARRAYS, COMPOSITES
from demo.synthetic import NULLS, TYPES, WIDE

DATASETS: Mapping[str, Dataset] = {
    dataset.table: dataset
    for dataset in (LINEORDER, LINEITEM, WIDE, NULLS, EMBEDDINGS, EMBEDDINGS_768, ARRAYS, COMPOSITES, TYPES)
}
