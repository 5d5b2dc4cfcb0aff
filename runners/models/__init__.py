"""The rows of the service. Each module has the models of one subject; import them from here."""

from runners.models.audit import AuditRecord as AuditRecord
from runners.models.base import DetachedCommand as DetachedCommand
from runners.models.base import new_run_key as new_run_key
from runners.models.database import SeenDatabase as SeenDatabase
from runners.models.device_login import DeviceLogin as DeviceLogin
from runners.models.foreign import SeenForeignRun as SeenForeignRun
from runners.models.health import Heartbeat as Heartbeat
from runners.models.host_key import TrustedHostKey as TrustedHostKey
from runners.models.machine import Machine as Machine
from runners.models.machine import Maintenance as Maintenance
from runners.models.mail import Mail as Mail
from runners.models.mail import MailSubscription as MailSubscription
from runners.models.operation import IdempotencyRecord as IdempotencyRecord
from runners.models.operation import Operation as Operation
from runners.models.operation import OperationStatus as OperationStatus
from runners.models.run import RunnerRun as RunnerRun
from runners.models.run import RunnerRunQuerySet as RunnerRunQuerySet
from runners.models.run import RunReason as RunReason
from runners.models.run import RunStatus as RunStatus
from runners.models.token import ApiToken as ApiToken
from runners.models.token import SignInAttempts as SignInAttempts
from runners.models.token import TokenScope as TokenScope
from runners.models.webhook import Webhook as Webhook
from runners.models.webhook import WebhookDelivery as WebhookDelivery
from runners.models.webhook import WebhookEvent as WebhookEvent
from runners.models.webhook import WebhookFormat as WebhookFormat
