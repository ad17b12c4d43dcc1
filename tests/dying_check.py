"""What a worker of `kzoo check` does whose process is killed; without Keras, as a process imports it to die."""

import os


def die(name, checks):
    """Dies at `plain18`, and checks every other model."""
    if name == "plain18":
        os._exit(9)
    from kzoo.check import matrix

    return matrix.check_in_worker(name, checks)
