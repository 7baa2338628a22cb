"""AtomicPusher: TFX's Pusher with an executor that never shows a half-copied version."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec

from components.pusher import executor


class AtomicPusher(tfx.components.Pusher):
    """Keeps the contract of TFX's Pusher, whose executor copies into the watched folder."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)
