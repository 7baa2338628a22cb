"""Executors of test_kubeflow_entrypoint_run.py: one notes something on a model, one reads it."""

from tfx.dsl.components.base import base_executor


class Note(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties):
        [model] = output_dict["model"]
        model.set_json_value_custom_property("shares", {"train": 0.9, "eval": 0.1})
        if exec_properties["forget"]:
            # In protobuf, a look at a value makes it; TFX hands back a null.
            _ = model.mlmd_artifact.custom_properties["note"]


class Read(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties):
        [model] = input_dict["model"]
        print("eval share", model.get_json_value_custom_property("shares")["eval"])
