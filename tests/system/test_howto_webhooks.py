"""The how-to page on webhooks: its files are written out as they stand there, and run."""

from __future__ import annotations

from pathlib import Path

from ..support.howto import python, write_files

WEBHOOK_SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["rooms"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
ROOT_URLCONF = "urls"
TAMBUR_WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""

WEBHOOK_TESTS = """
from django.conf import settings
from django.test import TransactionTestCase
from tambur.testing import make_webhook

from rooms.models import Visit


class WebhookTest(TransactionTestCase):
    def send(self, type_, version, secret=settings.TAMBUR_WEBHOOK_SECRET):
        body, headers = make_webhook(secret, type_, "lobby", "alice", version=version)
        return self.client.post("/hook", body, content_type="application/json", headers=headers).status_code

    def test_a_late_event_changes_nothing(self):
        with self.assertLogs("rooms") as logs:
            for type_, version in [("user.joined", 1), ("user.left", 3), ("user.left", 3), ("user.joined", 2)]:
                assert self.send(type_, version) == 204
        assert [record.getMessage() for record in logs.records] == ["alice left lobby"]
        visit = Visit.objects.get()
        assert (visit.stream, visit.user_id, visit.version, visit.is_here) == ("lobby", "alice", 3, False)
        assert self.send("user.joined", 4) == 204
        assert Visit.objects.get().is_here

    def test_a_request_with_another_secret_is_refused(self):
        assert self.send("user.left", 1, "whsec_" + "A" * 32) == 400
        assert not Visit.objects.exists()
"""


def test_the_webhook_page_and_the_tests_for_it(tmp_path: Path) -> None:
    write_files(tmp_path, "webhooks.md")
    assert "2 passed" in python(tmp_path, "pytest", "-p", "no:cacheprovider", "test_online.py")
    (tmp_path / "settings.py").write_text(WEBHOOK_SETTINGS)
    (tmp_path / "rooms" / "tests.py").write_text(WEBHOOK_TESTS)
    (tmp_path / "rooms" / "__init__.py").touch()
    (tmp_path / "urls.py").write_text(
        "from django.urls import path\nfrom rooms.views import tambur_webhook\n"
        "urlpatterns = [path('hook', tambur_webhook)]\n"
    )
    said = python(tmp_path, "django", "test", "--settings", "settings", "rooms")
    assert "Ran 2 tests" in said
