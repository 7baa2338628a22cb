"""The names of the pipeline's nodes; needs neither TFX nor TensorFlow."""

from pipeline.settings.sections import Settings


def node_names(settings: Settings) -> list[str]:
    """The nodes that `create_pipeline` builds, each after those that it takes something from."""
    return [
        "ImportSchemaGen",
        "MnistExampleGen",
        "StatisticsGen",
        "ExampleValidator",
        "DataGate",
        "DigitClassifier",
        *(["Tuner"] if settings.tune.enabled else []),
        "Trainer",
        "GeneratorEvaluator",
        "ServingCheck",
        "Pusher",
    ]
