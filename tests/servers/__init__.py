"""Real servers for tests: each in its own folder, on a free port, stopped by its process id."""

from tests.servers.mail import MailServer, mail_server
from tests.servers.mariadb import MariaDB, mariadb
from tests.servers.mongo import ferretdb, nx_27017, secantusdb
from tests.servers.mutt import Mutt
from tests.servers.ollama import Ollama, ollama
from tests.servers.process import free_port, missing, running, script, wait_for_port

__all__ = [
    "MailServer",
    "MariaDB",
    "Mutt",
    "Ollama",
    "ferretdb",
    "free_port",
    "mail_server",
    "mariadb",
    "missing",
    "nx_27017",
    "ollama",
    "running",
    "script",
    "secantusdb",
    "wait_for_port",
]
