"""Shards on the nodes of a Ray cluster: one actor per GPU, or per `execution.ray_cpus` CPUs, each with its own engine.

Actors, since Ray ends the process of a task with a GPU after the task, and the next would load the model again. They
take shards as the worker processes of one machine do (`ospo_core.stages.workers`), so nodes need no access to Prefect.

The connection is owned like an engine: the first stage of a phase opens it, and it is released at the end of the phase
or of the flow. Ray then ends the actors with their engines and models, so that nothing is left on a GPU when the next
phase or training begins.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError
from ospo_core.models.hub import repository_of
from ospo_core.models.locate import EMBEDDED_PREFIX
from ospo_core.stages import ShardSpec, StageRun
from ospo_core.stages.model_ref import CURRENT, STORED
from ospo_core.stages.workers import Outcome, WorkerPool, compute_here
from tasks.credentials import used_credentials

CONNECT_SECONDS = 10.0
"""Seconds to wait for the cluster's port; Ray itself would wait for minutes."""

NODE_SECONDS = 120.0
"""Seconds to wait for a node to start a process that can import this project; a free node needs a few."""

RESTARTS = 3
"""How often Ray repeats a check whose process or node died."""

FIELD = "execution.ray_address"


def gpus_per_shard(run: StageRun, cluster_gpus: float) -> int:
    """Return the GPUs that a shard occupies: a whole one if the stage uses a GPU and the cluster has any.

    Raises:
        ConfigError: `model.device` is `cuda` and no node has a GPU.
    """
    wanted = run.stage.uses_gpu(run.config)
    if wanted and run.config.model.device == "cuda" and not cluster_gpus:
        raise ConfigError(
            "no node of the Ray cluster has a GPU",
            field="model.device",
            value="cuda",
            remedy="Add a node with a GPU, or use auto or cpu",
        )
    return int(wanted and cluster_gpus > 0)


def with_absolute_paths(run: StageRun) -> StageRun:
    """Return the stage run with absolute paths, since a process on another node has another working directory.

    Its fingerprint stays the same: no path is part of it.
    """
    config = run.config
    storage = {"root": run.storage.root, "scratch": _absolute(config.storage.scratch)}
    paths = {role: getattr(config.model, role) for role in ("path", "writer", "judge")}
    models = {role: _absolute_model(path) for role, path in paths.items() if path is not None}
    lists = tuple(map(_absolute, config.prompts.contamination_lists))
    sections = {
        "storage": config.storage.model_copy(update=storage),
        "model": config.model.model_copy(update=models),
        "prompts": config.prompts.model_copy(update={"contamination_lists": lists}),
        "evaluation": config.evaluation.model_copy(update={"prompts": _absolute(config.evaluation.prompts)}),
    }
    model = run.model.model_copy(update={"source": _absolute_model(run.model.source)})
    judge = run.judge.with_sources(_absolute_model) if run.judge is not None else None
    return replace(run, config=config.model_copy(update=sections), model=model, judge=judge)


def _absolute_model(path: str) -> str:
    """Return the path of a model made absolute, unless it names a repository of the Hugging Face Hub."""
    return _absolute(path) if repository_of(path) is None else path


def _absolute(path: str) -> str:
    """Return a local path made absolute; names of embedded, stored and current models stay as they are."""
    if path == CURRENT or path.startswith((EMBEDDED_PREFIX, STORED)):
        return path
    return str(Path(path).expanduser().absolute())


class RayConnection:
    """A connection of this process to a Ray cluster; `gpus` is the number of GPUs of all nodes together."""

    def __init__(self, address: str, storage: Storage) -> None:
        import ray

        self._owned = not ray.is_initialized()
        self._pool: WorkerPool | None = None
        if self._owned:
            _connect(address)
        try:
            self._nodes = [node for node in ray.nodes() if node["Alive"]]
            _check_nodes(self._nodes, storage)
        except BaseException:  # no failure may leave the connection open
            self.close()
            raise
        self.gpus = sum(node["Resources"].get("GPU", 0.0) for node in self._nodes)

    def actors(self, cpus: int, gpus: int, credentials: Mapping[str, str]) -> WorkerPool:
        """Return the pool of as many actors of this size as the cluster has room for, kept until `close`.

        Raises:
            ConfigError: no node is large enough for one; Ray would wait for such a node forever.
        """
        if self._pool is None:
            sizes = [node["Resources"] for node in self._nodes]
            room = sum(
                int(min([size.get("CPU", 0) // cpus, *([size.get("GPU", 0) // gpus] if gpus else [])]))
                for size in sizes
            )
            if not room:
                raise ConfigError(
                    f"no node of the Ray cluster has the {cpus} CPUs and {gpus} GPUs that a shard needs",
                    field="execution.ray_cpus" if not gpus else "model.device",
                    remedy="Add such a node, or lower what a shard needs",
                )
            options = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
            self._pool = WorkerPool(lambda number: ActorWorker(options, credentials), room)
        return self._pool

    def close(self) -> None:
        """End the actors with their engines and models, and disconnect."""
        import ray

        if self._pool is not None:
            self._pool.close()
        if self._owned:
            ray.shutdown()


class ShardActor:
    """What runs on a node: computes shards one after the other in one process."""

    def compute(self, run: StageRun, spec: ShardSpec, credentials: Mapping[str, str]) -> Outcome:
        """Compute a shard, with credentials in this process's environment, and return what can be sent back."""
        os.environ.update(credentials)
        return compute_here(run, spec)


class ActorWorker:
    """An actor as a worker, see `ospo_core.stages.workers.Worker`.

    Args:
        options: what it needs of its node.
        credentials: of the storage; sent with each shard, since Ray keeps what an actor is made of in its tables.

    Raises:
        BrokenExecutor: its process died. TimeoutError: no node has room for it.
    """

    def __init__(self, options: Mapping[str, Any], credentials: Mapping[str, str]) -> None:
        import ray

        kind: Any = ray.remote(ShardActor)
        self._actor = kind.options(**options).remote()
        self._credentials = dict(credentials)
        try:
            ray.get(self._actor.__ray_ready__.remote(), timeout=NODE_SECONDS)
        except ray.exceptions.GetTimeoutError:
            self.kill()
            raise TimeoutError(f"no node of the Ray cluster had room within {NODE_SECONDS:.0f} s") from None
        except ray.exceptions.RayError as error:
            raise _broken(error) from None

    def compute(self, run: StageRun, spec: ShardSpec) -> Outcome:
        """Compute a shard on the actor's node, and wait for it."""
        import ray

        try:
            outcome: Outcome = ray.get(self._actor.compute.remote(run, spec, self._credentials))
        except ray.exceptions.RayError as error:  # what the shard raises is in the outcome
            raise _broken(error) from None
        return outcome

    def close(self) -> None:
        """End the process; Ray frees its GPU."""
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
        import ray

        ray.kill(self._actor)


def _broken(error: Exception) -> BrokenExecutor:
    return BrokenExecutor(str(error).strip().splitlines()[-1])


def actor_pool(run: StageRun) -> tuple[WorkerPool, StageRun]:
    """Return the actors that share the shards of a stage, and the stage run with paths valid on every node.

    The shard of an actor that dies goes to another, on any node, and a new one is started in its place.

    Raises:
        ConfigError: what is missing: Ray, the cluster, a storage that nodes can reach, a large enough node.
    """
    address = run.config.execution.ray_address
    _check_here(address)
    cpus, uses_gpu = run.config.execution.ray_cpus, run.stage.uses_gpu(run.config)
    connection: RayConnection = run.resources.workers(
        ["ray", address, cpus, uses_gpu], lambda: RayConnection(address, run.storage)
    )
    credentials = used_credentials(run.config.storage.credentials_block)
    pool = connection.actors(cpus, gpus_per_shard(run, connection.gpus), credentials)
    return pool, with_absolute_paths(run)


def _check_here(address: str) -> None:
    """Check what can be checked without the cluster."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "mapping shards over Ray needs the package ray",
            field="execution.runner",
            value="ray",
            remedy="Install it with `pip install ospo[ray]`, or use execution.runner=local",
        )
    _check_answers(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)


def _check_answers(address: str) -> None:
    """Check that a server listens at `host:port` or `ray://host:port`; names such as `auto` are left to Ray."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if port is None and address not in {"auto", "local"}:
        remedy = "Give auto, host:6379 or ray://host:10001"
        raise ConfigError("not an address", field=FIELD, value=address, remedy=remedy)
    if port is None:
        return
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, str(error)) from None


def _connect(address: str) -> None:
    """Connect this process as a driver, and keep Prefect's handler of SIGTERM, which cancels runs."""
    import ray

    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        ray.init(address=address, namespace="ospo", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        raise _unreachable(address, str(error).splitlines()[0]) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)


def _unreachable(address: str, problem: str) -> ConfigError:
    return ConfigError(
        f"the Ray cluster does not answer: {problem}",
        field=FIELD,
        value=address,
        remedy="Start it with `ray start --head`; from a machine outside the cluster use ray://host:10001",
    )


def _check_nodes(nodes: Sequence[dict[str, Any]], storage: Storage) -> None:
    """Check that every node can import this project, and sees a local storage folder."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    key, local = f"probe-{uuid4().hex}", storage.protocol == "file"
    if local:
        storage.write(key, b"seen by all nodes")
    try:
        look = ray.remote(num_cpus=0, max_retries=RESTARTS)(_sees)
        strategies = [On(node_id=node["NodeID"], soft=False) for node in nodes]
        asked = [look.options(scheduling_strategy=on).remote(storage, key) for on in strategies]
        seen = ray.get(asked, timeout=NODE_SECONDS)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise ConfigError(
            f"a node of the Ray cluster cannot run this project: {str(error).strip().splitlines()[-1]}",
            field=FIELD,
            remedy="Install the same versions of ospo, Python and Ray on every node",
        ) from error
    finally:
        if local:
            storage.delete(key)
    blind = sorted(node["NodeManagerAddress"] for node, sees in zip(nodes, seen, strict=True) if not sees)
    if local and blind:
        raise ConfigError(
            f"nodes of the Ray cluster do not see this folder: {', '.join(blind)}",
            field="storage.root",
            value=storage.root,
            remedy="Use a folder that all nodes share, or s3://bucket/prefix",
        )


def _sees(storage: Storage, key: str) -> bool:
    """Return, on a node, whether it sees the local object that the flow just wrote."""
    return storage.protocol != "file" or storage.exists(key)
