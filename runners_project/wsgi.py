"""The WSGI entry point: `gunicorn runners_project.wsgi`.

WhiteNoise wraps Django instead of being one of its middleware. So it costs a request of the API only one dict lookup.
"""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runners_project.settings")

django_application = get_wsgi_application()

from django.conf import settings  # noqa: E402  (needs the settings module named above)
from django.contrib.staticfiles.finders import get_finders  # noqa: E402
from whitenoise import WhiteNoise  # noqa: E402

from runners.services import health, interrupted  # noqa: E402
from runners.services.machines.bulkheads import BULKHEADS  # noqa: E402
from runners_project import guide, memory  # noqa: E402

BULKHEADS.serve()
health.beat_as_server()


def serve_static(inner: WhiteNoise) -> WhiteNoise:
    """Add the guide, and the static files from STATIC_ROOT. Before collectstatic, those of the packages are used."""
    if settings.GUIDE_ROOT.is_dir():
        inner.add_files(str(settings.GUIDE_ROOT), prefix=guide.PREFIX)
    prefix = f"/{settings.STATIC_URL.strip('/')}/"
    if settings.STATIC_ROOT.is_dir():
        inner.add_files(str(settings.STATIC_ROOT), prefix=prefix)
        return inner
    for finder in get_finders():
        for path, storage in finder.list(None):
            inner.add_file_to_dictionary(prefix + path.replace(os.sep, "/"), storage.path(path))
    return inner


interrupted.mark_at_start()
application = serve_static(
    WhiteNoise(django_application, max_age=3600, index_file=True, add_headers_function=guide.add_headers)
)
memory.freeze_startup()
