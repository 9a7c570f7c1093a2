"""An ordinary mail client: mutt, as a student uses it on a terminal."""

import contextlib
import mailbox
import os
import pty
import subprocess
import threading
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from urllib.parse import quote

from tests.servers.mail import MailServer
from tests.servers.process import packaged

_SECONDS = 60

# What it sends is kept in the INBOX as well, so a thread holds both sides. Threads are made by
# References alone, never by subjects.
_CONFIGURATION = """
set realname="{name}" from="{address}" use_from=yes hostname="uni.test"
set folder="imaps://{login}:{imaps_port}/" spoolfile="+INBOX" record="+INBOX" postponed=""
set imap_user="{address}" imap_pass="{password}"
set smtp_url="smtp://{login}:{submission_port}/" smtp_pass="{password}"
set ssl_force_tls=yes ssl_starttls=yes ssl_ca_certificates_file="{ca_file}"
set sort=threads sort_aux=date strict_threads=yes
set fast_reply=yes include=yes autoedit=yes editor="{editor}" signature="{signature}"
set quit=yes wait_key=no mbox_type=mbox confirmcreate=no confirmappend=no
set charset="utf-8" history=0
"""


@dataclass(frozen=True)
class Mutt:
    """The client of one account. Every method starts it and waits until it has ended."""

    server: MailServer
    address: str
    folder: Path
    """A folder of its own."""
    name: str = "Ana García"

    def __post_init__(self) -> None:
        packaged("mutt", "mutt")
        self.folder.mkdir()
        (self.folder / "signature").write_text(f"{self.name}\nGrado en Física, 2.º B\n")
        # Where the text is written: above the quotation, as most people do.
        editor = self.folder / "editor"
        editor.write_text(
            f'#!/bin/sh\ncat {self.folder}/text "$1" > "$1.new" && mv "$1.new" "$1"\n'
        )
        editor.chmod(0o755)
        (self.folder / "muttrc").write_text(
            _CONFIGURATION.format(
                **vars(self.server),
                name=self.name,
                address=self.address,
                password=self.server.accounts[self.address],
                login=f"{quote(self.address, safe='')}@{self.server.host}",
                editor=editor,
                signature=self.folder / "signature",
            )
        )

    def write(self, to: str, subject: str, text: str) -> None:
        """Send a new mail."""
        self._run("-s", subject, "--", to, text=text)

    def reply(self, message_id: str, text: str) -> None:
        """Reply to the mail in the INBOX whose Message-ID contains ``message_id``."""
        (self.folder / "text").write_text(text)
        self._press(f"<search>~i {message_id}<enter><reply><send-message><quit>")

    def thread(self, message_id: str) -> list[EmailMessage]:
        """The mails that it shows in one thread with that one, in its order."""
        saved = self.folder / "thread.mbox"
        saved.unlink(missing_ok=True)
        self._press(
            f"<limit>~(~i {message_id})<enter><tag-pattern>~A<enter>"
            f"<tag-prefix><copy-message>{saved}<enter><quit>"
        )
        parser = BytesParser(policy=default)
        box = mailbox.mbox(saved, factory=parser.parse)  # type: ignore[arg-type]
        with contextlib.closing(box):
            return [message for message in box if isinstance(message, EmailMessage)]

    def _press(self, keys: str) -> None:
        """Start it on a terminal, with these keys pressed."""
        controller, terminal = pty.openpty()
        shown: list[bytes] = []

        def look() -> None:
            with contextlib.suppress(OSError):
                while screen := os.read(controller, 10_000):
                    shown.append(screen)

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        try:
            self._run("-e", f"push '{keys}'", terminal=terminal)
        except (subprocess.SubprocessError, AssertionError) as error:
            raise AssertionError(b"".join(shown)[-4000:].decode(errors="replace")) from error
        finally:
            os.close(terminal)
            looking.join(5)
            os.close(controller)

    def _run(self, *arguments: str, text: str = "", terminal: int | None = None) -> None:
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TERM": "vt100",
            "LINES": "50",
            "COLUMNS": "160",
        }
        command = [packaged("mutt", "mutt"), "-n", "-F", str(self.folder / "muttrc"), *arguments]
        done = subprocess.run(
            command,
            env=environment,
            cwd=self.folder,
            timeout=_SECONDS,
            check=False,
            start_new_session=True,
            **(
                {"input": text.encode(), "capture_output": True}
                if terminal is None
                else {"stdin": terminal, "stdout": terminal, "stderr": terminal}
            ),
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
