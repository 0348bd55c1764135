"""Encrypting with a pause after each scene: imported by the workers of a command to be killed."""

import time

from clients.vault.shards.encrypting import SceneTask, encrypt_scene


def encrypt_slowly(task: SceneTask) -> None:
    encrypt_scene(task)
    time.sleep(0.3)
