"""The compiled spec, and what is refused before there is one."""

import json
from pathlib import Path

import kfp
import pytest
import yaml
from pydantic import ValidationError
from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact, component_spec

from components.data_gate import executor as data_gate_executor
from pipeline.kubeflow.compiler.compile import (
    compile_pipeline,
    compile_settings,
    kubeflow_pipeline,
    write_spec,
)
from pipeline.kubeflow.compiler.parameters import SECTION_PLACES
from pipeline.kubeflow.compiler.pipeline_checks import check_pipeline
from pipeline.kubeflow.compiler.spec_checks import SpecError
from pipeline.kubeflow.container.supervisor import pod_seconds
from pipeline.settings.kubeflow import KubeflowSettings
from pipeline.settings.resolution import resolve

ROOT = Path(__file__).parents[5]
SUPERVISOR = "pipeline.kubeflow.container.supervisor"
_types = tfx.types.standard_artifacts


def settings(*assignments: str):
    return resolve("smoke", environ={}, assignments=assignments).settings


@pytest.fixture(scope="module")
def documents():
    return compile_settings(settings("train.max_seconds=50", "data.span=3", "data.dir=gs://b/d"))


@pytest.fixture(scope="module")
def spec(documents):
    return documents[0]


@pytest.fixture(scope="module")
def tasks(spec):
    return spec["root"]["dag"]["tasks"]


def test_kfp_loads_it(documents, tmp_path):
    path = tmp_path / "pipeline.yaml"
    write_spec(documents, path)
    component = kfp.components.load_component_from_file(str(path))
    assert {name: each.default for name, each in component.component_spec.inputs.items()} == {
        "data_dir": "gs://b/d",
        "span": 3,
        "window": "latest",
        "train_seconds": 50.0,
        "max_fid_ratio": -1.0,
    }


def test_parameters_have_types_and_descriptions(spec):
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: each["parameterType"] for name, each in parameters.items()} == {
        "data_dir": "STRING",
        "span": "NUMBER_INTEGER",
        "window": "STRING",
        "train_seconds": "NUMBER_DOUBLE",
        "max_fid_ratio": "NUMBER_DOUBLE",
    }
    assert all(each["description"].endswith(".") for each in parameters.values())


def test_without_a_data_folder_a_run_has_to_name_one():
    parameters = compile_settings(settings())[0]["root"]["inputDefinitions"]["parameters"]
    assert "defaultValue" not in parameters["data_dir"]
    assert parameters["span"]["defaultValue"] == -1
    assert parameters["train_seconds"]["defaultValue"] == -1


def test_a_setting_goes_to_every_node_that_was_given_its_section(tasks):
    places = {
        (name, key): value["componentInputParameter"]
        for name, task in tasks.items()
        for key, value in task["inputs"].get("parameters", {}).items()
        if "componentInputParameter" in value
    }
    assert places == {
        ("MnistExampleGen", "data_dir"): "data_dir",
        ("MnistExampleGen", "span"): "span",
        ("MnistExampleGen", "window"): "window",
        ("Trainer", "custom_config.settings.max_seconds"): "train_seconds",
        ("GeneratorEvaluator", "train.max_seconds"): "train_seconds",
        ("GeneratorEvaluator", "settings.thresholds.fid_ratio"): "max_fid_ratio",
    }


def test_the_places_of_each_section_hold_it():
    """The table of `parameters.py` names nodes and properties by hand."""
    chosen = settings("tune.enabled=true")
    tasks = compile_settings(chosen)[0]["root"]["dag"]["tasks"]
    for section, places in SECTION_PLACES.items():
        for node, place in places:
            name, *path = place.split(".")
            content = json.loads(
                tasks[node]["inputs"]["parameters"][name]["runtimeValue"]["constant"]
            )
            for part in path:
                content = content[part]
            assert content == getattr(chosen, section).model_dump(mode="json"), (node, place)


def test_resources_of_a_node_that_is_not_there_are_refused():
    with pytest.raises(SpecError) as caught:
        compile_settings(settings("kubeflow.resources.StatisticGen.cpu=3"))
    assert "StatisticGen" in str(caught.value)


def test_no_task_is_cached(tasks):
    assert [task["cachingOptions"] for task in tasks.values()] == [{}] * 10


def test_the_supervisor_retries_and_the_backend_does_not(spec):
    """Whether a backend does, and after what, differs from version to version."""
    assert not any("retryPolicy" in task for task in spec["root"]["dag"]["tasks"].values())
    [once, _] = compile_settings(
        settings("kubeflow.retries=0", "kubeflow.resources.Trainer.timeout_seconds=null")
    )
    command = once["deploymentSpec"]["executors"]["Trainer_executor"]["container"]["command"]
    assert command[3:] == ["--node=Trainer", "--retries=0"]


def test_attempts_that_use_their_whole_time_are_followed_by_others(documents):
    """A pod's deadline is of all attempts and the waits between them."""
    spec, platform = documents
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, executor in spec["deploymentSpec"]["executors"].items():
        options = dict(word[2:].split("=") for word in executor["container"]["command"][3:])
        retries, attempt = int(options["retries"]), int(options["seconds"])
        assert executors[name]["activeDeadlineSeconds"] > (retries + 1) * attempt, name


def test_each_task_knows_the_id_of_its_run(spec, tasks):
    for name, task in tasks.items():
        value = task["inputs"]["parameters"]["run_id"]["runtimeValue"]["constant"]
        assert value == "{{$.pipeline_job_uuid}}"
        known = spec["components"][name]["inputDefinitions"]["parameters"]
        assert known["run_id"] == {"parameterType": "STRING"}
        assert "failure_dir" not in known


def test_metrics_and_report_are_outputs_that_kubeflows_page_shows(spec):
    shown = {
        (name, output): definition["artifactType"]["schemaTitle"]
        for name, component in spec["components"].items()
        for output, definition in component["outputDefinitions"]["artifacts"].items()
        if definition["artifactType"].get("schemaTitle", "").startswith("system.")
    }
    assert shown == {
        ("GeneratorEvaluator", "evaluation-metrics"): "system.Metrics",
        ("GeneratorEvaluator", "report-page"): "system.HTML",
    }


def test_every_container_runs_our_entry_point(spec):
    for name, executor in spec["deploymentSpec"]["executors"].items():
        container = executor["container"]
        assert container["command"][:3] == ["python", "-m", SUPERVISOR]
        assert f"--node={name.removesuffix('_executor')}" in container["command"]
        assert {"name": "HOME", "value": "/tmp"} in container["env"]
        assert "{{$}}" in container["args"]
        assert str(ROOT) not in json.dumps(container)


def test_each_node_gets_its_resources():
    changes = [
        *("kubeflow.resources.Trainer.cpu=8", "kubeflow.resources.Trainer.memory_gib=16"),
        *("kubeflow.resources.Trainer.gpu=2", "kubeflow.resources.default.cpu=1"),
        *("kubeflow.resources.StatisticsGen.memory_gib=2", "tune.enabled=true"),
    ]
    [spec, _] = compile_settings(settings(*changes))
    resources = {
        name.removesuffix("_executor"): executor["container"]["resources"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
    }
    assert {name for name, each in resources.items() if "accelerator" in each} == {"Trainer"}
    # 16 GiB are 17.18 of the 10^9 bytes in which the backend counts.
    assert resources["Trainer"] == {
        "cpuLimit": 8.0,
        "cpuRequest": 8.0,
        "memoryLimit": 17.18,
        "memoryRequest": 17.18,
        "accelerator": {"type": "nvidia.com/gpu", "count": "2"},
    }
    assert resources["Pusher"]["cpuLimit"] == resources["StatisticsGen"]["cpuLimit"] == 1.0
    assert resources["StatisticsGen"]["memoryLimit"] == 2.147
    assert resources["Tuner"]["cpuLimit"] == resources["DigitClassifier"]["cpuLimit"] == 4.0
    # The search is handed the settings of the training too.
    overridden = spec["root"]["dag"]["tasks"]["Tuner"]["inputs"]["parameters"]
    assert "custom_config.train.max_seconds" in overridden


def test_the_volume_is_mounted_into_every_container(documents):
    spec, platform = documents
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(spec["deploymentSpec"]["executors"])
    mount = {"constant": "mnist-gan", "mountPath": "/mnt/mnist-gan"}
    assert all(executor["pvcMount"] == [mount] for executor in executors.values())
    nothing = [
        *("kubeflow.serving_root=gs://b/s", "kubeflow.checkpoint_root=gs://b/c"),
        *(f"kubeflow.resources.{row}.timeout_seconds=null" for row in KubeflowSettings().resources),
    ]
    _, platform = compile_settings(settings("kubeflow.volume_claim=null", *nothing))
    bare = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert all(each == {"securityContext": {"runAsNonRoot": True}} for each in bare)


def test_where_and_how_long_pods_may_run():
    changes = [
        "node_selector=[cloud.google.com/gke-accelerator=nvidia-l4, pool=]",
        "tolerations=['nvidia.com/gpu:NoSchedule', 'spot=yes:NoExecute']",
        "timeout_seconds=7200",
    ]
    changes = [f"kubeflow.resources.Trainer.{change}" for change in changes]
    spec, platform = compile_settings(settings(*changes))
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    trainer = executors["Trainer_executor"]
    container = spec["deploymentSpec"]["executors"]["Trainer_executor"]["container"]
    assert "--seconds=7200" in container["command"]
    assert trainer["nodeSelector"] == {
        "labels": {"cloud.google.com/gke-accelerator": "nvidia-l4", "pool": ""}
    }
    assert trainer["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoExecute"},
    ]
    assert trainer["activeDeadlineSeconds"] == pod_seconds(2, 7200)
    others = {"securityContext", "pvcMount", "activeDeadlineSeconds"}
    assert executors["Pusher_executor"].keys() == others
    assert executors["Pusher_executor"]["activeDeadlineSeconds"] == pod_seconds(2, 3600)


@pytest.mark.parametrize(
    "changed",
    [
        {"node_selector": ["gpu"]},
        {"node_selector": ["a b=c"]},
        {"tolerations": ["nvidia.com/gpu"]},
        {"tolerations": ["nvidia.com/gpu=present"]},
        {"tolerations": ["nvidia.com/gpu:Never"]},
        {"timeout_seconds": 0},
    ],
)
def test_what_kubernetes_would_not_take_is_refused(changed):
    with pytest.raises(ValidationError):
        KubeflowSettings(resources={"Trainer": changed})


def test_an_s3_store_is_reached_with_a_secret_that_is_not_in_the_spec():
    places = ["kubeflow.serving_root=s3://b/s", "kubeflow.checkpoint_root=s3://b/c"]
    store = ["kubeflow.s3_endpoint=http://minio:9000", "kubeflow.s3_secret=minio-keys"]
    spec, platform = compile_settings(settings("kubeflow.volume_claim=null", *places, *store))
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(spec["deploymentSpec"]["executors"])
    variables = [
        {"secretKey": "accesskey", "envVar": "FSSPEC_S3_KEY"},
        {"secretKey": "secretkey", "envVar": "FSSPEC_S3_SECRET"},
    ]
    secret = {"secretName": "minio-keys", "keyToEnv": variables}
    assert all(executor["secretAsEnv"] == [secret] for executor in executors.values())
    assert not any("pvcMount" in executor for executor in executors.values())
    for executor in spec["deploymentSpec"]["executors"].values():
        endpoint = {"name": "FSSPEC_S3_ENDPOINT_URL", "value": "http://minio:9000"}
        assert endpoint in executor["container"]["env"]
    trainer = spec["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    assert "s3://b/c" in trainer["custom_config"]["runtimeValue"]["constant"]


def test_a_webhook_gets_a_task_that_runs_however_the_others_end(tmp_path):
    documents = compile_settings(settings("kubeflow.webhook_secret=slack", "data.dir=gs://b/d"))
    path = tmp_path / "pipeline.yaml"
    write_spec(documents, path)
    component = kfp.components.load_component_from_file(str(path))
    inputs = {name: each.default for name, each in component.component_spec.inputs.items()}
    assert inputs == {
        "data_dir": "gs://b/d",
        "span": -1,
        "window": "latest",
        "train_seconds": -1,
        "max_fid_ratio": -1,
    }
    spec, platform = documents
    assert set(spec["root"]["dag"]["tasks"]) == {"pipeline", "report-outcome"}
    inside = spec["components"]["pipeline"]["dag"]["tasks"]
    folder = {"runtimeValue": {"constant": "/mnt/mnist-gan/checkpoints/failures"}}
    report = spec["root"]["dag"]["tasks"]["report-outcome"]
    for task in (*inside.values(), report):
        assert task["inputs"]["parameters"]["failure_dir"] == folder
    assert inside["MnistExampleGen"]["inputs"]["parameters"]["span"] == {
        "componentInputParameter": "span"
    }
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    with_secret = {
        name: each["secretAsEnv"] for name, each in executors.items() if "secretAsEnv" in each
    }
    pairs = [{"secretKey": "url", "envVar": "RETRAIN_WEBHOOK_URL"}]
    assert with_secret == {"report-outcome_executor": [{"secretName": "slack", "keyToEnv": pairs}]}
    # It reads what is served, so it has the volume too.
    assert "pvcMount" in executors["report-outcome_executor"]


DIGEST = f"@sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("image", "taken"),
    [
        *(
            (name, True)
            for name in ("image", "image:1", "host.io:5000/a/b-c_d:V1.2", f"a/b{DIGEST}")
        ),
        *((name, False) for name in ("", "a b", "http://host/image", "host/Image", "image:", "/a")),
        *((name, False) for name in (f"{DIGEST}", f"a{DIGEST}0", "a@sha256:...", "a:1:2", "a//b")),
    ],
)
def test_an_image_that_no_pod_could_start_is_refused(image, taken):
    if taken:
        assert KubeflowSettings(image=image).image == image
    else:
        with pytest.raises(ValidationError):
            KubeflowSettings(image=image)


def test_a_slash_at_the_end_of_a_place_changes_nothing():
    slashed = ["kubeflow.volume_path=/mnt/mnist-gan/", "kubeflow.serving_root=s3://b/s/"]
    documents = compile_settings(settings(*slashed, "kubeflow.webhook_secret=slack"))
    plain = ["kubeflow.serving_root=s3://b/s", "kubeflow.webhook_secret=slack"]
    assert documents == compile_settings(settings(*plain))
    inputs = documents[0]["root"]["dag"]["tasks"]["report-outcome"]["inputs"]["parameters"]
    assert inputs["serving_dir"]["runtimeValue"]["constant"] == "s3://b/s/mnist_gan"


@pytest.mark.parametrize(
    "changed",
    [
        {"serving_root": "/elsewhere"},
        {"checkpoint_root": "/mnt/mnist-gan-2/x"},
        {"volume_claim": None},
        {"serving_root": "minio://b/x"},
        {"serving_root": "gs:///x"},
        {"pipeline_root": "/local"},
    ],
)
def test_places_that_would_be_lost_are_refused(changed):
    with pytest.raises(ValidationError):
        KubeflowSettings(**changed)


def test_a_node_added_to_the_dag_needs_no_change():
    chosen = settings()
    pipeline = kubeflow_pipeline(chosen)
    [example_gen] = [node for node in pipeline.components if node.id == "MnistExampleGen"]
    more = tfx.components.StatisticsGen(examples=example_gen.outputs["examples"]).with_id("More")
    with pipeline.dsl_context_registry.temporary_mutable():
        pipeline.dsl_context_registry.put_node(more)
    pipeline.components = [*pipeline.components, more]
    [spec, platform] = compile_pipeline(pipeline, chosen)
    task = spec["root"]["dag"]["tasks"]["More"]
    assert task["dependentTasks"] == ["MnistExampleGen"]
    container = spec["deploymentSpec"]["executors"]["More_executor"]["container"]
    assert container["command"] == [
        *("python", "-m", SUPERVISOR, "--node=More", "--retries=2", "--seconds=3600")
    ]
    assert container["resources"]["cpuLimit"] == 2.0
    assert "More_executor" in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_a_failed_write_leaves_the_old_spec(documents, tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text("old")
    with pytest.raises(yaml.YAMLError):
        write_spec([{"not": object()}], path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["pipeline.yaml"]


class Unnamed(tfx.dsl.Artifact):
    TYPE_NAME = "Unnamed"


class Missing(tfx.dsl.Artifact):
    TYPE_NAME = "components.Missing"


# TFX reads PROPERTIES as it makes the class.
Described = type(
    "Described",
    (tfx.dsl.Artifact,),
    {
        "TYPE_NAME": "components.Described",
        "PROPERTIES": {"n": artifact.Property(type=artifact.PropertyType.INT)},
    },
)


def component(name="Node", executor=data_gate_executor.Executor, types=(), **parameters):
    """A component of that id and executor with outputs of those types."""

    members = {
        "PARAMETERS": {
            key: component_spec.ExecutionParameter(type=str, optional=True) for key in parameters
        },
        "INPUTS": {},
        "OUTPUTS": {
            f"out{n}": component_spec.ChannelParameter(type=each) for n, each in enumerate(types)
        },
    }
    Spec = type("Spec", (component_spec.ComponentSpec,), members)

    class Node(tfx.types.BaseComponent):
        SPEC_CLASS = Spec
        EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor)

    channels = {f"out{n}": tfx.dsl.Channel(type=each) for n, each in enumerate(types)}
    return Node(Spec(**channels, **parameters)).with_id(name)


def resolver():
    return tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestArtifactStrategy,
        model=tfx.dsl.Channel(type=_types.Model),
    ).with_id("Latest")


def importer():
    return tfx.dsl.Importer(source_uri="gs://b/m", artifact_type=_types.Model).with_id("Import")


def infra_validator():
    channel = tfx.dsl.Channel(type=_types.Model)
    return tfx.components.InfraValidator(
        model=channel,
        serving_spec=tfx.proto.ServingSpec(
            tensorflow_serving=tfx.proto.TensorFlowServing(tags=["latest"]),
            local_docker=tfx.proto.LocalDockerConfig(),
        ),
    )


def in_a_script():
    class Executor(data_gate_executor.Executor):
        pass

    Executor.__module__, Executor.__qualname__ = "__main__", "Executor"
    return component(executor=Executor)


def in_a_function():
    class Executor(data_gate_executor.Executor):
        pass

    return component(executor=Executor)


def of_a_module_that_is_not_there():
    class Executor(data_gate_executor.Executor):
        pass

    Executor.__module__, Executor.__qualname__ = "components.nowhere", "Executor"
    return component(executor=Executor)


def another_nodes_output():
    value = component("Producer", types=[_types.String]).outputs["out0"].future()[0].value
    return component(text=value)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (resolver, "Latest: the backend has no resolvers"),
        (infra_validator, "InfraValidator: "),
        (lambda: tfx.components.ImportExampleGen(input_base="/d"), "ImportExampleGen: "),
        (lambda: component("a.b"), "a.b: "),
        (lambda: component("a_b"), "a_b: "),
        (lambda: component("a" * 129), "a: "),
        (lambda: component(types=[Unnamed]), "Node: the type 'Unnamed'"),
        (lambda: component(types=[Missing]), "Node: the type 'components.Missing'"),
        (lambda: component(types=[Described]), "'components.Described'"),
        (in_a_script, "Node: its executor __main__.Executor"),
        (in_a_function, "in_a_function.<locals>"),
        (of_a_module_that_is_not_there, "components.nowhere.Executor"),
        (another_nodes_output, "Node: property text"),
    ],
)
def test_what_the_backend_does_not_run_is_refused_by_node(build, named):
    pipeline = tfx.dsl.Pipeline("digits", "minio://b/r", components=[build()])
    with pytest.raises(SpecError) as caught:
        check_pipeline(pipeline)
    assert any(named in finding for finding in caught.value.findings)


def test_an_importer_and_a_condition_on_a_uri_compile():
    model = importer()
    with tfx.dsl.Cond(model.outputs["result"].future()[0].uri == "x"):
        node = component()
    pipeline = tfx.dsl.Pipeline("digits", "minio://b/r", components=[model, node])
    spec, platform = compile_pipeline(pipeline, settings())
    executors = spec["deploymentSpec"]["executors"]
    assert executors["Import_executor"]["importer"]["artifactUri"] == {"constant": "gs://b/m"}
    assert "uri == 'x'" in spec["root"]["dag"]["tasks"]["Node"]["triggerPolicy"]["condition"]
    assert [*platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]] == [
        "Node_executor"
    ]


def test_a_condition_on_metadata_is_refused():
    producer = component("Producer", types=[_types.Model])
    with tfx.dsl.Cond(producer.outputs["out0"].future()[0].property("version") == 1):
        node = component()
    pipeline = tfx.dsl.Pipeline("digits", "minio://b/r", components=[producer, node])
    with pytest.raises(SpecError) as caught:
        compile_pipeline(pipeline, settings())
    assert {finding.partition(":")[0] for finding in caught.value.findings} == {"Node"}


def test_all_problems_are_named_at_once():
    pipeline = tfx.dsl.Pipeline("Digits_", "minio://b/r", components=[component("a.b"), resolver()])
    with pytest.raises(SpecError) as caught:
        check_pipeline(pipeline)
    assert len(caught.value.findings) == 3
