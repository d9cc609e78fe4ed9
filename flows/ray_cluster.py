"""Shards on the nodes of a Ray cluster, through prefect-ray.

The connection is owned like an engine: the first stage of a phase opens it, and it is released at the end of the phase
or of the flow. Ray then ends the worker processes of this connection with their engines and models, so that nothing is
left on a GPU when the next phase or training begins.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from prefect.settings import get_current_settings

from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError
from ospo_core.models.hub import repository_of
from ospo_core.models.locate import EMBEDDED_PREFIX
from ospo_core.stages import StageRun
from ospo_core.stages.model_ref import CURRENT, STORED

CONNECT_SECONDS = 10.0
"""Seconds to wait for the cluster's port; Ray itself would wait for minutes."""

NODE_SECONDS = 120.0
"""Seconds to wait for all nodes to start a process that can import this project; free nodes need a few."""

RESTARTS = 3
"""How often Ray restarts a shard after its process or node died."""

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
    lists = tuple(map(_absolute, config.prompts.contamination_lists))
    sections = {
        "storage": config.storage.model_copy(update=storage),
        "model": config.model.model_copy(update={"path": _absolute_model(config.model.path)}),
        "prompts": config.prompts.model_copy(update={"contamination_lists": lists}),
        "evaluation": config.evaluation.model_copy(update={"prompts": _absolute(config.evaluation.prompts)}),
    }
    model = run.model.model_copy(update={"source": _absolute_model(run.model.source)})
    return replace(run, config=config.model_copy(update=sections), model=model)


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
        if self._owned:
            _connect(address)
        try:
            self._nodes = [node for node in ray.nodes() if node["Alive"]]
            _check_reach(self._nodes)
            _check_nodes(self._nodes, storage)
        except BaseException:  # no failure may leave the connection open
            self.close()
            raise
        self.gpus = sum(node["Resources"].get("GPU", 0.0) for node in self._nodes)

    def check_room(self, cpus: int, gpus: int) -> None:
        """Raise ConfigError if no node is large enough for one shard; Ray would wait for such a node forever."""
        sizes = [node["Resources"] for node in self._nodes]
        if not any(size.get("CPU", 0) >= cpus and size.get("GPU", 0) >= gpus for size in sizes):
            raise ConfigError(
                f"no node of the Ray cluster has the {cpus} CPUs and {gpus} GPUs that a shard needs",
                field="execution.ray_cpus" if not gpus else "model.device",
                remedy="Add such a node, or lower what a shard needs",
            )

    def close(self) -> None:
        """Disconnect; Ray ends this run's worker processes with their engines and models."""
        import ray

        if self._owned:
            ray.shutdown()


@contextmanager
def ray_runner(run: StageRun) -> Iterator[tuple[Any, StageRun]]:
    """Yield a runner that maps a stage's shards over the cluster, and the stage run with paths valid on every node.

    A shard whose process dies is restarted by Ray on any free node; a shard that raises is retried by its task. Shards
    are spread over the nodes, as many at a time as their CPUs and GPUs allow.

    Raises:
        ConfigError: what is missing: prefect-ray, a server or a storage that nodes can reach, the cluster, a large
            enough node.
    """
    address = run.config.execution.ray_address
    _check_here(address)
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    connection: RayConnection = run.resources.cluster(address, lambda: RayConnection(address, run.storage))
    cpus, gpus = run.config.execution.ray_cpus, gpus_per_shard(run, connection.gpus)
    connection.check_room(cpus, gpus)
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": RESTARTS, "scheduling_strategy": "SPREAD"}
    with RayTaskRunner(address=address) as runner, remote_options(**options):
        yield runner, with_absolute_paths(run)


def _check_here(address: str) -> None:
    """Check what can be checked without the cluster."""
    missing = [name for name in ("ray", "prefect_ray") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"mapping shards over Ray needs {' and '.join(missing)}",
            field="execution.runner",
            value="ray",
            remedy="Install it with `pip install ospo[ray]`, or use execution.runner=local",
        )
    if not get_current_settings().api.url:
        raise ConfigError(
            "the nodes of a Ray cluster cannot reach Prefect's embedded server",
            field="PREFECT_API_URL",
            remedy="Start `prefect server start` where all nodes reach it and set the variable",
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


def _check_reach(nodes: Sequence[dict[str, Any]]) -> None:
    """Check that the Prefect server is not at an address that only this machine knows."""
    import ray

    here, url = ray.util.get_node_ip_address(), get_current_settings().api.url or ""
    addresses = {node["NodeManagerAddress"] for node in nodes} - {here}
    if _is_loopback(urlsplit(url).hostname or "") and not all(_is_loopback(address) for address in addresses):
        raise ConfigError(
            "the other nodes of the Ray cluster cannot reach a server on loopback",
            field="PREFECT_API_URL",
            value=url,
            remedy="Set it to an address that all nodes know",
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


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
