"""An institution's mail server: Postfix takes the mail, Dovecot keeps the mailboxes."""

import contextlib
import imaplib
import os
import pwd
import shutil
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.policy import default
from pathlib import Path

from tests.servers.certificates import write_certificate
from tests.servers.process import Service, free_port, missing, packaged

HOST = "127.0.0.1"
DELIVERY_SECONDS = 20.0

_MAILBOX_OWNER = "mail"
_POSTFIX = Path("/usr/lib/postfix/sbin")

# Relays nothing: mail for other domains is taken from who has logged in, and comes back as a
# bounce. Nothing is looked up in the DNS.
_MAIN_CF = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = {programs}
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = {folder}
maillog_file = {folder}/postfix.log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
myhostname = mail.uni.test
mydestination =
mynetworks =
alias_maps =
alias_database =
local_recipient_maps =
smtputf8_enable = yes
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {folder}/mailboxes
virtual_mailbox_maps = texthash:{folder}/recipients
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
default_transport = nowhere:
smtp_dns_support_level = disabled
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_tls_chain_files = {certificate}
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_error_sleep_time = 0
queue_run_delay = 5s
minimal_backoff_time = 5s
maximal_backoff_time = 10s
"""

_MASTER_CF = """
{smtp_port}        inet n - n - - smtpd
{submission_port}  inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_client_restrictions=permit_sasl_authenticated,reject
{submissions_port} inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_client_restrictions=permit_sasl_authenticated,reject
cleanup  unix n - n - 0 cleanup
qmgr     unix n - n 300 1 qmgr
tlsmgr   unix - - n 1000? 1 tlsmgr
rewrite  unix - - n - - trivial-rewrite
bounce   unix - - n - 0 bounce
defer    unix - - n - 0 bounce
trace    unix - - n - 0 bounce
verify   unix - - n - 1 verify
flush    unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp     unix - - n - - smtp
showq    unix n - n - - showq
error    unix - - n - - error
nowhere  unix - n n - - pipe
  user=nobody argv=/bin/sh -c {{echo 5.1.2 no such host; exit 68}}
retry    unix - - n - - error
discard  unix - - n - - discard
virtual  unix - n n - - virtual
anvil    unix - - n - 1 anvil
scache   unix - - n - 1 scache
postlog  unix-dgram n - n - 1 postlogd
"""

_DOVECOT_CONF = """
base_dir = {folder}/dovecot
state_dir = {folder}/dovecot-state
log_path = {folder}/dovecot.log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{certificate}
disable_plaintext_auth = yes
auth_mechanisms = plain login
auth_failure_delay = 0
mail_location = maildir:{folder}/mailboxes/%u
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 50
namespace inbox {{
  inbox = yes
  separator = /
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/homes/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = {imaps_port}
    ssl = yes
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {folder}/queue/private/auth {{
    mode = 0660
    user = postfix
    group = postfix
  }}
}}
"""


@dataclass
class MailServer:
    """A mail server that runs. Addresses are the user names.

    ``ca_file`` holds the authority to trust: as ``SSL_CERT_FILE`` for a process, and in
    ``tls_context`` for this one.
    """

    folder: Path
    accounts: dict[str, str]
    """Passwords by address."""
    ca_file: Path
    host: str = HOST
    smtp_port: int = field(default_factory=free_port)
    """For other mail servers: takes mail for the accounts from anybody, offers STARTTLS."""
    submission_port: int = field(default_factory=free_port)
    """As port 587: wants STARTTLS and a login."""
    submissions_port: int = field(default_factory=free_port)
    """As port 465: TLS from the first byte, wants a login."""
    imap_port: int = field(default_factory=free_port)
    """As port 143: wants STARTTLS before a login."""
    imaps_port: int = field(default_factory=free_port)
    """As port 993: TLS from the first byte."""
    imap: Service = field(init=False)
    """Dovecot, to be stopped and started; while it is away, logins to Postfix fail too."""

    def __post_init__(self) -> None:
        self.imap = Service(
            [_dovecot(), "-F", "-c", str(self.folder / "dovecot.conf")],
            self.folder / "dovecot.log",
            lambda: _greets(self.imaps_port, self.tls_context),
        )

    @property
    def tls_context(self) -> ssl.SSLContext:
        """A context for clients that trusts this server and no other."""
        return ssl.create_default_context(cafile=self.ca_file)

    def deliver(self, message: EmailMessage | bytes, to: str, *, sender: str = "") -> None:
        """Hand in a mail as another mail server does; an empty sender is the null return path."""
        content = message if isinstance(message, bytes) else message.as_bytes(policy=SMTP_POLICY)
        with smtplib.SMTP(self.host, self.smtp_port, timeout=30) as client:
            client.sendmail(sender, [to], content)

    @contextlib.contextmanager
    def mailbox(self, address: str, folder: str = "INBOX") -> Iterator[imaplib.IMAP4_SSL]:
        """An IMAP connection as a mail client has it, with ``folder`` selected."""
        client = imaplib.IMAP4_SSL(
            self.host, self.imaps_port, ssl_context=self.tls_context, timeout=30
        )
        with client:
            # Not `login`: imaplib lets it take ASCII only.
            login = f"\0{address}\0{self.accounts[address]}".encode()
            client.authenticate("PLAIN", lambda _challenge: login)
            kind, data = client.select(folder)
            assert kind == "OK", data
            yield client

    def messages(
        self, address: str, folder: str = "INBOX", *, at_least: int = 0
    ) -> list[EmailMessage]:
        """The mails in a folder, oldest first; waits until there are ``at_least`` so many.

        Reading them here marks none as seen.
        """
        deadline = time.monotonic() + DELIVERY_SECONDS
        while True:
            with self.mailbox(address, folder) as client:
                _, found = client.uid("SEARCH", "ALL")
                uids = found[0].split() if found and found[0] else []
                if len(uids) >= at_least:
                    return [_fetched(client, uid) for uid in uids]
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(uids)} of {at_least} mails arrived:\n{self.logs()}")
            time.sleep(0.1)

    def flags(self, address: str, folder: str = "INBOX") -> list[set[str]]:
        """The flags of the mails in a folder (``\\Seen`` and so on), oldest first."""
        with self.mailbox(address, folder) as client:
            _, rows = client.fetch("1:*", "(FLAGS)")
        return [
            {flag.decode() for flag in imaplib.ParseFlags(row)}
            for row in rows
            if isinstance(row, bytes)
        ]

    def uidvalidity(self, address: str, folder: str = "INBOX") -> int:
        """The folder's UIDVALIDITY."""
        with self.mailbox(address, folder) as client:
            _, data = client.response("UIDVALIDITY")
            assert data[0] is not None
            return int(data[0])

    def change_uidvalidity(self, address: str) -> None:
        """Number the INBOX anew, as a server does that was moved or restored.

        The mails keep their flags and get other UIDs; open connections are cut.
        """
        before = self.uidvalidity(address)
        self.imap.stop()
        for file in (self.folder / "mailboxes" / address).glob("dovecot*"):
            file.unlink()
        # A UIDVALIDITY is the second at which the numbering began.
        while time.time() < before + 1:
            time.sleep(0.05)
        self.imap.start()

    def logs(self) -> str:
        """What both servers have said."""
        files = (self.folder / "postfix.log", self.folder / "dovecot.log")
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())


@contextlib.contextmanager
def mail_server(accounts: Mapping[str, str]) -> Iterator[MailServer]:
    """Run Postfix and Dovecot with these accounts: passwords by address.

    Their folder is not pytest's: they give up root's rights and must still reach their files.
    """
    control = packaged("postfix", "postfix")
    _dovecot()
    if os.geteuid():
        missing("The right to start Postfix and Dovecot", "run the tests as root")
    with tempfile.TemporaryDirectory(prefix="mail-server-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        server, authority = write_certificate(folder)
        mail = MailServer(folder, dict(accounts), authority)
        _configure(mail, server)
        configuration = str(folder / "postfix")
        # It makes the queue's folders. `postfix start-fg` would not hand a signal on to the master.
        subprocess.run(
            [control, "-c", configuration, "check"], check=True, capture_output=True, timeout=60
        )
        command = [str(_POSTFIX / "master"), "-s", "-c", configuration]
        postfix = Service(command, folder / "postfix.log", lambda: _greets(mail.smtp_port))
        with mail.imap, postfix:
            yield mail


def _dovecot() -> str:
    return packaged("dovecot", "dovecot-imapd")


def _configure(mail: MailServer, certificate: Path) -> None:
    folder = mail.folder
    owner = pwd.getpwnam(_MAILBOX_OWNER)
    postfix = pwd.getpwnam("postfix")
    for name in ("postfix", "dovecot", "dovecot-state", "queue", "queue/private"):
        (folder / name).mkdir()
    for name, user in (("data", postfix), ("mailboxes", owner), ("homes", owner)):
        (folder / name).mkdir(mode=0o700)
        os.chown(folder / name, user.pw_uid, user.pw_gid)
    os.chown(folder / "queue/private", postfix.pw_uid, -1)
    (folder / "queue/private").chmod(0o700)
    values = {
        **vars(mail),
        "certificate": certificate,
        "domains": ", ".join({address.rpartition("@")[2] for address in mail.accounts}),
        "programs": _POSTFIX,
        "uid": owner.pw_uid,
        "gid": owner.pw_gid,
    }
    (folder / "postfix/main.cf").write_text(_MAIN_CF.format(**values))
    (folder / "postfix/master.cf").write_text(_MASTER_CF.format(**values))
    (folder / "dovecot.conf").write_text(_DOVECOT_CONF.format(**values))
    # A maildir, as the slash at the end tells Postfix.
    (folder / "recipients").write_text("".join(f"{a} {a}/\n" for a in mail.accounts))
    users = folder / "users"
    users.write_text("".join(f"{a}:{{PLAIN}}{p}\n" for a, p in mail.accounts.items()))
    shutil.chown(users, "dovecot", "dovecot")
    users.chmod(0o600)


def _greets(port: int, tls: ssl.SSLContext | None = None) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 2) as plain:
        if tls is None:
            return bool(plain.recv(1))
        with tls.wrap_socket(plain, server_hostname=HOST) as encrypted:
            return bool(encrypted.recv(1))
    return False


def _fetched(client: imaplib.IMAP4_SSL, uid: bytes) -> EmailMessage:
    _, rows = client.uid("FETCH", uid.decode(), "(BODY.PEEK[])")
    row = rows[0]
    assert isinstance(row, tuple)
    message = message_from_bytes(row[1], policy=default)
    assert isinstance(message, EmailMessage)
    return message
