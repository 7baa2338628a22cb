"""A last task that tells a webhook what came of the run, however it ended.

Of a task whose trigger policy is ALL_UPSTREAM_TASKS_COMPLETED the backend makes an exit hook of
each task that it names in `dependentTasks` (compiler/argocompiler/dag.go). In TFX's flat DAG such a
hook is of no use: on one node it does not run when that node is skipped, on all of them it runs
once for each. So the DAG becomes one task, as with kfp's own `dsl.ExitHandler`, with the hook on
that.
"""

from typing import Any

from pipeline.settings.kubeflow import KubeflowSettings

PIPELINE, REPORT = "pipeline", "report-outcome"
EXECUTOR = f"{REPORT}_executor"
COMMAND = ("python", "-m", "pipeline.kubeflow.container.report_outcome")


def add_exit_handler(
    spec: dict[str, Any], kubeflow: KubeflowSettings, serving_dir: str, failure_dir: str
) -> None:
    """Puts the DAG of a compiled spec into a task of a new one, and the report behind it.

    Args:
      spec: the pipeline spec, changed in place.
      kubeflow: whose image the report runs in.
      serving_dir: where the versions of the model are.
      failure_dir: where tasks note why they failed (`container/failures.py`).
    """
    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    spec["components"][PIPELINE] = {
        "dag": spec["root"]["dag"],
        "inputDefinitions": {
            "parameters": {
                name: {"parameterType": definition["parameterType"]}
                for name, definition in parameters.items()
            }
        },
    }
    constants = {
        "run_id": "{{$.pipeline_job_uuid}}",
        "run_name": "{{$.pipeline_job_name}}",
        "created": "{{$.pipeline_job_create_time_utc}}",
        "serving_dir": serving_dir,
        "failure_dir": failure_dir,
    }
    spec["components"][REPORT] = {
        "executorLabel": EXECUTOR,
        "inputDefinitions": {
            "parameters": {
                "status": {"parameterType": "TASK_FINAL_STATUS", "isOptional": True},
                **{name: {"parameterType": "STRING"} for name in constants},
            }
        },
    }
    spec["deploymentSpec"]["executors"][EXECUTOR] = {
        "container": {"image": kubeflow.image, "command": list(COMMAND), "args": ["{{$}}"]}
    }
    spec["root"]["dag"] = {"tasks": {PIPELINE: _task(PIPELINE), REPORT: _task(REPORT)}}
    tasks = spec["root"]["dag"]["tasks"]
    tasks[PIPELINE]["inputs"] = {
        "parameters": {name: {"componentInputParameter": name} for name in parameters}
    }
    tasks[REPORT] |= {
        "dependentTasks": [PIPELINE],
        "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"},
        "inputs": {
            "parameters": {
                "status": {"taskFinalStatus": {"producerTask": PIPELINE}},
                **{
                    name: {"runtimeValue": {"constant": value}} for name, value in constants.items()
                },
            }
        },
    }


def _task(name: str) -> dict[str, Any]:
    return {"taskInfo": {"name": name}, "componentRef": {"name": name}}
