"""AtomicPusher: TFX's Pusher with an executor that never shows a half-copied version."""

import json
from typing import Any

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.types import component_spec, standard_component_specs

from components.data_blessing import DataBlessing
from components.pusher import executor

_Spec = standard_component_specs.PusherSpec


class AtomicPusherSpec(component_spec.ComponentSpec):
    """The contract of TFX's Pusher, with the statistics of the model's data as one more input."""

    PARAMETERS = _Spec.PARAMETERS
    INPUTS = {
        **_Spec.INPUTS,
        "data_blessing": component_spec.ChannelParameter(type=DataBlessing, optional=True),
    }
    OUTPUTS = _Spec.OUTPUTS
    TYPE_ANNOTATION = _Spec.TYPE_ANNOTATION


class AtomicPusher(tfx.components.Pusher):
    """Pushes a blessed model; TFX's own executor copies file by file into the watched folder."""

    SPEC_CLASS = AtomicPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        model: tfx.types.BaseChannel,
        push_destination: tfx.proto.PushDestination,
        model_blessing: tfx.types.BaseChannel | None = None,
        infra_blessing: tfx.types.BaseChannel | None = None,
        data_blessing: tfx.types.BaseChannel | None = None,
        custom_config: dict[str, Any] | None = None,
    ) -> None:
        """Takes the arguments of TFX's Pusher.

        Args:
          model: what is pushed.
          push_destination: the folder or URI that a server watches.
          model_blessing: without it the model counts as blessed.
          infra_blessing: without it the model counts as blessed.
          data_blessing: of DataGate; its statistics are pushed with the model, so that later data
            are compared with them.
          custom_config: `settings`, the fields of PushSettings; optionally `recipe`, for the card.
        """
        tfx.types.BaseComponent.__init__(
            self,
            AtomicPusherSpec(
                model=model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                data_blessing=data_blessing,
                push_destination=push_destination,
                custom_config=json.dumps(custom_config, sort_keys=True),
                pushed_model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.PushedModel),
            ),
        )
