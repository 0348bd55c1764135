"""Encrypting with a pause after each scene: imported by the workers of a command to be killed."""

import time

from clients.vault.shards.sealing import SceneTask, seal_scene


def slow_seal(task: SceneTask) -> None:
    seal_scene(task)
    time.sleep(0.3)
