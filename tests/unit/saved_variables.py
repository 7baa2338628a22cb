"""The variables of a SavedModel, as a loader sees them that knows no Python."""

from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


def variables_of(model_dir: str | Path) -> tuple[list[str], list[str], int]:
    """Reads a SavedModel.

    Returns:
      The names of the variables in its graph and of those that its restore operation writes, both
      sorted; and how many tensors its checkpoint holds.
    """
    content = Path(model_dir, "saved_model.pb").read_bytes()
    [meta_graph] = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    in_graph = {name for name, node in nodes.items() if node.op == "VarHandleOp"}
    restore = nodes[meta_graph.saver_def.restore_op_name]
    tensors = dict(tf.train.list_variables(str(Path(model_dir, "variables", "variables"))))
    # The Python object graph is stored beside the variables.
    stored = len(tensors.keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"})
    return sorted(in_graph), sorted(in_graph & set(restore.input)), stored
