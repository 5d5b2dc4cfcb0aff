"""Every setting of the service, from environment variables. docs/configuration.md explains each of them."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import dj_database_url
from corsheaders.defaults import default_headers
from django.core.exceptions import ImproperlyConfigured

from runners_project import private  # first: it sets the umask
from runners_project.database import statement_timeout
from runners_project.env import (
    check_number,
    envbool,
    envchoice,
    envfallbacks,
    envfloat,
    envint,
    envlist,
    envmask,
    envnetworks,
    envpaths,
    envrate,
    envsecret,
    envstr,
    envtoken,
)

PACKAGE_DIR = Path(__file__).resolve().parent
# Where the default database and the collected static files are: the checkout, or the working directory of an installed
# package, whose own directory must not change.
BASE_DIR = PACKAGE_DIR.parent if (PACKAGE_DIR.parent / "manage.py").is_file() else Path.cwd()

# --- Django ----------------------------------------------------------------------------------------------------------

DEBUG = envbool("DEBUG", False)

SECRET_KEY = envsecret("SECRET_KEY")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set. Create one with: python3 -c 'import secrets; print(secrets.token_urlsafe(50))' "
            "and give it to the service as the environment variable SECRET_KEY (or set DEBUG=1 on your own machine)."
        )
    SECRET_KEY = "development-only-key-that-signs-nothing-of-value"  # noqa: S105
# Each secret NAME that others send to the service, or that it has signed with, has NAME_FALLBACKS: values that are
# still accepted while the secret is rotated (docs/operations/secrets.md).
SECRET_KEY_FALLBACKS = envfallbacks("SECRET_KEY_FALLBACKS")

ALLOWED_HOSTS = envlist("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = envlist("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "runners_project.apps.SiteConfig",  # django.contrib.admin
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "profiles",
    "runners",
]

CORS_ALLOWED_ORIGINS = [origin for origin in envlist("CORS_ALLOWED_ORIGINS") if origin != "*"]
CORS_ALLOW_ALL_ORIGINS = "*" in envlist("CORS_ALLOWED_ORIGINS")
CORS_URLS_REGEX = r"^/+v4/"
CORS_ALLOW_HEADERS = [*default_headers, "idempotency-key", "prefer", "traceparent", "x-request-id"]
CORS_EXPOSE_HEADERS = ["Retry-After", "Location", "WWW-Authenticate", "Preference-Applied", "Idempotent-Replayed"]
CORS_EXPOSE_HEADERS += ["X-Request-ID"]
CORS_EXPOSE_HEADERS += ["X-Log-Offset", "X-Log-Next-Offset", "X-Log-Size", "X-Log-Ended"]
CORS_PREFLIGHT_MAX_AGE = 600

# Each layer slows down every request: docs/benchmarks.md says what a status costs.
MIDDLEWARE = [
    "runners_project.request_id.RequestIdMiddleware",
    "runners_project.metrics.MetricsMiddleware",
    "runners_project.health.HealthMiddleware",
    "runners_project.health.MigrationsMiddleware",
    "runners.pages.polls.UnchangedPollMiddleware",
    "runners.web.middleware.BodyLimitMiddleware",
    "runners.web.compression.CompressionMiddleware",
    "runners.api.middleware.ApiPathMiddleware",
    "runners.web.middleware.ActingMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "runners.api.status_middleware.StatusMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "runners.web.middleware.RejectNulMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "runners.web.middleware.ContentSecurityPolicyMiddleware",
]
if CORS_ALLOWED_ORIGINS or CORS_ALLOW_ALL_ORIGINS:
    MIDDLEWARE.insert(2, "corsheaders.middleware.CorsMiddleware")

ROOT_URLCONF = "runners_project.urls"
WSGI_APPLICATION = "runners_project.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PACKAGE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database --------------------------------------------------------------------------------------------------------

DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(
        envstr("DATABASE_URL", f"sqlite:///{BASE_DIR / 'db.sqlite3'}"),
        conn_max_age=envint("DATABASE_CONN_MAX_AGE", 600),
        conn_health_checks=True,
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,  # seconds to wait for another writer
        # BEGIN IMMEDIATE: otherwise a transaction that reads first and writes later fails at once instead of waiting.
        "transaction_mode": "IMMEDIATE",
        # WAL: readers never wait for a writer. NORMAL: no fsync per commit. A power cut may lose the last commits, but
        # the database stays consistent.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        **DATABASES["default"].get("OPTIONS", {}),  # from DATABASE_URL, such as ?timeout=5
    }
    check_number("DATABASE_URL: timeout", DATABASES["default"]["OPTIONS"]["timeout"], least=1, most=60)
elif DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    DATABASES["default"]["ENGINE"] = "runners_project.postgresql"
    DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True  # pgbouncer in transaction mode does not support them
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": envint("DATABASE_CONNECT_TIMEOUT", 5, least=1, most=60),
        "statement_timeout": statement_timeout(
            sys.argv,
            requests=envfloat("DATABASE_STATEMENT_TIMEOUT", 15, least=1, most=600),
            watch=envfloat("DATABASE_WATCH_TIMEOUT", 60, least=1, most=600),
        ),
        # Detect a server that vanished without closing the connection, while nothing is sent or acknowledged.
        "keepalives_idle": 20,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,  # milliseconds
        **DATABASES["default"].get("OPTIONS", {}),  # from DATABASE_URL, such as ?sslmode=require
    }
    check_number("DATABASE_URL: connect_timeout", DATABASES["default"]["OPTIONS"]["connect_timeout"], least=1, most=60)
    check_number("DATABASE_URL: statement_timeout", DATABASES["default"]["OPTIONS"]["statement_timeout"], least=0)
    # Tasks are rows of PostgreSQL (runners/worker). With SQLite, the worker needs no tasks.
    INSTALLED_APPS.insert(INSTALLED_APPS.index("profiles"), "procrastinate.contrib.django")
# runners_project/postgresql/schema.py has the reasons.
ZERO_DOWNTIME_MIGRATIONS_LOCK_TIMEOUT = "500ms"
ZERO_DOWNTIME_MIGRATIONS_IDEMPOTENT_SQL = True
PROCRASTINATE_AUTODISCOVER_MODULE_NAME = ""
PROCRASTINATE_ON_APP_READY = "runners.worker.tasks.register"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- People, sessions, HTTPS -----------------------------------------------------------------------------------------

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
CSRF_FAILURE_VIEW = "runners_project.error_pages.csrf_failure"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "pages:home"

# The header in which a reverse proxy sends the user who has signed in there, such as X-Remote-User. Use it only behind
# a proxy that removes the header from clients' requests (docs/pages.md). A client that bypasses the proxy can be
# anybody.
RUNNERS_REMOTE_USER_HEADER = envstr("RUNNERS_REMOTE_USER_HEADER")
# How a request proves that it comes from that proxy: by a secret in another header, or by the use of a Unix socket.
RUNNERS_REMOTE_USER_SECRET = envsecret("RUNNERS_REMOTE_USER_SECRET")
RUNNERS_REMOTE_USER_SECRET_FALLBACKS = envfallbacks("RUNNERS_REMOTE_USER_SECRET_FALLBACKS")
RUNNERS_REMOTE_USER_SOCKET = envbool("RUNNERS_REMOTE_USER_SOCKET", False)
RUNNERS_REMOTE_USER_CREATE = envbool("RUNNERS_REMOTE_USER_CREATE", True)  # create an account for unknown users
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
if RUNNERS_REMOTE_USER_HEADER:
    if not (RUNNERS_REMOTE_USER_SECRET or RUNNERS_REMOTE_USER_SOCKET):
        raise ImproperlyConfigured(
            "RUNNERS_REMOTE_USER_HEADER is set, so everybody who reaches the service could sign in as anybody by "
            "sending this header. Authenticate the proxy: set RUNNERS_REMOTE_USER_SECRET here, and let the proxy send "
            "the same text in the header X-Remote-User-Secret. Or bind the service to a Unix socket that only the "
            "proxy can open, and set RUNNERS_REMOTE_USER_SOCKET=1."
        )
    after = MIDDLEWARE.index("django.contrib.auth.middleware.AuthenticationMiddleware") + 1
    MIDDLEWARE.insert(after, "runners.pages.remote_user.ProxyUserMiddleware")
    AUTHENTICATION_BACKENDS.insert(0, "runners.pages.remote_user.ProxyUserBackend")

# Nothing from another host, nothing inline, no eval. The policy is the same for the pages, the admin and /docs.
CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],  # Swagger UI's icons
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    },
}

BEHIND_HTTPS_PROXY = envbool("BEHIND_HTTPS_PROXY", False)
if BEHIND_HTTPS_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BEHIND_HTTPS_PROXY
SECURE_HSTS_SECONDS = envint("SECURE_HSTS_SECONDS", 0)
# `check --deploy` warns of settings that the service cannot decide. W008: the proxy redirects to HTTPS, and local
# clients use HTTP (docs/deployment.md). W005, W021: only the owner knows whether other names have HTTPS.
SILENCED_SYSTEM_CHECKS = ["security.W008", "security.W005", "security.W021"] if BEHIND_HTTPS_PROXY else []
X_FRAME_OPTIONS = "DENY"

# Who may use the API (runners/api/authentication.py): ALL = every request needs credentials, WRITEONLY = reading is
# open, NONE = everything is open. The Autosubmit API has the same names.
PROTECTION_LEVEL = envchoice("PROTECTION_LEVEL", "ALL", ("ALL", "WRITEONLY", "NONE"))
# The Autosubmit API's SECRET_KEY, which signs the JWTs of its logins, and its fixed token for scripts. Empty: such
# credentials are not accepted.
AS_API_JWT_SECRET = envsecret(
    "AS_API_JWT_SECRET",
    published="54cb6bdb20862b49d07825ef156ea2a789260dafa8c5f4a587e11e2f4b26c312",
    what="the default SECRET_KEY of the Autosubmit API",
)
AS_API_JWT_SECRET_FALLBACKS = envfallbacks("AS_API_JWT_SECRET_FALLBACKS")
AS_API_SECRET_TOKEN = envsecret("AS_API_SECRET_TOKEN")
AS_API_SECRET_TOKEN_FALLBACKS = envfallbacks("AS_API_SECRET_TOKEN_FALLBACKS")
TOKEN_DAYS = envint("TOKEN_DAYS", 90, least=0, most=36_500)


# --- Caches ----------------------------------------------------------------------------------------------------------

# In the memory of each process. `default` has the counters of the rate limits. `login-polls` is a cache of its own,
# because requests without credentials can fill it, and a full cache drops entries, also those of other people.
CACHES: dict[str, dict[str, Any]] = {
    name: {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": name,
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
    for name in ("default", "login-polls")
}

# --- The API ---------------------------------------------------------------------------------------------------------

API_MAX_BODY = envint("API_MAX_BODY", 1024 * 1024)  # bytes
PAGE_MAX_BODY = 4_500_000  # bytes of a form, with a YAML file of a million characters
# No part of a form is written to disk. Larger forms were already rejected by their length.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]
FILE_UPLOAD_MAX_MEMORY_SIZE = PAGE_MAX_BODY
RUNNERS_IDEMPOTENCY_HOURS = envint("RUNNERS_IDEMPOTENCY_HOURS", 48)  # how long an Idempotency-Key is remembered
# Rate limits of one person (token, user, else address), such as 600/min; "off": no limit.
THROTTLE_COMMANDS = envrate("THROTTLE_COMMANDS", "600/min")
THROTTLE_READS = envrate("THROTTLE_READS", "off")
THROTTLE_ACCOUNT_LOGINS = envrate("THROTTLE_ACCOUNT_LOGINS", "20/min")
THROTTLE_STRANGERS = envrate("THROTTLE_STRANGERS", "60/min")
RUNNERS_LOGINS_IN_FLIGHT = envint("RUNNERS_LOGINS_IN_FLIGHT", 2)  # passwords that a process checks at the same time
THROTTLE_FAILED_LOGINS = envrate("THROTTLE_FAILED_LOGINS", "60/min")

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "runners.api.authentication.BearerAuthentication",
        "runners.api.authentication.AdminSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["runners.api.permissions.ScopeAllowed"],
    "DEFAULT_THROTTLE_CLASSES": ["runners.api.throttling.ReadThrottle"],
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_PARSER_CLASSES": ["runners.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["runners.api.renderers.CompactJSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "runners.api.negotiation.AlwaysJSON",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "runners.api.exception_handler.handle",
    "NUM_PROXIES": envint("NUM_PROXIES", 0),
}

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Autosubmit Runners",
    "DESCRIPTION": "Runs Autosubmit commands on the machines of its profiles, locally or over SSH.",
    "VERSION": "4.0.0",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": "/v4/",
    "TAGS": [
        {"name": "commands", "description": "Create, run, stop and change experiments."},
        {"name": "runs", "description": "The state of runs."},
        {"name": "operations", "description": "Long commands that continue without their request."},
        {"name": "experiments", "description": "The files of experiments on their machines."},
        {"name": "machines", "description": "Which machines answer, and their maintenance."},
        {"name": "configuration", "description": "The configuration by admins."},
        {"name": "user settings", "description": "The settings of a person."},
    ],
    "ENUM_NAME_OVERRIDES": {
        "RunStatus": "runners.models.RunStatus",
        "RunReason": "runners.api.runs.serializers.REASONS",
        "RunnerType": "profiles.rules.runner_choices",
        "ModuleLoaderType": "profiles.rules.loader_choices",
        "CancelOutcome": "runners.api.commands.responses.CANCEL_OUTCOMES",
        "FinalStatus": "runners.commands.set_job_status.STATUSES",
        "OperationKind": "runners.commands.registry.operation_kinds",
        "OperationStatus": "runners.models.operation.OperationStatus",
        "CheckStageName": "runners.api.profiles.serializers.STAGE_CHOICES",
        "CommandParameterKind": "runners.api.commands.responses.PARAMETER_KINDS",
        "CommandPermission": "runners.api.commands.responses.ACTIONS",
        "FirstStep": "runners.api.run_again.serializers.FIRST_STEPS",
        "RestartCause": "runners.web.requests.RESTART_CAUSES",
        "TokenScope": "runners.models.TokenScope",
        "LoginScope": "runners.api.login.serializers.LOGIN_SCOPES",
        "LoginStatus": "runners.api.login.serializers.LOGIN_STATUSES",
        "MachineState": "runners.api.machines.serializers.STATES",
        "ParameterType": "runners.api.profiles.serializers.PARAMETER_TYPES",
    },
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "runners.api.openapi.hooks.close_request_bodies",
        "runners.api.openapi.hooks.name_enums",
        "runners.api.openapi.hooks.describe",
        "runners.api.openapi.hooks.complete_errors",
        "runners.api.openapi.hooks.add_examples",
    ],
    "CONTACT": {"name": "The administrators of this service"},
    "SERVERS": [{"url": "/", "description": "The server that served this document."}],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": True, "tryItOutEnabled": True},
}

# --- Static files ----------------------------------------------------------------------------------------------------

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
GUIDE_ROOT = BASE_DIR / "guide"  # the documents as a site, which `make docs` builds
# Static files are public, and a web server of another account may serve them, so they do not follow the umask.
FILE_UPLOAD_PERMISSIONS = 0o644
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o755

LANGUAGE_CODE = "en"
TIME_ZONE = envstr("TIME_ZONE", "UTC")
USE_I18N = False
USE_TZ = True

# --- Logging: to standard error, one line each; never a body or a header ---------------------------------------------

LOG_LEVEL = envchoice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "runners_project.request_id.RequestIdFilter"}},
    "formatters": {
        "TEXT": {"format": "{asctime} {levelname} {name} [{request_id}]: {message}", "style": "{"},
        "JSON": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "{asctime}{levelname}{name}{request_id}{message}",
            "style": "{",
        },
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": envchoice("LOG_FORMAT", "TEXT", ("TEXT", "JSON")),
            "filters": ["request_id"],
        }
    },
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": ["console"], "level": LOG_LEVEL, "propagate": False},
        "paramiko": {"level": "WARNING"},
        "procrastinate": {"level": "WARNING"},  # it logs each task three times
        # It logs a traceback for each machine that does not answer; the service reports the same in one sentence.
        "paramiko.transport": {"level": "CRITICAL"},
    },
}

# /metrics for Prometheus (docs/operations.md). prometheus_client reads the second variable itself.
METRICS_TOKEN = envtoken("METRICS_TOKEN")
METRICS_TOKEN_FALLBACKS = envfallbacks("METRICS_TOKEN_FALLBACKS")
if METRICS_TOKEN and not DEBUG and not os.access(envstr("PROMETHEUS_MULTIPROC_DIR", "/unset"), os.W_OK | os.X_OK):
    raise ImproperlyConfigured(
        "METRICS_TOKEN is set, but PROMETHEUS_MULTIPROC_DIR does not name a directory that the service can write to. "
        "Its processes add up their metrics there: create an empty directory at each start of the service."
    )

# Record changes of the configuration outside of a request with the Unix account. Only the tests disable this.
RUNNERS_AUDIT_WITHOUT_REQUEST = True

# --- Nodes and tasks --------------------------------------------------------------------------------------------------

# The name of this node of the service: LOCAL runs belong to the node that has started them.
RUNNERS_NODE = envstr("RUNNERS_NODE") or socket.gethostname()
if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", RUNNERS_NODE):
    raise ImproperlyConfigured("RUNNERS_NODE must have 1 to 100 letters, digits and '.', '_' or '-'.")
# Days after which the worker removes the directories and rows of ended runs, once a day. 0: never.
RUNNERS_RETENTION_DAYS = envint("RUNNERS_RETENTION_DAYS", 0, least=0, most=36_500)

# --- Runners (read by runners/services) ------------------------------------------------------------------------------

RUNNERS_CONNECT_TIMEOUT = envfloat("RUNNERS_CONNECT_TIMEOUT", 10)  # seconds, like all timeouts and waits below
RUNNERS_SSH_CONNECTIONS = envint("RUNNERS_SSH_CONNECTIONS", 512, least=1, most=10_000)  # per process
# Threads of each server process; 0: from its command line (--threads, --blocking-threads), else 8. MACHINE_SHARE: the
# most of them that may wait for one machine that does not answer. RESERVED_SHARE: kept for statuses and pages.
RUNNERS_SERVER_THREADS = envint("RUNNERS_SERVER_THREADS", 0, least=0, most=10_000)
RUNNERS_MACHINE_SHARE = envfloat("RUNNERS_MACHINE_SHARE", 0.25, least=0, most=1)
RUNNERS_RESERVED_SHARE = envfloat("RUNNERS_RESERVED_SHARE", 0.25, least=0, most=0.9)
# Concurrent commands of one person, and of one account of a machine, in each server process. 0: half of the threads for
# a person, all but the reserved ones for an account.
RUNNERS_COMMANDS_PER_PERSON = envint("RUNNERS_COMMANDS_PER_PERSON", 0, least=0)
RUNNERS_COMMANDS_PER_ACCOUNT = envint("RUNNERS_COMMANDS_PER_ACCOUNT", 0, least=0)
RUNNERS_STATUS_WAIT = envfloat("RUNNERS_STATUS_WAIT", 2, least=0, most=60)  # for a machine's answer to a status request
# Back-off: seconds before a machine that has just failed to answer is asked again. Each further failure doubles them.
RUNNERS_RETRY_PAUSE = envfloat("RUNNERS_RETRY_PAUSE", 5, least=0, most=600)
RUNNERS_RETRY_PAUSE_LONGEST = envfloat("RUNNERS_RETRY_PAUSE_LONGEST", 30, least=0, most=3600)
RUNNERS_COMMAND_TIMEOUT = envfloat("RUNNERS_COMMAND_TIMEOUT", 300)
RUNNERS_OPERATION_TIMEOUT = envfloat("RUNNERS_OPERATION_TIMEOUT", 6 * 3600)
RUNNERS_LAUNCH_TIMEOUT = envfloat("RUNNERS_LAUNCH_TIMEOUT", 60)
RUNNERS_PROBE_TIMEOUT = envfloat("RUNNERS_PROBE_TIMEOUT", 15)
RUNNERS_STATUS_FRESHNESS = envfloat("RUNNERS_STATUS_FRESHNESS", 2)
# Seconds between two counts of a run's jobs, which come with a probe. 0: with each probe.
RUNNERS_PROGRESS_INTERVAL = envfloat("RUNNERS_PROGRESS_INTERVAL", 10, least=0, most=3600)
RUNNERS_STOP_TIMEOUT = envfloat("RUNNERS_STOP_TIMEOUT", 20)
RUNNERS_CANCEL_TIMEOUT = envfloat("RUNNERS_CANCEL_TIMEOUT", 180)
RUNNERS_TERM_WAIT = envfloat("RUNNERS_TERM_WAIT", 10)
RUNNERS_KILL_WAIT = envfloat("RUNNERS_KILL_WAIT", 10)
RUNNERS_RESTART_DELAY = envfloat("RUNNERS_RESTART_DELAY", 60)
RUNNERS_OUTPUT_LIMIT = envint("RUNNERS_OUTPUT_LIMIT", 1024 * 1024)  # bytes
# Bytes; a run whose log is longer is marked, and webhooks tell it once. 0: never.
RUNNERS_LOG_SIZE_LIMIT = envint("RUNNERS_LOG_SIZE_LIMIT", 1024**3, least=0, most=2**63 - 1)
RUNNERS_KNOWN_HOSTS = envstr("RUNNERS_KNOWN_HOSTS")  # a file, in addition to ~/.ssh/known_hosts
# The file for `ssh -F`. Empty: ~/.ssh/config and /etc/ssh/ssh_config, as ssh reads them.
RUNNERS_SSH_CONFIG = envstr("RUNNERS_SSH_CONFIG")
RUNNERS_SSH_MATCH_EXEC = envbool("RUNNERS_SSH_MATCH_EXEC", False)  # allow `Match exec` to run its command here
RUNNERS_SSH_KEYS = envlist("RUNNERS_SSH_KEYS")
RUNNERS_SSH_KEY_DIR = envstr("RUNNERS_SSH_KEY_DIR", "~/.autosubmit-runners/ssh")  # of its own key and its user CA
RUNNERS_SSH_CERTIFICATE_LIFETIME = envint("RUNNERS_SSH_CERTIFICATE_LIFETIME", 300, least=60, most=3600)  # seconds
RUNNERS_SSH_CERTIFICATE_SOURCES = [str(network) for network in envnetworks("RUNNERS_SSH_CERTIFICATE_SOURCES")]
# The umask of LOCAL commands; the service itself has 077 (runners_project/private.py).
RUNNERS_LOCAL_UMASK = envmask("RUNNERS_LOCAL_UMASK", private.ACCOUNT_UMASK)
# Limits that no profile can widen: where environments given by a path must lie, and whether LOCAL commands are allowed.
RUNNERS_VENV_ROOTS = envpaths("RUNNERS_VENV_ROOTS")
RUNNERS_ALLOW_LOCAL = envbool("RUNNERS_ALLOW_LOCAL", True)
RUNNERS_LOCAL_ENV_PASS = envlist("RUNNERS_LOCAL_ENV_PASS", ["AUTOSUBMIT_CONFIGURATION", "LANG", "LC_ALL", "TZ"])
# Networks that are not public and may still receive webhooks. Empty: none may.
RUNNERS_WEBHOOK_PRIVATE_TARGETS = envnetworks("RUNNERS_WEBHOOK_PRIVATE_TARGETS")

# --- Mail (Django's names) -------------------------------------------------------------------------------------------

EMAIL_HOST = envstr("EMAIL_HOST")  # empty: no mail is sent
EMAIL_PORT = envint("EMAIL_PORT", 25, least=1, most=65535)
EMAIL_HOST_USER = envstr("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = envstr("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = envbool("EMAIL_USE_TLS", False)  # STARTTLS
EMAIL_USE_SSL = envbool("EMAIL_USE_SSL", False)
EMAIL_TIMEOUT = envfloat("EMAIL_TIMEOUT", 15, least=1, most=30)  # seconds for each answer of the mail server
DEFAULT_FROM_EMAIL = envstr("DEFAULT_FROM_EMAIL")
# The address of the service in links of mail and chats, such as https://runners.example.org.
RUNNERS_PUBLIC_URL = envstr("RUNNERS_PUBLIC_URL").rstrip("/")
if RUNNERS_PUBLIC_URL and not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", RUNNERS_PUBLIC_URL):
    raise ImproperlyConfigured(f"RUNNERS_PUBLIC_URL is '{RUNNERS_PUBLIC_URL}': use https://NAME, without a query.")
if EMAIL_HOST and not (DEFAULT_FROM_EMAIL and RUNNERS_PUBLIC_URL):
    raise ImproperlyConfigured("EMAIL_HOST also needs DEFAULT_FROM_EMAIL and RUNNERS_PUBLIC_URL.")
if EMAIL_USE_TLS and EMAIL_USE_SSL:
    raise ImproperlyConfigured("Set one of EMAIL_USE_TLS and EMAIL_USE_SSL.")
