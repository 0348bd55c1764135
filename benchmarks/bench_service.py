"""What the service costs beside its model: requests a second and latency by number of clients.

    python benchmarks/bench_service.py [--model PATH | --size HEIGHTxWIDTH] [--seconds S]

In one run, on the same cores: the bare model on batches of 1 and of 8 (the faster one counts),
before and after each measurement, and between them a service in a process of its own with 1, 8 and
32 clients that ask one query after the other and read its labels. Ratios are of throughputs, and of
processor time a query, which a busy machine disturbs less; the clients' own work counts against the
service. Without `--model`, the model of the default config with weights that nobody trained.
"""

import argparse
import http.client
import multiprocessing
import os
import time
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import torch
from PIL import Image

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.inference.loading import load
from fl_ppseg.inference.query_spec import spec_of
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.service.app import create_app
from fl_ppseg.service.limits import Limits
from fl_ppseg.service.server import Place, serve
from fl_ppseg.setr.build import build_setr
from fl_ppseg.system.command_line import image_size

CLIENTS = (1, 8, 32)
OPEN = Limits(requests_per_minute=10**7, burst=10**7, max_requests=128)


def segmenter(model: Path | None, size: tuple[int, int]) -> Segmenter:
    if model is not None:
        return load(model)
    arm: ArmConfig = builtin_arms()["per-image-invariant"]
    network = build_setr(ModelConfig(weights=None), 19, size, seed=0)
    spec = spec_of(arm, network.patch_size, size)
    return Segmenter(network, spec, load_class_table("cityscapes"), "untrained")


def bare(model: Segmenter, queries: np.ndarray, seconds: float) -> tuple[float, float]:
    """Queries a second and processor seconds a query, without anything around the model."""
    model.segment_batch(queries)
    begin, spent, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < seconds:
        model.segment_batch(queries)
        done += len(queries)
    return done / (time.perf_counter() - begin), (time.process_time() - spent) / done


def alone(model: Segmenter, queries: np.ndarray, seconds: float) -> tuple[float, float]:
    """The better of both sizes of a batch, in each respect."""
    found = [bare(model, queries[:batch], seconds / 2) for batch in (1, len(queries))]
    return max(rate for rate, _ in found), min(spent for _, spent in found)


def serving(pipe: Connection, model: Path | None, size: tuple[int, int]) -> None:
    app = create_app(segmenter(model, size), limits=OPEN)
    serve(app, Place("127.0.0.1", 0), pipe.send)


def asking(port: int, body: bytes, until: float, latencies: list[float]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while time.perf_counter() < until:
        begin = time.perf_counter()
        connection.request("POST", "/v1/segment", body, {"Content-Type": "image/png"})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        latencies.append(time.perf_counter() - begin)
    connection.close()


def asked(port: int, bodies: list[bytes], number: int, seconds: float) -> tuple[float, list[float]]:
    """Answers a second to so many clients, and the seconds that each took."""
    latencies: list[float] = []
    begin = time.perf_counter()
    threads = [
        Thread(target=asking, args=(port, bodies[i % len(bodies)], begin + seconds, latencies))
        for i in range(number)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(latencies) / (time.perf_counter() - begin), latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--size", type=image_size, default=(64, 128))
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    model = segmenter(options.model, options.size)
    size = model.spec.image_size
    noise = np.random.default_rng(0).integers(0, 256, (OPEN.max_batch, 3, *size)).astype(np.uint8)
    print(f"{size[0]}x{size[1]}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    bodies = []
    for query in noise:
        content = BytesIO()
        Image.fromarray(query.transpose(1, 2, 0)).save(content, "PNG", compress_level=1)
        bodies.append(content.getvalue())
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serving, args=(theirs, options.model, options.size))
    process.start()
    port = int(ours.recv().rstrip("/").rpartition(":")[2])
    asked(port, bodies, 4, 1.0)
    service = psutil.Process(process.pid)
    for number in CLIENTS:
        before = alone(model, noise, options.seconds / 2)
        spent = sum(service.cpu_times()[:2]) + time.process_time()
        rate, latencies = asked(port, bodies, number, options.seconds)
        spent = sum(service.cpu_times()[:2]) + time.process_time() - spent
        after = alone(model, noise, options.seconds / 2)
        best, own = (before[0] + after[0]) / 2, (before[1] + after[1]) / 2
        p50, p95 = np.quantile(latencies, (0.5, 0.95))
        each = spent / len(latencies)
        print(
            f"{number:2} clients: {rate:.1f}/s, {rate / best:.2f} of the bare model's; processor "
            f"time {each * 1000:.0f} ms a query, {each / own:.2f} of the bare model's; latency p50 "
            f"{p50 * 1000:.0f} ms, {p50 * best:.1f} of the bare model's time a query, p95 "
            f"{p95 * 1000:.0f} ms, {p95 * best:.1f}"
        )
    print(f"load {os.getloadavg()[0]:.1f}")
    process.terminate()
    process.join()


if __name__ == "__main__":
    main()
