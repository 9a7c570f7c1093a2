"""What a busy machine does to the processes that read files."""

import threading
import time

import psutil


def kill_next_child(module: str) -> None:
    """Kill the next process of our own that runs ``module``, as the kernel does without memory."""

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for child in psutil.Process().children():
                try:
                    if module in child.cmdline():
                        child.kill()
                        return
                except psutil.NoSuchProcess:
                    pass
            time.sleep(0.002)

    threading.Thread(target=kill, daemon=True).start()
