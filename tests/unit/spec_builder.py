"""Small pipeline specs whose containers are one line of Python."""

import sys
from pathlib import Path

import yaml

# Reads its ExecutorInput `e`; `put` writes an output's file, `say` the ExecutorOutput.
PRELUDE = """
import json, os, sys
e = json.loads(sys.argv[1])
root = os.environ["KFP_LOCAL_ROOT"]
def path(uri):
    for scheme, folder in (("minio", "minio"), ("gs", "gcs"), ("s3", "s3")):
        if uri.startswith(scheme + "://"):
            return root + "/" + folder + "/" + uri.split("://")[1]
def uri(side, name):
    return e[side]["artifacts"][name]["artifacts"][0]["uri"]
def put(name, text, sub=""):
    place = path(uri("outputs", name)) + sub
    os.makedirs(os.path.dirname(place), exist_ok=True)
    open(place, "w").write(text)
def say(output):
    open(root + e["outputs"]["outputFile"], "w").write(json.dumps(output))
def say_artifact(name, **fields):
    say({"artifacts": {name: {"artifacts": [fields]}}})
"""
MODEL = {"artifactType": {"instanceSchema": "title: tfx.Model\ntype: object\n"}}
PUT = "put('out', 'hello', '/part/file.txt')\n"
SHOW = "print(json.dumps(e))\n"


class SpecBuilder:
    """A spec of tasks that each emit an artifact `out`."""

    def __init__(self) -> None:
        self.tasks: dict = {}
        self.components: dict = {}
        self.executors: dict = {}
        self.parameters: dict = {}

    def add(self, name, code, *, artifacts=(), parameters=None, after=(), arguments=()):
        kinds = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE"}
        constants = {
            key: {"runtimeValue": {"constant": value}} for key, value in (parameters or {}).items()
        }
        self.tasks[name] = {
            "taskInfo": {"name": name},
            "componentRef": {"name": name},
            "dependentTasks": [*after],
            "inputs": {
                "artifacts": {
                    producer.lower(): {
                        "taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": "out"}
                    }
                    for producer in artifacts
                },
                "parameters": constants,
            },
        }
        self.components[name] = {
            "executorLabel": f"{name}_executor",
            "inputDefinitions": {
                "artifacts": {producer.lower(): MODEL for producer in artifacts},
                "parameters": {
                    key: {"parameterType": kinds[type(value)]}
                    for key, value in (parameters or {}).items()
                },
            },
            "outputDefinitions": {"artifacts": {"out": MODEL}},
        }
        self.executors[f"{name}_executor"] = {
            "container": {
                "image": "unused",
                "command": [sys.executable, "-c", PRELUDE + code],
                "args": ["{{$}}", *arguments],
            }
        }
        return self

    def document(self):
        return {
            "pipelineInfo": {"name": "digits"},
            "schemaVersion": "2.1.0",
            "root": {
                "dag": {"tasks": self.tasks},
                "inputDefinitions": {"parameters": self.parameters},
            },
            "components": self.components,
            "deploymentSpec": {"executors": self.executors},
        }

    def write(self, folder: Path) -> Path:
        path = folder / "spec.yaml"
        path.write_text(yaml.safe_dump(self.document()))
        return path
