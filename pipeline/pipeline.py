"""The DAG, the same for every runner."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_data_validation as tfdv
from tfx import v1 as tfx
from tfx.v1.dsl.experimental import RuntimeParameter

from components.data_gate.component import DataGate
from components.generator_evaluator.component import GeneratorEvaluator
from components.mnist_example_gen.component import MnistExampleGen
from components.pusher.component import AtomicPusher
from components.serving_check.component import ServingCheck
from mnist.features import FLOAT_FEATURES, INT_FEATURES
from mnist.quarantine import FILE_NAME as QUARANTINE_FILE
from pipeline.settings.sections import Settings

SCHEMA_FILE = str(Path(__file__).parent / "schema" / "schema.pbtxt")


class DataNodes(NamedTuple):
    """What stands between the files and the training."""

    example_gen: MnistExampleGen
    statistics_gen: tfx.components.StatisticsGen
    schema_gen: tfx.components.ImportSchemaGen
    validator: tfx.components.ExampleValidator
    gate: DataGate


def create_data_nodes(
    settings: Settings,
    *,
    data_dir: str | RuntimeParameter,
    source: str,
    serving_root: str = "",
    span: RuntimeParameter | None = None,
    window: RuntimeParameter | str | None = None,
    content: str = "",
    schema_file: str = SCHEMA_FILE,
) -> DataNodes:
    """Builds ingestion and validation; see `create_pipeline` for the arguments."""
    quarantine = os.path.join(serving_root, QUARANTINE_FILE) if serving_root else ""
    # Finds its spans while it runs if nobody has before, so it needs nothing of the orchestrator.
    example_gen = MnistExampleGen(
        data_dir=data_dir,
        span=(settings.data.span if window is None else None) if span is None else span,
        window=settings.data.window if window is None else window,
        content=content,
        quarantine=quarantine,
        # Where the data lie is no setting of the node: a copy of them elsewhere is the same data.
        settings=settings.data.model_dump_json(include={"settle_seconds", "eval_share"}),
        source=source,
    )
    # The pixels themselves say nothing to TFDV; the scalars derived from them do.
    statistics_gen = tfx.components.StatisticsGen(
        examples=example_gen.outputs["examples"],
        stats_options=tfdv.StatsOptions(feature_allowlist=[*INT_FEATURES, *FLOAT_FEATURES]),
    )
    # A curated schema: one inferred from the data would agree with any data.
    schema_gen = tfx.components.ImportSchemaGen(schema_file=schema_file)
    validator = tfx.components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    # The validator reports anomalies and lets the run go on; the gate stops it.
    gate = DataGate(
        examples=example_gen.outputs["examples"],
        statistics=statistics_gen.outputs["statistics"],
        schema=schema_gen.outputs["schema"],
        anomalies=validator.outputs["anomalies"],
        settings=settings.gate.model_dump_json(),
        serving_dir=os.path.join(serving_root, settings.push.model_name) if serving_root else "",
        quarantine=quarantine,
    )
    return DataNodes(example_gen, statistics_gen, schema_gen, validator, gate)


def create_pipeline(
    settings: Settings,
    *,
    data_dir: str | RuntimeParameter,
    source: str,
    pipeline_root: str,
    serving_root: str,
    checkpoint_root: str,
    keep_checkpoints: bool = False,
    metadata: tfx.orchestration.metadata.ConnectionConfigType | None = None,
    beam_pipeline_args: list[str] | None = None,
    span: RuntimeParameter | None = None,
    window: RuntimeParameter | str | None = None,
    content: str = "",
    schema_file: str = SCHEMA_FILE,
    recipe: dict[str, Any] | None = None,
    build_trainer: Callable[..., tfx.components.Trainer] = tfx.components.Trainer,
) -> tfx.dsl.Pipeline:
    """Builds the pipeline from ingestion to push.

    Args:
      settings: all settings of the run.
      data_dir: folder or URI with the digits.
      source: one sentence on where they are from.
      pipeline_root: folder or URI for the artifacts.
      serving_root: folder or URI under which `<model name>/<version>/` is pushed.
      checkpoint_root: folder or URI for the state of trainings and searches that were cut off.
      keep_checkpoints: whether whoever records the Trainer's result removes its checkpoints, and
        not the Trainer itself.
      metadata: connection to ML Metadata; None where the orchestrator has its own.
      beam_pipeline_args: for the Beam components.
      span: in place of `data.span`, where each run names its own; negative for the latest.
      window: in place of `data.window`, a window that names the spans of this run.
      content: the fingerprints of the spans that `window` names, as `Window.content` gives them;
        "" where ingestion finds the spans by itself.
      schema_file: path of the schema where the pipeline runs.
      recipe: preset, and the settings that differ from it, which the model card records.
      build_trainer: takes the arguments of TFX's Trainer; where the GAN trains elsewhere.
    """
    data = create_data_nodes(
        settings,
        data_dir=data_dir,
        source=source,
        serving_root=serving_root,
        span=span,
        window=window,
        content=content,
        schema_file=schema_file,
    )
    examples = data.example_gen.outputs["examples"]
    # Its features measure the generator, while it trains and at the end.
    classifier = tfx.components.Trainer(
        run_fn="models.digit_classifier.run_fn.run_fn",
        examples=examples,
        custom_config={"settings": settings.classifier.model_dump(mode="json")},
    ).with_id("DigitClassifier")
    classifier.add_upstream_node(data.gate)
    # Many short trainings, so only where asked for; the Trainer takes the settings of the best.
    tuner = None
    if settings.tune.enabled:
        tuner = tfx.components.Tuner(
            tuner_fn="models.gan.tuning.tuner_fn",
            examples=examples,
            base_model=classifier.outputs["model"],
            custom_config={
                "train": settings.train.model_dump(mode="json"),
                "tune": settings.tune.model_dump(mode="json"),
                "checkpoints": checkpoint_root,
            },
        )
    serving_dir = os.path.join(serving_root, settings.push.model_name)
    is_warm = settings.train.warm_start != "none"
    trainer = build_trainer(
        run_fn="models.gan.run_fn.run_fn",
        examples=examples,
        base_model=classifier.outputs["model"],
        hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
        custom_config={
            "settings": settings.train.model_dump(mode="json"),
            "checkpoints": checkpoint_root,
            **({"keep_checkpoints": True} if keep_checkpoints else {}),
            # The state that a warm start takes.
            **({"served": serving_dir} if is_warm else {}),
        },
    )
    # The model being served is the baseline. It is read from where it is served, and not by a
    # Resolver, which open-source Kubeflow does not run.
    evaluator = GeneratorEvaluator(
        model=trainer.outputs["model"],
        classifier=classifier.outputs["model"],
        examples=examples,
        anomalies=data.validator.outputs["anomalies"],
        model_run=trainer.outputs["model_run"],
        data_blessing=data.gate.outputs["blessing"],
        hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
        settings=settings.evaluation.model_dump_json(),
        serving_dir=serving_dir,
        train=settings.train.model_dump_json(),
        classifier_settings=settings.classifier.model_dump_json(),
    )
    serving_check = ServingCheck(
        model=trainer.outputs["model"],
        settings=settings.serving_check.model_dump_json(),
    )
    pusher = AtomicPusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_check.outputs["blessing"],
        data_blessing=data.gate.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=serving_dir)
        ),
        custom_config={
            "settings": settings.push.model_dump(mode="json"),
            **({"recipe": recipe} if recipe else {}),
        },
    ).with_id("Pusher")
    return tfx.dsl.Pipeline(
        pipeline_name=settings.pipeline_name,
        pipeline_root=pipeline_root,
        components=[
            *data,
            classifier,
            *([tuner] if tuner else []),
            trainer,
            evaluator,
            serving_check,
            pusher,
        ],
        enable_cache=True,
        metadata_connection_config=metadata,
        beam_pipeline_args=beam_pipeline_args,
    )
